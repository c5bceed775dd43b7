//! The files of the crate that are no tests, found as the compiler finds them: from `src/lib.rs` along `mod`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, Meta};

/// Whether an attribute says that what follows is built for tests only, or in a build that is not the usual one.
pub fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
        let condition = list.tokens.to_string();
        let words: Vec<_> = condition.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        list.path.is_ident("cfg")
            && (words.contains(&"test")
                || words.contains(&"loom")
                || words.contains(&"not") && words.contains(&"feature") && !words.contains(&"internals"))
    })
}

/// The text and the syntax of each file, by its path below `top`.
pub fn sources(top: &Path) -> Result<BTreeMap<String, (String, syn::File)>, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::from("src/lib.rs")];
    while let Some(path) = left.pop() {
        let text =
            std::fs::read_to_string(top.join(&path)).map_err(|e| format!("{}: {e}", path.display()))?;
        let file = syn::parse_file(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        let folder = if ["lib", "mod"].contains(&stem) { folder.to_path_buf() } else { folder.join(stem) };
        modules(&file.items, &folder, top, &mut left);
        found.insert(path.display().to_string(), (text, file));
    }
    Ok(found)
}

fn modules(items: &[Item], folder: &Path, top: &Path, left: &mut Vec<PathBuf>) {
    for item in items {
        let Item::Mod(module) = item else { continue };
        if is_left_out(&module.attrs)
            || module.attrs.iter().any(|attribute| attribute.path().is_ident("path"))
        {
            continue;
        }
        let name = module.ident.to_string();
        match &module.content {
            Some((_, items)) => modules(items, &folder.join(name), top, left),
            None => {
                let forms = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
                let existing = forms.into_iter().find(|form| top.join(form).exists());
                left.extend(existing.filter(|form| !left.contains(form)));
            }
        }
    }
}
