//! The file that keeps keys over a restart: a line that says what the file is, then a line of JSON per change, `[key,
//! value]` or `[key, null]`. It is rewritten without what is gone when the server starts and when it has grown.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Error, ErrorKind, Result, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{json, Value};

/// The first line. Files of earlier versions have none.
const HEADER: &str = "[\"mte metadata-server\",1,\"a key, its value\"]";
/// The file is rewritten when it is twice as long as after the last time, and by this much, bytes. Chosen: keys that
/// come and go cost little disk, and a server with few keys hardly ever rewrites.
const SLACK: u64 = 64 << 20;

/// A change that a file holds: a key with its value, or without if it was removed.
pub(super) type Change = (String, Option<String>);

/// The open file.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines. What lies behind them is left of a write that failed.
    len: u64,
    is_torn: bool,
    /// Length after the last rewriting.
    compact_len: u64,
}

impl Journal {
    /// Reads what `path` keeps, each change in turn, and nothing if there is no such file. `InvalidData` if it is
    /// somebody else's: every line must be one of ours, but the last one may have been cut off by a crash.
    pub(super) fn read(path: &Path, mut change: impl FnMut(Change)) -> Result<()> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(foreign(path, "it is not a regular file"));
        }
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some(whole) = line.strip_suffix(b"\n") else {
                // Behind a line of ours, or the beginning of the first one.
                if number > 1 && line.starts_with(b"[") || HEADER.as_bytes().starts_with(&line) {
                    break;
                }
                return Err(foreign(path, "it has one line, which is not complete"));
            };
            if number == 1 && whole == HEADER.as_bytes() {
                continue;
            }
            let parsed = parse(whole);
            change(
                parsed.ok_or_else(|| foreign(path, &format!("line {number} is not a key and its value")))?,
            );
        }
        Ok(())
    }

    /// Writes `entries` to a new file in place of the old one.
    pub(super) fn rewrite<'a>(
        path: &Path,
        entries: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self> {
        let beside = beside(path);
        // What a crash left of an earlier rewriting is ours; anything else stays as it is.
        Journal::read(&beside, drop)?;
        let mut out = BufWriter::new(File::create(&beside)?);
        writeln!(out, "{HEADER}")?;
        for (key, value) in entries {
            writeln!(out, "{}", json!([key, text(value)?]))?;
        }
        let file = out.into_inner()?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        let len = file.metadata()?.len();
        Ok(Journal { path: path.into(), file, len, is_torn: false, compact_len: len })
    }

    /// Adds a change. After an error the file is as before.
    pub(super) fn note(&mut self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let line = format!("{}\n", json!([key, value.map(text).transpose()?]));
        if self.is_torn {
            self.file.set_len(self.len)?;
            self.is_torn = false;
        }
        if let Err(error) = self.file.write_all_at(line.as_bytes(), self.len) {
            // A part of a line with whole lines behind it would look like somebody else's file.
            self.is_torn = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Whether it is time to rewrite the file.
    pub(super) fn has_grown(&self) -> bool {
        self.len > 2 * self.compact_len + SLACK
    }

    /// Rewrites it with `entries`; if that fails, goes on with the file as it is for as long again.
    pub(super) fn shrink<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a [u8])>) {
        match Journal::rewrite(&self.path, entries) {
            Ok(made) => *self = made,
            Err(error) => {
                eprintln!("mte: cannot rewrite {}: {error}", self.path.display());
                self.compact_len = self.len;
            }
        }
    }
}

/// The new file before it takes the place of the old one: the whole name and one more ending, so that no two files share
/// one.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

fn parse(line: &[u8]) -> Option<Change> {
    let Ok(Value::Array(pair)) = serde_json::from_slice(line) else { return None };
    match <[Value; 2]>::try_from(pair).ok()? {
        [Value::String(key), Value::String(value)] => Some((key, Some(value))),
        [Value::String(key), Value::Null] => Some((key, None)),
        _ => None,
    }
}

fn text(value: &[u8]) -> Result<&str> {
    let no_text = |_| Error::new(ErrorKind::InvalidInput, "a file keeps values that are UTF-8 only");
    std::str::from_utf8(value).map_err(no_text)
}

fn foreign(path: &Path, why: &str) -> Error {
    let text = format!("{} is no file of this server, and is left as it is: {why}", path.display());
    Error::new(ErrorKind::InvalidData, text)
}
