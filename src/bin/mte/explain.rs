//! `mte explain`: what a code means and what to do about it. Numbers, names and meanings are the library's table; the rest is
//! the page of errors in the documentation, which is in this program as it stands there.

use std::error::Error;
use std::process::ExitCode;

use serde_json::json;
use transfer_engine::tools::{CodeRow, CODES};

use crate::answer::{print, table};

/// The page.
const PAGE: &str = include_str!("../../../docs/src/errors.md");

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A number (-102) or a name (ERR_SOCKET), or a class (TIMEOUT); without it, all codes
    #[arg(allow_negative_numbers = true)]
    code: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A code with its part of the page.
struct Explained {
    row: &'static CodeRow,
    causes: String,
    remedy: String,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let text = match arguments.code {
        Some(wanted) => match find(&wanted) {
            Ok(row) => explained(row).text(arguments.json),
            Err(why) => match class(&wanted) {
                Some(class) => class.text(arguments.json),
                None => {
                    eprintln!("mte: {why}");
                    return Ok(ExitCode::from(2));
                }
            },
        },
        None if arguments.json => {
            serde_json::Value::from_iter(CODES.iter().map(|row| explained(row).json())).to_string()
        }
        None => {
            let head = ["code", "name", "meaning"].map(String::from).to_vec();
            let rows =
                CODES.iter().map(|row| vec![row.value.to_string(), row.name.into(), row.meaning.into()]);
            table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The row that `wanted` names, by number or by name; a name may be without `ERR_`, and in small letters.
fn find(wanted: &str) -> Result<&'static CodeRow, String> {
    let name = wanted.trim().to_ascii_uppercase();
    let number = wanted.trim().parse::<i32>().ok();
    let is_wanted = |row: &&CodeRow| {
        Some(row.value) == number || row.name == name || row.name.strip_prefix("ERR_") == Some(name.as_str())
    };
    CODES.iter().find(is_wanted).ok_or_else(|| match number {
        Some(0) => "0 is no error: it is success".into(),
        Some(number) if number > 0 && CODES.iter().any(|row| row.value.checked_neg() == Some(number)) => {
            format!(
                "{number} is no code of this library, whose codes are negative; Mooncake's functions return some as \
                 positive numbers: try mte explain -{number}"
            )
        }
        _ => format!("'{wanted}' is no error code; mte explain without a code shows all of them"),
    })
}

/// A class of errors, as the page has it.
struct Class<'a> {
    name: &'a str,
    meaning: &'a str,
    reaction: &'a str,
}

impl Class<'_> {
    fn text(&self, as_json: bool) -> String {
        let Class { name, meaning, reaction } = self;
        if as_json {
            return json!({"class": name, "meaning": meaning, "reaction": reaction}).to_string();
        }
        format!("class {name}: {meaning}\n\nWhat to do:\n  {reaction}\n\nThe codes: mte explain")
    }
}

/// The class that `wanted` names, with or without what stands before it in the page, in any letters.
fn class(wanted: &str) -> Option<Class<'static>> {
    const BEFORE: &str = "MTE_CLASS_";
    let wanted = wanted.trim().to_ascii_uppercase();
    let wanted = wanted.strip_prefix(BEFORE).unwrap_or(&wanted);
    PAGE.lines().find_map(|line| {
        let mut cells = line.strip_prefix("| `")?.strip_prefix(BEFORE)?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`');
        let (meaning, reaction) = (cells.next()?, cells.next()?);
        (name == wanted).then_some(Class { name, meaning, reaction })
    })
}

/// The row with its part of the page: what stands before `What to do:`, and behind it.
fn explained(row: &'static CodeRow) -> Explained {
    let heading = format!("\n### {}\n", row.name);
    let section = PAGE.split_once(&heading).map_or("", |(_, rest)| rest);
    let section = section.split("\n#").next().unwrap_or_default();
    let section = section.split("\nTested by").next().unwrap_or_default();
    let (causes, remedy) = section.split_once("What to do:").unwrap_or((section, ""));
    let causes = plain(causes);
    let causes = causes.strip_prefix(&format!("{}. ", row.value)).unwrap_or(&causes);
    let mut remedy = plain(remedy);
    if let Some(first) = remedy.get(..1).map(str::to_ascii_uppercase) {
        remedy.replace_range(..1, &first);
    }
    Explained { row, causes: causes.to_string(), remedy }
}

/// A paragraph without marks, in one line: of a link its text stays, and of code what stands between the backticks.
fn plain(markdown: &str) -> String {
    let words: Vec<&str> = markdown.split_whitespace().collect();
    let text = words.join(" ").replace('`', "");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, label, after)) = link(rest) {
        out.push_str(before);
        out.push_str(label);
        rest = after;
    }
    out + rest
}

/// What stands before the first link of `text`, the link's text, and what stands behind it.
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (head, tail) = text.split_once("](")?;
    let (before, label) = head.rsplit_once('[')?;
    let (_, after) = tail.split_once(')')?;
    Some((before, label, after))
}

impl Explained {
    fn text(&self, as_json: bool) -> String {
        if as_json {
            return self.json().to_string();
        }
        let CodeRow { name, value, meaning, .. } = self.row;
        let part = |title: &str, text: &str| format!("\n{title}:\n{}", folded(text));
        let (causes, remedy) = (part("Common causes", &self.causes), part("What to do", &self.remedy));
        format!("{name} ({value}): {meaning}\n{causes}{remedy}")
    }

    fn json(&self) -> serde_json::Value {
        let CodeRow { name, value, meaning, .. } = self.row;
        json!({"code": value, "name": name, "meaning": meaning, "causes": self.causes, "remedy": self.remedy})
    }
}

/// Lines of at most 100 characters, indented.
fn folded(text: &str) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let first = length == 0;
        let len = word.chars().count() + 1;
        if !first && length + len > 100 {
            out.push('\n');
            length = 0;
        }
        out.push_str(if length == 0 { "\u{20}\u{20}" } else { " " });
        out.push_str(word);
        length += len;
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_causes_and_remedy_of_every_code() {
        for row in CODES {
            let Explained { causes, remedy, .. } = explained(row);
            for text in [&causes, &remedy] {
                assert!(text.len() > 20 && !text.contains(['`', '[', '#']), "{}: {text}", row.name);
            }
            assert!(!causes.starts_with('-') && !remedy.contains("Tested by"), "{causes} {remedy}");
        }
    }
}
