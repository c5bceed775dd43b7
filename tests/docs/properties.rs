//! Which tests prove which property: `docs/src/properties.md` lists, under each property, the tests whose names carry its id.
//! `UPDATE_PROPERTIES=1` writes the lists anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where tests are.
const FOLDERS: [&str; 3] = ["src", "tests", "python"];
const PAGE: &str = "docs/src/properties.md";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_text = |e: &std::ffi::OsStr| ["rs", "c", "h", "cpp", "py"].iter().any(|known| e == *known);
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(is_text) {
            found.push(path);
        }
    }
}

/// The ids that a name begins with: `p02_p17_nothing_is_lost` has two. Names of two digits alone are no ids (`p99_us`).
fn ids(name: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut rest = name;
    while let Some(after) = rest.strip_prefix('p') {
        let Some((digits, tail)) = after.split_once('_') else { break };
        let Some(id) = (digits.len() == 2).then(|| digits.parse().ok()).flatten() else { break };
        ids.push(id);
        rest = tail;
    }
    // What is left is a sentence.
    if rest.contains('_') {
        ids
    } else {
        Vec::new()
    }
}

/// The id and the sentence of a check in a C program: `p03: every task ends`.
fn check(literal: &str) -> Option<(u32, &str)> {
    let (id, what) = literal.strip_prefix('p')?.split_once(": ")?;
    let is_id = id.len() == 2 && id.bytes().all(|byte| byte.is_ascii_digit());
    let is_sentence = what.contains(' ') && !what.contains(['\n', '\\', '%']);
    (is_id && is_sentence).then(|| (id.parse().unwrap_or_default(), what))
}

/// The tests of each property, with their files; of C programs, the checks.
fn tests() -> BTreeMap<u32, BTreeSet<String>> {
    let mut paths = Vec::new();
    FOLDERS.iter().for_each(|folder| files(&top().join(folder), &mut paths));
    let mut tests: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for path in paths.iter().filter(|path| !path.ends_with("docs/properties.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let file = path.strip_prefix(top()).unwrap().display();
        for name in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            for id in ids(name.strip_prefix("test_").unwrap_or(name)) {
                tests.entry(id).or_default().insert(format!("- `{name}` ({file})"));
            }
        }
        for (id, what) in text.split('"').filter_map(check) {
            tests.entry(id).or_default().insert(format!("- `p{id:02}`: {what} ({file})"));
        }
    }
    tests
}

#[test]
fn each_property_lists_the_tests_that_prove_it() {
    let path = top().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let mut tests = tests();
    let mut wanted = String::new();
    for line in page.lines().filter(|line| !line.starts_with("- `")) {
        wanted += line;
        wanted.push('\n');
        let id = line.strip_prefix("**P").and_then(|rest| rest.split_once("**")).map(|(id, _)| id);
        if let Some(id) = id {
            let list = tests.remove(&id.parse().unwrap()).unwrap_or_else(|| panic!("P{id} has no test"));
            // The list stands behind the empty line that follows the property.
            wanted += "\n";
            list.iter().for_each(|test| wanted += &format!("{test}\n"));
        }
    }
    // Of the empty lines that the list was taken out between, one stays.
    while wanted.contains("\n\n\n") {
        wanted = wanted.replace("\n\n\n", "\n\n");
    }
    wanted.truncate(wanted.trim_end().len());
    wanted.push('\n');
    let strange: Vec<_> = tests.keys().collect();
    assert!(strange.is_empty(), "tests carry ids that {PAGE} does not have: {strange:?}");
    if std::env::var_os("UPDATE_PROPERTIES").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    } else {
        assert!(page == wanted, "{PAGE} is out of date; run UPDATE_PROPERTIES=1 cargo test --test docs");
    }
}

#[test]
fn ids_are_told_from_other_names() {
    assert_eq!(ids("p02_p17_nothing_is_lost"), [2, 17]);
    assert!(["p99_us", "page_of_memory", "p2_short_ids"].iter().all(|name| ids(name).is_empty()));
    assert_eq!(check("p03: every task ends"), Some((3, "every task ends")));
    assert!(["p3: no", "p03: no", "p03 every task", "px1: a b"].iter().all(|text| check(text).is_none()));
}
