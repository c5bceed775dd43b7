//! The texts of the library as they stand in the source: what a message looks like to whoever reads it.

use std::path::{Path, PathBuf};

/// Files with texts that have gaps on purpose, and the purpose.
const MEANT: &[(&str, &str)] = &[("engine/reports.rs", "the form of a row that upstream prints")];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The string literals of `source` with their lines, as written, but for breaks that are escaped with a backslash:
/// those are taken out with the blanks after them, as the compiler does. Raw strings are left out.
fn literals(source: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let c = chars[at];
        let word_before =
            at > 0 && (chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b' || chars[at - 1] == '_');
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
            continue;
        }
        if starts(at, "/*") {
            while at < chars.len() && !starts(at, "*/") {
                line += usize::from(chars[at] == '\n');
                at += 1;
            }
            continue;
        }
        if c == 'r' && !word_before {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + 1 + hashes) == Some(&'"') {
                let end = format!("\"{}", "#".repeat(hashes));
                at += hashes + 2;
                while at < chars.len() && !starts(at, &end) {
                    line += usize::from(chars[at] == '\n');
                    at += 1;
                }
                at += end.len();
                continue;
            }
        }
        if c == '\'' {
            // A character; else a lifetime, which has no second quote.
            let end = if chars.get(at + 1) == Some(&'\\') {
                chars[at + 3..].iter().position(|c| *c == '\'').map(|place| at + 3 + place)
            } else {
                Some(at + 2).filter(|end| chars.get(*end) == Some(&'\''))
            };
            at = end.unwrap_or(at) + 1;
            continue;
        }
        if c == '"' {
            let (begun, mut text) = (line, String::new());
            at += 1;
            while chars[at] != '"' {
                if chars[at] == '\\' && chars[at + 1] == '\n' {
                    at += 1;
                    while chars[at].is_whitespace() {
                        line += usize::from(chars[at] == '\n');
                        at += 1;
                    }
                    continue;
                }
                if chars[at] == '\\' {
                    text.push(chars[at]);
                    at += 1;
                }
                line += usize::from(chars[at] == '\n');
                text.push(chars[at]);
                at += 1;
            }
            found.push((begun, text));
        }
        line += usize::from(chars.get(at) == Some(&'\n'));
        at += 1;
    }
    found
}

/// Two blanks or more between two words. An indentation at the beginning of a line is none.
fn has_gap(text: &str) -> bool {
    text.replace("\\n", "\n").lines().any(|line| line.trim().contains("  "))
}

#[test]
fn no_message_has_a_gap_in_it() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&top, &mut found);
    let mut wrong = Vec::new();
    let (mut seen, mut excused) = (0, std::collections::BTreeSet::new());
    for path in found {
        let source = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&top).unwrap().to_string_lossy().replace('\\', "/");
        // What tests compare with is the message itself.
        if name.ends_with("tests.rs") {
            continue;
        }
        for (line, text) in literals(&source) {
            seen += 1;
            if !has_gap(&text) {
                continue;
            }
            match MEANT.iter().find(|(file, _)| *file == name) {
                Some((file, _)) => drop(excused.insert(*file)),
                None => wrong.push(format!("src/{name}:{line}: {text}")),
            }
        }
    }
    assert!(seen > 500, "only {seen} texts were found: the sources are not understood");
    assert!(wrong.is_empty(), "blanks in the middle of a text:\n{}", wrong.join("\n"));
    assert_eq!(excused.len(), MEANT.len(), "an exception has no case any more");
}

#[test]
fn the_reader_of_texts_knows_the_forms_of_literals() {
    let source = concat!(
        "// \"a  comment\"\n/* \"and\n  b\" */ let c = '\"'; fn f<'a>(x: &'a str) {}\n",
        "let r = r#\"raw  \" text\"#; let q = '\\''; let s = \"one \\\n      two\";\n",
        "g(\"a \\\"b\\\"  c\", \"\\n  indented\", b\"bytes\");\n",
    );
    let texts = literals(source);
    let expected = [(4, "one two"), (6, "a \\\"b\\\"  c"), (6, "\\n  indented"), (6, "bytes")];
    assert_eq!(texts, expected.map(|(line, text)| (line, text.to_string())));
    assert_eq!(expected.map(|(_, text)| has_gap(text)), [false, true, false, false]);
}

/// What stands between quotation marks in the tables of a page, cut where a `…` stands for something that varies.
fn quoted(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let quotes = rows.flat_map(|line| line.split('"').skip(1).step_by(2));
    let parts = quotes.flat_map(|quote| quote.split('…'));
    parts
        .map(|part| part.trim_matches([' ', '\'', ';', '?']).to_string())
        .filter(|part| part.len() > 5)
        .collect()
}

#[test]
fn trouble_shooting_quotes_messages_that_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut texts) = (Vec::new(), Vec::new());
    files(&top.join("src"), &mut found);
    for path in found.iter().filter(|path| !path.ends_with("tests.rs")) {
        let literals = literals(&std::fs::read_to_string(path).unwrap());
        texts.extend(literals.into_iter().map(|(_, text)| text.replace("\\\"", "\"")));
    }
    let quotes = quoted(&std::fs::read_to_string(top.join("docs/src/troubleshooting.md")).unwrap());
    assert!(quotes.len() > 40, "only {} quotations were found", quotes.len());
    let unknown: Vec<&String> =
        quotes.iter().filter(|quote| !texts.iter().any(|text| text.contains(*quote))).collect();
    assert!(unknown.is_empty(), "docs/src/troubleshooting.md quotes what no message says: {unknown:#?}");
}
