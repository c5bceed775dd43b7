//! Figures of pages that are made up.

use serde_json::json;

use super::*;

/// A page with these members beside those that every engine tells.
fn metrics(more: Value) -> Metrics {
    let mut page = json!({"mooncake_te_read_bytes_total": 0, "mte_engine_up{engine=\"a\"}": 1});
    page.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Metrics::of(&page).unwrap()
}

fn between(before: Value, after: Value) -> Figures {
    figures(&metrics(before), &metrics(after), Duration::from_secs(2))
}

#[test]
fn rates_are_rises_per_second() {
    let page = |bytes: u64, requests: u64, failed: u64, late: u64| {
        json!({
            "mooncake_te_write_bytes_total": bytes,
            "mooncake_te_write_requests_total": requests,
            "mooncake_te_write_failures_total": failed,
            "mooncake_te_write_timeouts_total": late,
            "mte_task_failures_total{op=\"write\",class=\"network\"}": failed,
            "mte_task_failures_total{op=\"write\",class=\"timeout\"}": late,
            "mte_task_failures_total{op=\"write\",class=\"device\"}": 9,
            "mte_tasks_waiting{engine=\"a\"}": 4,
        })
    };
    let found = between(page(1000, 10, 1, 0), page(5000, 30, 2, 3));
    let write = &found.write;
    assert_eq!((write.bytes, write.requests, write.failures, write.timeouts), (2000.0, 10.0, 0.5, 1.5));
    assert_eq!(write.classes, [("network".into(), 0.5), ("timeout".into(), 1.5)]);
    assert_eq!((found.read.requests, found.read.p50, found.under_way), (0.0, None, 4));
    assert!(!found.restarted && found.events.is_empty() && found.down.is_empty());
}

#[test]
fn a_process_that_was_started_anew_counts_from_zero() {
    let page = |bytes: u64, requests: u64, lost: u64| {
        json!({
            "mooncake_te_read_bytes_total": bytes,
            "mooncake_te_read_requests_total": requests,
            "mte_transport_events_total{engine=\"a\",transport=\"tcp\",event=\"lanes_lost\"}": lost,
        })
    };
    // Its bytes and losses are more than those before already; its requests tell that it is another process.
    let found = between(page(1000, 100, 2), page(3000, 50, 3));
    assert!(found.restarted);
    assert_eq!((found.read.bytes, found.read.requests, found.events[0].count), (1500.0, 25.0, 3));
    // An engine that was made anew in a process that lives.
    let found = between(page(1000, 100, 7), page(3000, 102, 3));
    assert!(!found.restarted);
    assert_eq!((found.read.requests, found.events[0].count), (1.0, 3));
}

#[test]
fn a_histogram_that_fell_tells_of_another_process_too() {
    let page = |low: u64, count: u64| json!({"mooncake_te_read_latency_us": {"count": count, "sum": 1, "buckets": {"100": low}}});
    let found = between(page(5, 5), page(4, 4));
    assert_eq!((found.restarted, found.read.p50), (true, Some(Quantile::About(50.0))));
}

#[test]
fn quantiles_are_of_the_interval_alone() {
    // In the order in which JSON has them, as texts.
    let page = |counts: [u64; 3], count: u64| {
        let [fast, middle, slow] = counts;
        let buckets = json!({"1000": slow, "100": fast, "500": middle});
        json!({"mooncake_te_read_latency_us": {"count": count, "sum": 1, "buckets": buckets}})
    };
    let found = between(page([1000, 0, 0], 1000), page([1000, 100, 0], 1100));
    assert_eq!(
        (found.read.p50, found.read.p99),
        (Some(Quantile::About(300.0)), Some(Quantile::About(496.0)))
    );
    assert_eq!(between(page([7, 7, 7], 21), page([7, 7, 7], 21)).read.p50, None);
}

#[test]
fn a_quantile_lies_in_its_bucket() {
    let buckets = [(100.0, 50), (500.0, 0), (1000.0, 40)];
    for (part, expected) in [
        (0.25, Quantile::About(50.0)),
        (0.5, Quantile::About(100.0)),
        (0.7, Quantile::About(750.0)),
        (0.9, Quantile::About(1000.0)),
        (0.99, Quantile::Above(1000.0)),
    ] {
        assert_eq!(quantile(&buckets, 100, part), Some(expected), "{part}");
    }
    assert_eq!(quantile(&buckets, 0, 0.5), None);
}

#[test]
fn engines_of_one_process_are_told_apart() {
    let page = |a: u64, b: u64| {
        json!({
            "mte_engine_up{engine=\"b\"}": 0,
            "mte_tasks_waiting{engine=\"a\"}": 2,
            "mte_tasks_waiting{engine=\"b\"}": 3,
            "mte_nic_up{engine=\"a\",nic=\"mlx5_0\"}": 1,
            "mte_nic_up{engine=\"b\",nic=\"mlx5_1\"}": 0,
            "mte_transport_events_total{engine=\"a\",transport=\"rdma\",event=\"rails_failed\"}": a,
            "mte_transport_events_total{engine=\"b\",transport=\"rdma\",event=\"rails_failed\"}": b,
            "mte_transport_events_total{engine=\"b\",transport=\"rdma\",event=\"bytes_sent\"}": b,
        })
    };
    let found = between(page(1, 1), page(1, 5));
    assert_eq!((found.engines, found.under_way), (2, 5));
    assert_eq!(found.broken, ["b"]);
    assert_eq!(found.down, [("b".to_string(), "mlx5_1".to_string())]);
    let event =
        Event { engine: "b".into(), transport: "rdma".into(), event: "rails_failed".into(), count: 4 };
    assert_eq!(found.events, [event]);
}

#[test]
fn names_of_events_tell_which_are_trouble() {
    for event in [
        "fallback_same_host",
        "lost",
        "lanes_lost",
        "inbound_refused",
        "rejected",
        "rails_failed",
        "reposted",
    ] {
        assert!(tells_of_trouble(event), "{event}");
    }
    for event in ["bytes_sent", "connected", "inbound_requests", "lanes_opened", "evicted"] {
        assert!(!tells_of_trouble(event), "{event}");
    }
}

#[test]
fn labels_are_read_as_engines_write_them() {
    let engine = "a\"b\\c,d=\"e";
    let found = Series::of(&format!("mte_nic_up{{engine={engine:?},nic=\"x\"}}"));
    assert_eq!(
        (found.name.as_str(), &found.labels["engine"][..], &found.labels["nic"][..]),
        ("mte_nic_up", engine, "x")
    );
    assert_eq!(Series::of("mte_batches"), Series::plain("mte_batches".into()));
    assert_eq!(Series::of("x{a=\"\x1b[2J\"}").labels["a"], "?[2J");
    // What is cut off has what there is.
    assert_eq!(Series::of("x{a=\"b").labels["a"], "b");
}

#[test]
fn a_page_of_something_else_is_no_metrics() {
    for page in [json!([]), json!({"status": "ok"}), json!(null)] {
        assert!(Metrics::of(&page).is_none(), "{page}");
    }
}
