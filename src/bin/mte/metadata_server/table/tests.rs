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
    assert!(put("rpc_meta/a", "1", None) && put("rpc_meta/a", "1", None) && !put("rpc_meta/a", "2", None));
    assert!(put("rpc_meta/b", "1", Some(Duration::ZERO)) && put("rpc_meta/b", "2", Some(Duration::ZERO)));
    assert_eq!(get(&mut table, "rpc_meta/b"), None);
    assert_eq!(get(&mut table, "ram/a").as_deref(), Some("2"));
    assert!(table.remove("ram/a").unwrap() && !table.remove("ram/a").unwrap());
}

#[test]
fn what_expired_is_remembered_until_it_is_written_again() {
    let mut table = Table::open(None, ROOM).unwrap();
    let mut put = |key: &str, life| {
        table.put(key, Bytes::from("1"), life).unwrap();
    };
    put("a", Some(Duration::ZERO));
    put("b", Some(Duration::from_secs(60)));
    put("c", None);
    let gone = |table: &mut Table| table.snapshot().gone.into_iter().map(|gone| gone.key).collect::<Vec<_>>();
    assert_eq!(gone(&mut table), ["a"]);
    // What is removed was meant to go.
    assert!(table.remove("b").unwrap());
    assert_eq!(gone(&mut table), ["a"]);
    table.put("a", Bytes::from("2"), None).unwrap();
    assert_eq!(gone(&mut table), [""; 0]);
    for n in 0..2 * MOST_GONE {
        table.put(&n.to_string(), Bytes::new(), Some(Duration::ZERO)).unwrap();
    }
    table.put(&"x".repeat(LONGEST_GONE + 1), Bytes::new(), Some(Duration::ZERO)).unwrap();
    assert_eq!(gone(&mut table).len(), MOST_GONE);
    // Nor is one missed that its owner removes late.
    assert!(!table.remove(&(2 * MOST_GONE - 1).to_string()).unwrap());
    assert_eq!(gone(&mut table).len(), MOST_GONE - 1);
}

#[test]
fn a_key_is_as_old_as_its_first_writing_and_seen_at_its_last() {
    let mut table = Table::open(None, ROOM).unwrap();
    let minute = Some(Duration::from_secs(60));
    table.put("a", Bytes::from("1"), minute).unwrap();
    let seen = |table: &mut Table| table.snapshot().seen.pop().unwrap();
    let first = seen(&mut table);
    table.learn("a", &first.value, &Arc::new(Facts::Unread("x")));
    table.put("a", Bytes::from("1"), minute).unwrap();
    let second = seen(&mut table);
    assert!(second.last.unwrap() <= second.first.unwrap());
    assert!(second.life == minute && second.facts.is_some());
    // Facts are of a value.
    table.put("a", Bytes::from("2"), None).unwrap();
    let third = seen(&mut table);
    assert!(third.facts.is_none() && third.life.is_none() && third.first.is_some());
    table.learn("a", &first.value, &Arc::new(Facts::Unread("x")));
    assert!(seen(&mut table).facts.is_none());
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
            // Since when is not known, but from the next writing on it is when it was seen.
            let seen =
                |table: &mut Table| table.snapshot().seen.into_iter().find(|seen| seen.key == "a").unwrap();
            assert!(seen(&mut table).last.is_none());
            table.put("a", Bytes::from("5"), None).unwrap();
            assert!(seen(&mut table).last.is_some() && seen(&mut table).first.is_none());
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
