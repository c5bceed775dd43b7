//! `record.txt`: what became of each mutant that was tried, one line each, in order, so that changes of it are read in a diff.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A test failed, or did not end.
    Caught,
    /// Each test that reaches it passed.
    Survived,
    /// No test runs its code.
    Unreached,
    /// The time for it was over before a test failed.
    Open,
    /// It does not compile.
    Unbuildable,
}

const WORDS: [(Verdict, &str); 5] = [
    (Verdict::Caught, "caught"),
    (Verdict::Survived, "survived"),
    (Verdict::Unreached, "unreached"),
    (Verdict::Open, "open"),
    (Verdict::Unbuildable, "unbuildable"),
];

impl Verdict {
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(verdict, _)| *verdict == self).map_or("", |(_, word)| word)
    }

    pub fn named(word: &str) -> Option<Verdict> {
        WORDS.iter().find(|(_, name)| *name == word).map(|(verdict, _)| *verdict)
    }
}

pub struct Record {
    path: PathBuf,
    pub verdicts: BTreeMap<String, Verdict>,
}

impl Record {
    /// The record in that file; an empty one if there is none.
    pub fn read(path: &Path) -> Record {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let verdicts =
            lines.filter_map(|(identity, word)| Some((identity.to_string(), Verdict::named(word)?)));
        Record { path: path.to_path_buf(), verdicts: verdicts.collect() }
    }

    pub fn write(&self) -> Result<(), String> {
        let text: String = self
            .verdicts
            .iter()
            .map(|(identity, verdict)| format!("{identity} {}\n", verdict.word()))
            .collect();
        let new = self.path.with_extension("new");
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.path));
        written.map_err(|e| format!("{}: {e}", self.path.display()))
    }
}

/// The mutants of `equivalent.txt`, whose lines are an identity, ` | ` and the reason why no test can notice it.
pub fn equivalents(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(" | "));
    lines.map(|(identity, reason)| (identity.to_string(), reason.to_string())).collect()
}
