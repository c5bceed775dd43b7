//! Tests of the selection rules.

use super::*;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

fn selector(matrix: &str, devices: &[&str]) -> Selector {
    Selector::new(&Matrix::parse(matrix).unwrap(), &names(devices))
}

const TEXT: &str = r#"{
    "cpu:0": [["a", "b"], ["c"]],
    "cpu:1": [[], ["c", "d"]],
    "cpu:2": [[], []],
    "cpu:3": [["unknown"], []],
    "cuda:0": [["a", "b", "c"], ["d"]]
}"#;

fn sample() -> Selector {
    selector(TEXT, &["d", "c", "b", "a"])
}

#[test]
fn the_first_attempt_is_random_among_the_preferred_or_else_the_available() {
    let s = sample();
    let row = s.row("cpu:0");
    assert_eq!((s.preferred(row), s.available(row)), (&[3, 2][..], &[1][..]));
    let chosen: Vec<_> = [0, 1, 2, u64::MAX].map(|random| s.choose(row, 0, random).unwrap()).into();
    assert_eq!(chosen, [3, 2, 3, 2]);
    let row = s.row("cpu:1");
    assert_eq!([0, 1].map(|random| s.choose(row, 0, random)), [Some(1), Some(0)]);
}

#[test]
fn later_attempts_go_through_preferred_then_available_whatever_the_random_number() {
    let s = sample();
    for (location, turns) in [("cpu:0", [3, 2, 1, 3, 2, 1]), ("cpu:1", [1, 0, 1, 0, 1, 0])] {
        let row = s.row(location);
        for (index, expected) in turns.into_iter().enumerate() {
            for random in [0, 7, u64::MAX] {
                assert_eq!(s.choose(row, index + 1, random), Some(expected), "{location} {index}");
            }
        }
    }
    assert!(s.choose(s.row("cpu:0"), usize::MAX, 0).is_some());
}

#[test]
fn missing_and_empty_rows_are_the_row_of_all() {
    let s = sample();
    let all = s.row("*");
    for location in ["", "cpu:2", "cpu:3", "cpu:9", "cuda:1", "no such place"] {
        assert_eq!(s.row(location), all, "{location}");
    }
    assert_ne!(s.row("cpu:0"), all);
    let mut devices = s.preferred(all).to_vec();
    assert!(s.available(all).is_empty());
    devices.sort();
    assert_eq!(devices, [0, 1, 2, 3]);
}

#[test]
fn the_row_of_all_has_the_nics_in_upstreams_order() {
    let s = selector(r#"{"cpu:0":[["a"],["b"]],"cpu:1":[["b"],["a"]]}"#, &["a", "b"]);
    assert_eq!(s.preferred(s.row("*")), [1, 0]);
}

#[test]
fn a_row_of_the_matrix_called_star_does_not_replace_the_row_of_all() {
    let s = selector(r#"{"*":[["b"],[]],"cpu:0":[["a"],[]]}"#, &["a", "b", "c"]);
    let mut all = s.preferred(s.row("*")).to_vec();
    all.sort();
    assert_eq!(all, [0, 1]);
    assert_eq!(s.preferred(s.row("cpu:0")), [0]);
}

#[test]
fn no_rows_mean_every_device_and_empty_rows_mean_none() {
    let s = selector("null", &["a", "b"]);
    assert_eq!(s.preferred(s.row("cpu:0")), [0, 1]);
    for (matrix, devices) in
        [(r#"{"cpu:0":[[],[]]}"#, &["a"][..]), (r#"{"cpu:0":[["x"],[]]}"#, &["a"]), ("{}", &[])]
    {
        let s = selector(matrix, devices);
        let row = s.row("cpu:0");
        assert_eq!([0, 1, 5].map(|retry| s.choose(row, retry, 3)), [None; 3], "{matrix}");
        assert_eq!(s.choose_among(row, &[0], 0, 3), None);
    }
}

#[test]
fn a_foreign_row_is_empty() {
    let foreign = sample().row("cuda:0");
    let s = selector("null", &["a"]);
    assert_eq!((s.preferred(foreign), s.choose(foreign, 0, 0), s.named(foreign, "a")), (&[][..], None, None));
    let none = Selector::default();
    assert_eq!(none.choose(none.row("cpu:0"), 0, 0), None);
}

#[test]
fn a_nic_that_is_listed_twice_counts_twice() {
    let s = selector(r#"{"cpu:0":[["a"],["a","b"]]}"#, &["a", "b", "a"]);
    let row = s.row("cpu:0");
    assert_eq!([1, 2, 3, 4].map(|retry| s.choose(row, retry, 0).unwrap()), [0, 0, 1, 0]);
}

#[test]
fn a_named_device_is_found_in_either_list_of_its_row_only() {
    let s = sample();
    let row = s.row("cpu:0");
    let found = ["a", "c", "d", "x"].map(|name| s.named(row, name));
    assert_eq!(found, [Some(3), Some(1), None, None]);
}

#[test]
fn listed_peers_win_in_gpu_rows_if_the_row_prefers_them() {
    let s = sample();
    let peers = s.indexes(&names(&["d", "c", "x", "a"]));
    assert_eq!(peers, [0, 1, 3]);
    let row = s.row("cuda:0");
    // d is only available, so c and a are left.
    assert_eq!([0, 1, 2].map(|random| s.choose_among(row, &peers, 0, random).unwrap()), [1, 3, 1]);
    assert_eq!([1, 2, 3].map(|retry| s.choose_among(row, &peers, retry, 9).unwrap()), [1, 3, 1]);
    let plain = |row, retry, random| {
        assert_eq!(s.choose_among(row, &peers, retry, random), s.choose(row, retry, random))
    };
    (0..4).for_each(|n| plain(s.row("cpu:0"), n, n as u64));
    (0..4).for_each(|n| plain(s.row("*"), n, n as u64));
    let none = s.indexes(&names(&["d"]));
    assert_eq!(s.choose_among(row, &none, 2, 0), s.choose(row, 2, 0));
}

#[test]
fn each_part_of_a_region_has_its_row() {
    let s = sample();
    let placement = s.place(&Location::parse("segments:4096:1,0,9"));
    let rows = [0, 4, 8, 9].map(|offset| placement.at(offset, 10));
    assert_eq!(rows, [s.row("cpu:1"), s.row("cpu:0"), s.row("*"), s.row("*")]);
    assert_eq!(rows[0], placement.at(2, 10));
    let whole = s.place(&Location::parse("cuda:0"));
    assert_eq!([0, u64::MAX].map(|offset| whole.at(offset, 10)), [s.row("cuda:0"); 2]);
    let empty = s.place(&Location::Segments { page: 1, nodes: Vec::new() });
    assert_eq!(empty.at(0, 1), s.row("*"));
}

#[test]
fn peer_affinity_rules_are_read_and_bad_ones_are_named() {
    let (rules, warnings) = parse_peer_affinity(" a = x , y ; ;b=z,,; ");
    assert_eq!(rules, [("a".into(), names(&["x", "y"])), ("b".into(), names(&["z"]))].into());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(parse_peer_affinity(""), Default::default());
    for bad in ["a", "a=", "=x", "=", "a=,", "a=b=c", " = x"] {
        let (rules, warnings) = parse_peer_affinity(&format!("ok=1;{bad};also=2"));
        assert_eq!(rules.into_keys().collect::<Vec<_>>(), ["also", "ok"], "{bad}");
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains(bad.trim()), "{warnings:?}");
    }
    let (rules, warnings) = parse_peer_affinity("a=x;a=y");
    assert_eq!(rules["a"], ["y"]);
    assert_eq!(warnings.len(), 1);
}
