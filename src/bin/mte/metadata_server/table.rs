//! Keys and values in memory, and on request a file: a line of JSON per change, rewritten without what is gone when the
//! server starts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Result, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde_json::{json, Value};

/// What became of a write.
pub(super) enum Wrote {
    /// It is there.
    Done,
    /// Another value is, and keys of this kind are not replaced.
    Exists,
}

struct Entry {
    value: Bytes,
    /// When it is gone unless it is written again.
    until: Option<Instant>,
}

/// All keys.
pub(super) struct Table {
    entries: HashMap<String, Entry>,
    file: Option<File>,
}

impl Table {
    /// What `path` keeps, or nothing.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self> {
        let mut table = Table { entries: HashMap::new(), file: None };
        if let Some(path) = path {
            table.load(&path)?;
            table.file = Some(table.compact(&path)?);
        }
        Ok(table)
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &str) -> Option<Bytes> {
        self.expire(key);
        self.entries.get(key).map(|entry| entry.value.clone())
    }

    /// Writes a key that lives for `life`, or for ever. As upstream's servers, a key with `rpc_meta` in its name is
    /// not replaced by another value.
    pub(super) fn put(&mut self, key: &str, value: Bytes, life: Option<Duration>) -> Result<Wrote> {
        self.expire(key);
        let before = self.entries.get(key);
        let same = before.is_some_and(|before| before.value == value);
        if key.contains("rpc_meta") && before.is_some() && !same {
            return Ok(Wrote::Exists);
        }
        // An expiring key is not worth keeping: its owner writes it again.
        let keep = life.is_none();
        if !same || before.is_some_and(|before| before.until.is_none() != keep) {
            let kept = keep.then(|| String::from_utf8_lossy(&value));
            self.note(key, kept.as_deref())?;
        }
        let until = life.and_then(|life| Instant::now().checked_add(life));
        self.entries.insert(key.to_string(), Entry { value, until });
        Ok(Wrote::Done)
    }

    /// Removes a key; `false` if there is none.
    pub(super) fn remove(&mut self, key: &str) -> Result<bool> {
        self.expire(key);
        if self.entries.remove(key).is_none() {
            return Ok(false);
        }
        self.note(key, None).map(|()| true)
    }

    fn expire(&mut self, key: &str) {
        let over = |entry: &Entry| entry.until.is_some_and(|until| until <= Instant::now());
        if self.entries.get(key).is_some_and(over) {
            // All that is over goes, so that keys nobody asks for do not stay.
            self.entries.retain(|_, entry| !over(entry));
        }
    }

    fn note(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        match &mut self.file {
            Some(file) => writeln!(file, "{}", json!([key, value])),
            None => Ok(()),
        }
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines() {
            // The last line may have been cut off by a crash.
            let Ok(Value::Array(pair)) = serde_json::from_str(&line?) else { continue };
            match (pair.first(), pair.get(1)) {
                (Some(Value::String(key)), Some(Value::String(value))) => {
                    let entry = Entry { value: Bytes::copy_from_slice(value.as_bytes()), until: None };
                    self.entries.insert(key.clone(), entry);
                }
                (Some(Value::String(key)), _) => drop(self.entries.remove(key)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what is there to a new file in place of the old one.
    fn compact(&self, path: &Path) -> Result<File> {
        let beside = path.with_extension("new");
        let mut out = BufWriter::new(File::create(&beside)?);
        for (key, entry) in &self.entries {
            writeln!(out, "{}", json!([key, String::from_utf8_lossy(&entry.value)]))?;
        }
        let file = out.into_inner()?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(table: &mut Table, key: &str) -> Option<String> {
        table.get(key).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn addresses_are_not_replaced_and_keys_expire() {
        let mut table = Table::open(None).unwrap();
        let mut put = |key: &str, value: &'static str, life| {
            matches!(table.put(key, Bytes::from(value), life).unwrap(), Wrote::Done)
        };
        assert!(put("ram/a", "1", None) && put("ram/a", "2", None));
        assert!(
            put("rpc_meta/a", "1", None) && put("rpc_meta/a", "1", None) && !put("rpc_meta/a", "2", None)
        );
        assert!(put("rpc_meta/b", "1", Some(Duration::ZERO)) && put("rpc_meta/b", "2", Some(Duration::ZERO)));
        assert_eq!(get(&mut table, "rpc_meta/b"), None);
        assert_eq!(get(&mut table, "ram/a").as_deref(), Some("2"));
        assert!(table.remove("ram/a").unwrap() && !table.remove("ram/a").unwrap());
    }

    #[test]
    fn the_file_keeps_what_does_not_expire() {
        let path = std::env::temp_dir().join(format!("mte-table-{}", std::process::id()));
        for round in 0..2 {
            let mut table = Table::open(Some(path.clone())).unwrap();
            if round == 0 {
                table.put("a", Bytes::from("\"1\n"), None).unwrap();
                table.put("b", Bytes::from("2"), None).unwrap();
                table.put("c", Bytes::from("3"), Some(Duration::from_secs(60))).unwrap();
                table.put("d", Bytes::from("4"), Some(Duration::from_secs(60))).unwrap();
                table.put("d", Bytes::from("4"), None).unwrap();
                table.remove("b").unwrap();
            } else {
                assert_eq!(get(&mut table, "a").as_deref(), Some("\"1\n"));
                assert_eq!((get(&mut table, "b"), get(&mut table, "c")), (None, None));
                assert_eq!(get(&mut table, "d").as_deref(), Some("4"));
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
