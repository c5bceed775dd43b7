//! Links between files, and to headings inside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::pages::{all, split, top, Page};

/// `a/b/../c` as `a/c`.
fn plain(path: &Path) -> PathBuf {
    let mut parts: Vec<Component> = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.iter().collect()
}

/// The anchor of a heading on forges: lower case, blanks as dashes, no punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Headings that repeat have numbered anchors, which forges and MkDocs number differently: they are left out.
fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = split(&page.text).1.into_iter().filter(|line| line.starts_with('#'));
    let named = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
    let mut count = BTreeMap::new();
    named.for_each(|name| *count.entry(name).or_insert(0) += 1);
    count.into_iter().filter(|(_, times)| *times == 1).map(|(name, _)| name).collect()
}

/// Code between backticks is no link.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("code")
}

/// What stands in the parentheses of `[text](target)`.
fn targets(line: &str) -> Vec<String> {
    let line = without_code(line);
    let after = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_string()).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = all();
    let known: BTreeMap<&Path, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_path(), anchors(page))).collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in &pages {
        for target in split(&page.text).1.into_iter().flat_map(targets) {
            if target.contains("://") {
                continue;
            }
            seen += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let folder = page.path.parent().unwrap();
            let path = if file.is_empty() { page.path.clone() } else { plain(&folder.join(file)) };
            let found = match known.get(path.as_path()) {
                Some(headings) => heading.is_empty() || headings.contains(heading),
                None => heading.is_empty() && top().join(&path).exists(),
            };
            // MkDocs knows nothing outside of its folder.
            let inside = !page.path.starts_with("docs/src") || path.starts_with("docs/src");
            if !found || !inside {
                wrong.push(format!("{}: {target}", page.path.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found: the pages are not understood");
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = super::pages::read("docs/mkdocs.yml");
    for page in all().iter().filter(|page| page.path.starts_with("docs/src")) {
        let name = page.path.strip_prefix("docs/src").unwrap().display().to_string();
        assert!(contents.contains(&format!(": {name}\n")), "docs/mkdocs.yml does not list {name}");
    }
}

#[test]
fn the_reader_of_links_knows_their_forms() {
    assert_eq!(targets("see [a](b.md#c), `[no](x)` and ![d](e.svg)."), ["b.md#c", "e.svg"]);
    assert_eq!(anchor("P2PHANDSHAKE: no store"), "p2phandshake-no-store");
    assert_eq!(plain(Path::new("docs/src/stores/../errors.md")), Path::new("docs/src/errors.md"));
}
