//! Keys and values in memory, and on request a file that keeps them.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;

use super::budget::{Budget, Share};
use super::journal::Journal;

/// What a key costs beside its text and its value. Chosen: more than the entry, its part of the hash table and the
/// allocations take.
const ENTRY_BYTES: usize = 256;

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
    budget: Arc<Budget>,
    journal: Option<Journal>,
}

impl Table {
    /// What `path` keeps, or nothing; `max_total` bytes of memory at most.
    pub(super) fn open(path: Option<PathBuf>, max_total: usize) -> Result<Self> {
        let mut table = Table { entries: HashMap::new(), budget: Budget::new(max_total), journal: None };
        let Some(path) = path else { return Ok(table) };
        let mut is_full = false;
        Journal::read(&path, |(key, value)| {
            // The value before gives its share back first.
            table.entries.remove(&key);
            let Some(value) = value else { return };
            match table.budget.take(ENTRY_BYTES + key.len() + value.len()) {
                Some(share) => {
                    let value = share.hold(value.into_bytes());
                    table.entries.insert(key, Entry { value, until: None });
                }
                None => is_full = true,
            }
        })?;
        if is_full {
            let text = format!("{} holds more than --max-total allows", path.display());
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        table.journal = Some(Journal::rewrite(&path, kept(&table.entries))?);
        Ok(table)
    }

    /// Memory for a new value of `key`, yet without the value's bytes.
    pub(super) fn share(&mut self, key: &str) -> Option<Share> {
        let bytes = ENTRY_BYTES + key.len();
        let share = self.budget.take(bytes);
        share.or_else(|| {
            self.sweep();
            self.budget.take(bytes)
        })
    }

    /// Adds memory for more bytes to a share.
    pub(super) fn grow(&mut self, share: &mut Share, more: usize) -> bool {
        share.grow(more) || {
            self.sweep();
            share.grow(more)
        }
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &str) -> Option<Bytes> {
        self.expire(key);
        self.entries.get(key).map(|entry| entry.value.clone())
    }

    /// Writes a key that lives for `life`, or for ever. As upstream's servers, a key with `rpc_meta` in its name is
    /// not replaced by another value. An error changes nothing.
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
            self.note(key, keep.then_some(&*value))?;
        }
        let until = life.and_then(|life| Instant::now().checked_add(life));
        self.entries.insert(key.to_string(), Entry { value, until });
        self.shrink();
        Ok(Wrote::Done)
    }

    /// Removes a key; `false` if there is none. An error changes nothing.
    pub(super) fn remove(&mut self, key: &str) -> Result<bool> {
        self.expire(key);
        if !self.entries.contains_key(key) {
            return Ok(false);
        }
        self.note(key, None)?;
        self.entries.remove(key);
        self.shrink();
        Ok(true)
    }

    fn expire(&mut self, key: &str) {
        if self.entries.get(key).is_some_and(Entry::is_over) {
            // All that is over goes, so that keys nobody asks for do not stay.
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.entries.retain(|_, entry| !entry.is_over());
    }

    fn note(&mut self, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.note(key, value))
    }

    fn shrink(&mut self) {
        if let Some(journal) = self.journal.as_mut().filter(|journal| journal.has_grown()) {
            journal.shrink(kept(&self.entries));
        }
    }
}

impl Entry {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// What the file is to hold.
fn kept(entries: &HashMap<String, Entry>) -> impl Iterator<Item = (&str, &[u8])> {
    let lasting = entries.iter().filter(|(_, entry)| entry.until.is_none());
    lasting.map(|(key, entry)| (key.as_str(), &*entry.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn get(table: &mut Table, key: &str) -> Option<String> {
        table.get(key).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn addresses_are_not_replaced_and_keys_expire() {
        let mut table = Table::open(None, ROOM).unwrap();
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
            let mut table = Table::open(Some(path.clone()), ROOM).unwrap();
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

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("mte-table-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_stays_as_it_is() {
        let folder = folder("foreign");
        let path = folder.join("file");
        let ours = "[\"a\",\"1\"]\n";
        for (text, broken) in [
            ("hello", "one line"),
            ("hello\nworld\n", "line 1"),
            ("{\"a\": 1}\n", "line 1"),
            ("[\"a\",\"1\"", "one line"),
            ("[1,2]\n", "line 1"),
            ("[\"a\"]\n", "line 1"),
            ("[\"a\",\"1\",\"2\"]\n", "line 1"),
            (&format!("{ours}# a comment\n{ours}"), "line 2"),
            (&format!("{ours}{ours}rest"), "one line"),
            ("\n", "line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Table::open(Some(path.clone()), ROOM).err().expect(text);
            assert!(error.to_string().contains(broken), "{text:?}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Table::open(Some(folder.clone()), ROOM).is_err());
        assert!(Table::open(Some("/dev/null".into()), ROOM).is_err());
        // Nor is a file beside it overwritten.
        std::fs::write(&path, ours).unwrap();
        let beside = folder.join("file.new");
        std::fs::write(&beside, "hello\n").unwrap();
        assert!(Table::open(Some(path.clone()), ROOM).is_err());
        assert_eq!(std::fs::read_to_string(&beside).unwrap(), "hello\n");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_torn_last_line_is_forgiven() {
        let folder = folder("torn");
        let path = folder.join("file");
        let open = || Table::open(Some(path.clone()), ROOM).unwrap();
        assert_eq!(open().entries.len(), 0);
        open().put("a", Bytes::from("\u{e9}"), None).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = get(&mut open(), "a");
            assert_eq!(kept.is_some(), cut == whole.len(), "{cut}");
            // It is gone: what is written next is read again.
            open().put("b", Bytes::from("2"), None).unwrap();
            assert_eq!(get(&mut open(), "b").as_deref(), Some("2"));
        }
        // As earlier versions wrote it, and empty.
        std::fs::write(&path, "[\"a\",\"1\"]\n[\"a\",null]\n[\"b\",\"2\"]\n[\"c").unwrap();
        let mut table = open();
        assert_eq!((get(&mut table, "a"), get(&mut table, "b").as_deref()), (None, Some("2")));
        std::fs::write(&path, "").unwrap();
        assert_eq!(open().entries.len(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn files_whose_names_differ_in_the_ending_do_not_meet() {
        let folder = folder("endings");
        let [one, two] = ["a.1", "a.2"].map(|name| folder.join(name));
        std::fs::create_dir(folder.join("a.new")).unwrap();
        let mut tables = [&one, &two].map(|path| Table::open(Some(path.clone()), ROOM).unwrap());
        tables[0].put("k", Bytes::from("1"), None).unwrap();
        tables[1].put("k", Bytes::from("2"), None).unwrap();
        let kept = [&one, &two].map(|path| get(&mut Table::open(Some(path.clone()), ROOM).unwrap(), "k"));
        assert_eq!(kept, [Some("1".into()), Some("2".into())]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_over_makes_room() {
        let mut table = Table::open(None, 2 * ENTRY_BYTES).unwrap();
        let mut put = |key: &str, life| {
            let mut share = table.share(key)?;
            let fits = table.grow(&mut share, 10);
            fits.then(|| table.put(key, share.hold(vec![b'x'; 10]), life).unwrap())
        };
        assert!(put("a", Some(Duration::ZERO)).is_some());
        assert!(put("b", None).is_some());
        assert!(put("c", None).is_none());
    }
}
