use hyper::body::Bytes;

use super::*;

const LIMITS: Limits = Limits { max_value: 100, connections: 7, is_open: true };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn seen(key: &str, value: &'static str, life: Option<u64>, last: Option<u64>) -> Seen {
    let facts = Some(Arc::new(Facts::of(key, value.as_bytes())));
    let last = last.map(secs);
    Seen { key: key.into(), value: Bytes::from(value), life: life.map(secs), last, first: last, facts }
}

fn told(seen: Vec<Seen>, gone: Vec<Gone>) -> Status {
    of(&Snapshot { seen, gone, used: (10, 100) }, Instant::now(), secs(5), &LIMITS)
}

const DESCRIPTOR: &str = r#"{"name":"n","protocol":"tcp","buffers":[{"length":2048}]}"#;
const ADDRESS: &str = r#"{"ip_or_host_name":"10.0.0.1","rpc_port":9}"#;

#[test]
fn a_server_without_segments_says_how_they_come() {
    let status = told(vec![], vec![]);
    assert_eq!((status.level, status.problems.len()), (Level::Plain, 0));
    assert!(status.summary.contains("created with http://"), "{}", status.summary);
}

#[test]
fn the_state_is_what_the_keys_tell_and_no_more() {
    for (life, last, word, summary) in [
        (Some(30), Some(10), "alive", "The only segment was seen in the last minute."),
        (Some(30), Some(16), "late", "The only segment was seen in the last minute; 1 is late."),
        (Some(300), Some(100), "alive", "0 of 1 segments were seen in the last minute."),
        (None, Some(1), "not known", "The only segment was seen in the last minute; 1 has no lease, so whether the engine lives is not known here."),
        (None, None, "not known", "0 of 1 segments were seen in the last minute; 1 has no lease, so whether the engine lives is not known here."),
    ] {
        let status = told(vec![seen("mooncake/ram/n", DESCRIPTOR, life, last)], vec![]);
        assert_eq!(status.tables[0].rows[0][1].text, word);
        assert_eq!(status.summary, summary);
        assert_eq!(status.problems.len(), usize::from(word == "late"));
    }
}

#[test]
fn what_is_gone_comes_first_and_is_a_problem_with_advice() {
    let now = Instant::now();
    let gone = |key: &str, value: &str| {
        let facts = Some(Arc::new(Facts::of(key, value.as_bytes())));
        Gone { key: key.into(), life: secs(30), at: now, facts }
    };
    let [gone, address] = [gone("mooncake/ram/z", DESCRIPTOR), gone("mooncake/rpc_meta/n", ADDRESS)];
    let live = ["a", "b"].map(|name| seen(&format!("mooncake/ram/{name}"), DESCRIPTOR, Some(30), Some(1)));
    let snapshot = Snapshot { seen: live.into(), gone: vec![gone, address], used: (90, 100) };
    let status = of(&snapshot, now + secs(12), secs(5), &LIMITS);
    assert_eq!(status.summary, "2 of 3 segments were seen in the last minute; 1 is gone.");
    assert_eq!(status.level, Level::Bad);
    let names: Vec<_> = status.tables[0].rows.iter().map(|row| row[0].text.as_str()).collect();
    assert_eq!(names, ["z", "a", "b"]);
    assert!(status.problems[0].what.starts_with("90 B of 100 B"), "{:?}", status.problems);
    assert_eq!(
        status.problems[1].what,
        "z at 10.0.0.1:9 is gone: last seen 42 s ago, and its lease of 30 s is over."
    );
    assert!(status.problems[1].advice.contains("mte doctor"));
}

#[test]
fn a_tool_that_was_killed_is_nobodys_trouble() {
    let late = seen("mooncake/ram/mte-ping-0a1b", DESCRIPTOR, Some(30), Some(16));
    let status = told(vec![late], vec![]);
    assert_eq!(status.problems.len(), 0);
    assert_eq!(status.tables[0].rows[0][1].text, "late", "it is shown all the same");
}

#[test]
fn a_segment_has_its_owner_address_and_what_it_offers() {
    let keys = vec![
        seen("mooncake/c/ram/n", DESCRIPTOR, Some(30), Some(1)),
        seen("mooncake/c/rpc_meta/n", ADDRESS, Some(30), Some(1)),
        // Of another cluster, and without a descriptor.
        seen("mooncake/rpc_meta/n", ADDRESS, Some(30), Some(1)),
        seen("other", "x", None, Some(1)),
    ];
    let status = told(keys, vec![]);
    let texts =
        |row: usize| status.tables[0].rows[row].iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>();
    let expected = ["c/n", "alive", "1 s ago", "1 s", "n", "10.0.0.1:9", "tcp", "–", "1", "2.0 KiB", "30 s"];
    assert_eq!(texts(1), expected);
    assert_eq!(texts(0)[..6], ["n", "alive", "1 s ago", "1 s", "–", "10.0.0.1:9"]);
    assert_eq!(status.tables[1].rows[2][1].text, "1");
}

#[test]
fn names_of_strangers_are_no_commands_and_many_do_not_flood_the_page() {
    let hostile = seen("mooncake/ram/$(reboot)\n", DESCRIPTOR, Some(30), Some(20));
    let status = told(vec![hostile], vec![]);
    assert!(status.problems[0].advice.contains("`mte ping NAME "), "{:?}", status.problems);
    assert!(status.problems[0].what.starts_with("$(reboot)\\u{a} is late"), "{:?}", status.problems);
    let many = (0..1000).map(|n| seen(&format!("mooncake/ram/{n}"), "no JSON", Some(30), Some(1)));
    let status = told(many.collect(), vec![]);
    assert_eq!(
        (status.problems.len(), status.tables[0].rows.len(), status.tables[0].left_out),
        (21, 500, 500)
    );
    assert_eq!(status.problems[20].what, "980 more.");
    assert!(status.problems[0].what.ends_with("has a value that no engine can read: not JSON."));
}
