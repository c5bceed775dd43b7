//! The Markdown files for readers.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One file, its path from the top of the repository.
pub struct Page {
    pub path: PathBuf,
    pub text: String,
}

pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = top().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a script of the repository prints.
pub fn output_of(script: &str, arguments: &[&str]) -> String {
    let output = Command::new("python3").arg(top().join(script)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn markdown_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(top().join(folder)).unwrap() {
        let name = folder.join(entry.unwrap().file_name());
        if top().join(&name).is_dir() {
            markdown_below(&name, found);
        } else if name.extension().is_some_and(|extension| extension == "md") {
            found.push(name);
        }
    }
}

/// The pages whose functions come from headers and sources.
const GENERATED: [&str; 3] = ["c-api.md", "cpp-api.md", "python-api.md"];

/// A page as `make docs` builds it.
pub fn built(name: &str) -> String {
    output_of("scripts/docs/page.py", &[name])
}

/// README.md, ARCHITECTURE.md, CONTRIBUTING.md, CHANGELOG.md, SECURITY.md and everything below docs/, as they are in the repository.
pub fn sources() -> Vec<Page> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
            .map(PathBuf::from)
            .into();
    markdown_below(Path::new("docs"), &mut paths);
    paths.sort();
    paths.into_iter().map(|path| Page { text: read(&path), path }).collect()
}

/// The same, with what `make docs` puts into them.
pub fn all() -> Vec<Page> {
    let mut pages = sources();
    for name in GENERATED {
        let path = Path::new("docs/src").join(name);
        pages.iter_mut().find(|page| page.path == path).unwrap().text = built(name);
    }
    pages
}

/// A fenced block of code.
pub struct Block<'a> {
    /// What stands behind the opening fence.
    pub language: &'a str,
    /// The comment on the line before, without its marks, or "".
    pub note: &'a str,
    pub code: String,
    pub line: usize,
}

/// Splits a page into its blocks of code and the lines outside of them.
pub fn split(text: &str) -> (Vec<Block<'_>>, Vec<&str>) {
    let (mut blocks, mut prose, mut open): (Vec<Block>, Vec<&str>, bool) = (Vec::new(), Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                let before = prose.last().copied().unwrap_or("");
                let note =
                    before.strip_prefix("<!-- ").and_then(|note| note.strip_suffix(" -->")).unwrap_or("");
                blocks.push(Block { language, note, code: String::new(), line: index + 1 });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => blocks.last_mut().unwrap().code += &format!("{line}\n"),
            (None, false) => prose.push(line),
        }
    }
    assert!(!open, "a block of code is not closed");
    (blocks, prose)
}
