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
fn a_row_has_the_devices_of_both_lists_by_index() {
    let s = sample();
    let lists = |location: &str| {
        let row = s.row(location);
        (s.preferred(row).to_vec(), s.available(row).to_vec())
    };
    assert_eq!(lists("cpu:0"), (vec![3, 2], vec![1]));
    assert_eq!(lists("cpu:1"), (vec![], vec![1, 0]));
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
        assert_eq!((s.preferred(row), s.available(row)), (&[][..], &[][..]), "{matrix}");
    }
}

#[test]
fn a_foreign_row_is_empty() {
    let foreign = sample().row("cuda:0");
    let s = selector("null", &["a"]);
    assert_eq!((s.preferred(foreign), s.available(foreign)), (&[][..], &[][..]));
    assert_eq!((s.named(foreign, "a"), s.near_gpu(foreign, &names(&["a"]))), (None, vec![]));
    let none = Selector::default();
    assert_eq!(none.preferred(none.row("cpu:0")), [0; 0]);
}

#[test]
fn a_nic_that_is_listed_twice_counts_twice() {
    let s = selector(r#"{"cpu:0":[["a"],["a","b"]]}"#, &["a", "b", "a"]);
    let row = s.row("cpu:0");
    assert_eq!((s.preferred(row), s.available(row)), (&[0][..], &[0, 1][..]));
}

#[test]
fn a_named_device_is_found_in_either_list_of_its_row_only() {
    let s = sample();
    let row = s.row("cpu:0");
    let found = ["a", "c", "d", "x"].map(|name| s.named(row, name));
    assert_eq!(found, [Some(3), Some(1), None, None]);
}

#[test]
fn only_the_row_of_a_gpu_has_near_devices_and_only_those_it_prefers() {
    let s = sample();
    let listed = names(&["d", "c", "x", "a"]);
    // d is only available, x is unknown: c and a are left, in the order of the list.
    assert_eq!(s.near_gpu(s.row("cuda:0"), &listed), [1, 3]);
    for location in ["cpu:0", "cpu:1", "*"] {
        assert_eq!(s.near_gpu(s.row(location), &listed), [0; 0], "{location}");
    }
    assert_eq!(s.near_gpu(s.row("cuda:0"), &names(&["d"])), [0; 0]);
    for prefix in GPU_PREFIXES {
        let other = selector(&format!(r#"{{"{prefix}3":[["a"],[]]}}"#), &["a"]);
        assert_eq!(other.near_gpu(other.row(&format!("{prefix}3")), &listed), [0], "{prefix}");
    }
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
