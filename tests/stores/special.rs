//! What only some stores have: clusters, limits, watches.

use std::time::{Duration, Instant};

use transfer_engine::engine::metrics::Form;
use transfer_engine::engine::{handles, Engine};
use transfer_engine::error::{Class, Code, Error};
use transfer_engine::memory::Range;

use crate::common::in_child;
use crate::node::{until, Node};
use crate::servers::{http, Kind, Server};
use crate::SETTINGS;

/// `false` in the process that is to run the case.
pub fn elsewhere(name: &str, more: &[(&str, &str)]) -> bool {
    let settings: Vec<_> = SETTINGS.iter().chain(more).copied().collect();
    in_child(name, &settings)
}

pub fn refusal(url: &str) -> Error {
    Engine::create(url, "a", false).err().expect("it should be refused")
}

#[test]
fn p35_a_url_that_cannot_work_is_an_error_that_says_why() {
    if elsewhere(
        "special::p35_a_url_that_cannot_work_is_an_error_that_says_why",
        &[("MC_METADATA_TIMEOUT_MS", "500")],
    ) {
        return;
    }
    let port = crate::servers::free_port();
    for (url, code, word) in [
        (format!("etcd://127.0.0.1:{port}"), Code::Metadata, "refused"),
        (format!("127.0.0.1:{port},127.0.0.1:{port}"), Code::Metadata, "refused"),
        (format!("redis://127.0.0.1:{port}"), Code::Metadata, "refused"),
        (format!("http://127.0.0.1:{port}/metadata"), Code::Metadata, "refused"),
        ("http://no-such-host.invalid/metadata".into(), Code::Metadata, "no-such-host.invalid"),
        ("zookeeper://h:1".into(), Code::InvalidArgument, "known are"),
        ("etcd://".into(), Code::InvalidArgument, "no endpoint"),
        ("".into(), Code::InvalidArgument, "empty"),
    ] {
        let begun = Instant::now();
        let error = refusal(&url);
        assert_eq!(error.code(), code, "{url}: {error}");
        assert!(error.text().contains(word), "{url}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{url}: {:?}", begun.elapsed());
    }
    // Something listens and is no store.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for url in ["etcd://127.0.0.1:", "redis://127.0.0.1:", "http://127.0.0.1:"] {
        let begun = Instant::now();
        let error = refusal(&format!("{url}{port}"));
        assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Timeout), "{url}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{url}: {:?}", begun.elapsed());
    }
    let mte = Server::start(Kind::Mte);
    for url in [
        format!("redis://127.0.0.1:{}", mte.port()),
        format!("127.0.0.1:{}", mte.port()),
        format!("http://127.0.0.1:{}/", mte.port()),
    ] {
        let error = refusal(&url);
        // 404 says that there is no key, so only the write finds that it is the wrong server.
        assert_eq!(error.code(), Code::Metadata, "{url}: {error}");
    }
}

#[test]
fn a_store_that_starts_late_is_waited_for() {
    if elsewhere("special::a_store_that_starts_late_is_waited_for", &[]) {
        return;
    }
    for kind in [Kind::Redis, Kind::Mte] {
        let mut server = Server::start(kind);
        server.stop();
        let url = server.url();
        let creating = std::thread::spawn(move || Node::try_start(&url, "a"));
        server.again();
        creating.join().unwrap().unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

#[test]
fn a_cluster_of_three_survives_the_loss_of_one_and_reports_the_loss_of_two() {
    if elsewhere(
        "special::a_cluster_of_three_survives_the_loss_of_one_and_reports_the_loss_of_two",
        // A vote may take seconds on a busy machine.
        &[("MC_METADATA_TTL_SEC", "5"), ("MC_METADATA_TIMEOUT_MS", "10000")],
    ) {
        return;
    }
    let mut nodes = Server::cluster();
    let list: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let url = format!("etcd://{}", list.join(","));
    let (a, b) = (Node::start(&url, "a"), Node::start(&url, "b"));
    let target = a.engine.open_segment("b").unwrap();
    let known = || a.engine.segment_buffers(target, |_, _, _| ()).unwrap();
    // The one that the engines talk to.
    nodes[0].stop();
    for round in 0..5 {
        b.engine.register(&[b.range(1)], "*", true).unwrap_or_else(|e| panic!("round {round}: {e}"));
        until("the watch goes on elsewhere", || known() == 2);
        b.engine
            .unregister(std::iter::once(b.range(1).addr))
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        until("the watch goes on elsewhere", || known() == 1);
    }
    let c = Node::start(&url, "c");
    c.exchange_with(&b, c.engine.open_segment("b").unwrap(), 1).unwrap();
    nodes[1].stop();
    let begun = Instant::now();
    let error = b.engine.register(&[b.range(1)], "*", true).unwrap_err();
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    a.exchange_with(&b, target, 2).unwrap();
    nodes[0].again_without_waiting();
    nodes[1].again_without_waiting();
    until("the cluster takes writes again", || b.engine.register(&[b.range(1)], "*", true).is_ok());
    until("the watch goes on", || known() == 2);
    until("everybody is in it", || {
        ["a", "b", "c"].iter().all(|name| nodes[2].get(&format!("mooncake/ram/{name}")).is_some())
    });
}

#[test]
fn p07_keys_and_watches_come_back_when_etcd_has_lost_its_data() {
    if elsewhere("special::p07_keys_and_watches_come_back_when_etcd_has_lost_its_data", &[]) {
        return;
    }
    let mut server = Server::start(Kind::Etcd);
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    for _ in 0..20 {
        b.engine.register(&[b.range(1)], "*", true).unwrap();
        b.engine.unregister(std::iter::once(b.range(1).addr)).unwrap();
    }
    server.lose_everything();
    until("both are in the store again", || {
        ["mooncake/ram/a", "mooncake/ram/b", "mooncake/rpc_meta/b"]
            .iter()
            .all(|key| server.get(key).is_some())
    });
    until("a change is heard of", || {
        let registered = b.engine.register(&[b.range(1)], "*", true).is_ok();
        let deadline = Instant::now() + Duration::from_secs(3);
        while registered
            && a.engine.segment_buffers(target, |_, _, _| ()).unwrap() != 2
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let heard = a.engine.segment_buffers(target, |_, _, _| ()).unwrap() == 2;
        let _ = b.engine.unregister(std::iter::once(b.range(1).addr));
        heard
    });
}

/// A descriptor of a peer that is not there.
fn unreached(name: &str) -> String {
    format!(r#"{{"name":"{name}","protocol":"tcp","tcp_data_port":1,"tcp_data_host":"h","buffers":[]}}"#)
}

#[test]
fn segments_that_are_not_used_are_not_read_again() {
    if elsewhere("special::segments_that_are_not_used_are_not_read_again", &[("MC_METADATA_TTL_SEC", "600")])
    {
        return;
    }
    let server = Server::start(Kind::Redis);
    let a = Node::start(&server.url(), "a");
    for name in (0..1000).map(|i| format!("s{i}")) {
        server.put(&format!("mooncake/ram/{name}"), &unreached(&name));
        a.engine.open_segment(&name).unwrap();
    }
    let reads = || {
        let stats = server.redis(&["INFO", "commandstats"]).unwrap();
        stats.lines().find(|line| line.starts_with("cmdstat_get:")).map(String::from)
    };
    // Every reading of this engine is over: the last one answered the last open.
    let (before, end) = (reads(), Instant::now() + Duration::from_secs(1));
    assert!(before.is_some());
    while Instant::now() < end {
        assert_eq!(reads(), before, "something was read");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn opened_segments_share_one_watch_stream_and_are_not_polled() {
    if elsewhere(
        "special::opened_segments_share_one_watch_stream_and_are_not_polled",
        &[("MC_METADATA_TTL_SEC", "600")],
    ) {
        return;
    }
    const SEGMENTS: usize = 10_000;
    // The engine looks at its own two keys every ten seconds, and a busy machine takes longer than that. Segments that were polled
    // would be thousands of reads.
    const OWN_READS: u64 = 8;
    let server = Server::start(Kind::Etcd);
    let a = Node::start(&server.url(), "a");
    let names: Vec<_> = (0..SEGMENTS).map(|i| format!("s{i}")).collect();
    for some in names.chunks(100) {
        let pair = |name: &String| (format!("mooncake/ram/{name}"), unreached(name));
        server.put_all(&some.iter().map(pair).collect::<Vec<_>>());
    }
    std::thread::scope(|scope| {
        for some in names.chunks(SEGMENTS / 8) {
            scope.spawn(|| some.iter().for_each(|name| assert!(a.engine.open_segment(name).unwrap() > 0)));
        }
    });
    let metric = |name: &str| -> u64 {
        let (_, text) = http(server.port(), "GET", "/metrics", b"").unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    };
    until("every segment is watched", || metric("etcd_debugging_mvcc_watcher_total") == SEGMENTS as u64);
    assert_eq!(metric("etcd_debugging_mvcc_watch_stream_total"), 1);
    // A watch without an event costs nothing, for several times as long as others take to read again; one event reaches
    // one segment.
    let before = metric("etcd_debugging_mvcc_range_total");
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert!(metric("etcd_debugging_mvcc_range_total") <= before + OWN_READS, "segments are read");
        std::thread::sleep(Duration::from_millis(50));
    }
    let changed = r#"{"name":"s7","protocol":"tcp","tcp_data_port":1,"tcp_data_host":"h","buffers":[{"name":"n","addr":1,"length":1}]}"#;
    server.put("mooncake/ram/s7", changed);
    let s7 = a.engine.open_segment("s7").unwrap();
    until("the change is heard of", || a.engine.segment_buffers(s7, |_, _, _| ()).unwrap() == 1);
    assert!(metric("etcd_debugging_mvcc_range_total") <= before + OWN_READS, "segments were read");
    a.engine.remove_segment("s7").unwrap();
    until("its watch ends", || metric("etcd_debugging_mvcc_watcher_total") == SEGMENTS as u64 - 1);
}

#[test]
fn concurrent_registrations_share_publications_and_a_batch_is_one() {
    if elsewhere("special::concurrent_registrations_share_publications_and_a_batch_is_one", &[]) {
        return;
    }
    const THREADS: usize = 64;
    let server = Server::start(Kind::Etcd);
    let node = Node::create(&server.url(), "a").unwrap();
    node.engine.install_transport("tcp", None).unwrap();
    let version = || -> i64 {
        let key = r#"{"key":"bW9vbmNha2UvcmFtL2E="}"#;
        let found: serde_json::Value = serde_json::from_str(&server.etcd("range", key)).unwrap();
        found["kvs"][0]["version"].as_str().unwrap().parse().unwrap()
    };
    let piece = |i: usize| Range { addr: node.addr() + 64 * i as u64, len: 64 };
    let before = version();
    std::thread::scope(|scope| {
        for i in 0..THREADS {
            let engine = &node.engine;
            scope.spawn(move || engine.register(&[piece(i)], "*", true).unwrap());
        }
    });
    let shared = version() - before;
    assert!(shared < THREADS as i64 / 2, "{shared} publications for {THREADS} registrations at once");
    let text = server.get("mooncake/ram/a").unwrap();
    assert_eq!(text.matches("\"addr\"").count(), THREADS);
    let before = version();
    let batch: Vec<_> = (THREADS..2 * THREADS).map(piece).collect();
    node.engine.register(&batch, "*", true).unwrap();
    assert_eq!(version() - before, 1);
}

#[test]
fn a_descriptor_too_large_for_the_store_is_refused_with_its_size() {
    if elsewhere(
        "special::a_descriptor_too_large_for_the_store_is_refused_with_its_size",
        &[("MC_METADATA_TIMEOUT_MS", "10000")],
    ) {
        return;
    }
    for kind in [Kind::Etcd, Kind::Wheel] {
        let server = Server::start(kind);
        let node = Node::start(&server.url(), "a");
        let memory = vec![0u8; 40_000 * 64];
        let piece = |i: usize| Range { addr: memory.as_ptr() as u64 + 64 * i as u64, len: 32 };
        let all: Vec<_> = (0..40_000).map(piece).collect();
        let error = node.engine.register(&all, "*", true).unwrap_err();
        assert_eq!(error.code(), Code::Metadata, "{kind:?}: {error}");
        let limit = if kind == Kind::Etcd { "1.5 MiB" } else { "1048576" };
        assert!(error.text().contains(limit) && error.text().contains(" bytes"), "{kind:?}: {error}");
        assert!(!error.retryable(), "{kind:?}: {error}");
        let text = server.get("mooncake/ram/a").unwrap();
        assert_eq!(text.matches("\"addr\"").count(), 1, "{kind:?}");
        node.engine.register(&all[..100], "*", true).unwrap();
    }
}

#[test]
fn an_http_store_without_room_is_an_error_that_says_so() {
    let name = "special::an_http_store_without_room_is_an_error_that_says_so";
    if elsewhere(name, &[]) {
        return;
    }
    for (limit, status, word, class) in
        [("--max-value", "413", "too large", Class::Rejected), ("--max-total", "507", "full", Class::Network)]
    {
        let server = Server::with(Kind::Mte, &[limit, "4000"]);
        let node = Node::start(&server.url(), "a");
        let memory = vec![0u8; 100 * 4096];
        let range = |at: usize| Range { addr: memory.as_ptr() as u64 + 4096 * at as u64, len: 100 };
        let many: Vec<Range> = (0..100).map(range).collect();
        let error = node.engine.register(&many, "cpu:0", true).unwrap_err();
        assert_eq!((error.code(), error.kind()), (Code::Metadata, class), "{status}: {error}");
        assert!(error.text().contains(word), "{status}: {error}");
        // Rolled back, and what fits is taken.
        node.engine.register(&many[..1], "cpu:0", true).unwrap();
        drop(node);
    }
}

#[test]
fn an_etcd_that_is_full_is_an_error_that_says_what_to_do() {
    if elsewhere("special::an_etcd_that_is_full_is_an_error_that_says_what_to_do", &[]) {
        return;
    }
    let server = Server::with(Kind::Etcd, &["--quota-backend-bytes", "1048576"]);
    let node = Node::start(&server.url(), "a");
    let body = format!(r#"{{"key":"eA==","value":"{}"}}"#, "QUFB".repeat(50_000));
    until("etcd is full", || http(server.port(), "POST", "/v3/kv/put", body.as_bytes()).unwrap().0 != 200);
    let begun = Instant::now();
    let error = node.engine.register(&[node.range(1)], "*", true).unwrap_err();
    assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
    assert!(error.text().contains("compacted") && !error.retryable(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "a refusal is not tried again");
}

#[test]
fn p07_redis_keys_expire_from_their_first_write_on() {
    // With a life so long that nobody looks after the keys during the test.
    if elsewhere(
        "special::p07_redis_keys_expire_from_their_first_write_on",
        &[("MC_METADATA_TTL_SEC", "600")],
    ) {
        return;
    }
    let server = Server::start(Kind::Redis);
    let _node = Node::start(&server.url(), "a");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    let mut connection = client.get_connection().unwrap();
    for key in ["mooncake/rpc_meta/a", "mooncake/ram/a"] {
        let left: i64 = redis::cmd("PTTL").arg(key).query(&mut connection).unwrap();
        assert!((1..=600_000).contains(&left), "{key}: {left} ms");
    }
}

#[test]
fn the_address_of_the_name_is_used_when_the_legacy_setting_asks_for_it() {
    let name = "special::the_address_of_the_name_is_used_when_the_legacy_setting_asks_for_it";
    if elsewhere(name, &[("MC_LEGACY_RPC_PORT_BINDING", "1")]) {
        return;
    }
    let server = Server::start(Kind::Redis);
    let named = format!("localhost:{}", crate::servers::free_port());
    let a = Node::start(&server.url(), &named);
    let address = server.get(&format!("mooncake/rpc_meta/{named}")).unwrap();
    let (host, port) = named.split_once(':').unwrap();
    assert_eq!(address, format!("{{\"ip_or_host_name\":\"{host}\",\"rpc_port\":{port}}}\n"));
    // The same address is no proof of the same engine.
    let error = Engine::create(&server.url(), &named, false).err().unwrap();
    assert!(error.text().contains("the name is in use"), "{error}");
    let b = Node::start(&server.url(), &format!("localhost:{}", crate::servers::free_port()));
    b.exchange_with(&a, b.engine.open_segment(&named).unwrap(), 1).unwrap();
}

#[test]
fn proxies_are_used_only_where_the_setting_says_so() {
    let nowhere = "http://127.0.0.1:9";
    let settings = [("http_proxy", nowhere), ("HTTP_PROXY", nowhere), ("ALL_PROXY", nowhere)];
    if elsewhere("special::proxies_are_used_only_where_the_setting_says_so", &settings) {
        return;
    }
    let server = Server::start(Kind::Mte);
    drop(Node::start(&server.url(), "a"));
    // Our server takes the absolute form of a target like any other, so it can play the proxy.
    std::env::set_var("MC_METADATA_HTTP_PROXY", format!("http://127.0.0.1:{}", server.port()));
    let _a = Node::start("http://store.invalid:1/metadata", "b");
    assert!(server.get("mooncake/ram/b").is_some());
}

/// Engines of one name in one process, in different clusters: no series stands twice, which Prometheus would refuse.
#[test]
fn p18_engines_of_one_name_have_series_of_their_own() {
    if elsewhere("special::p18_engines_of_one_name_have_series_of_their_own", &[]) {
        return;
    }
    let server = Server::start(Kind::Mte);
    let tokens = ["a", "b", "c"].map(|cluster| {
        std::env::set_var("MC_METADATA_CLUSTER_ID", cluster);
        handles::insert(Engine::create(&server.url(), "same", false).unwrap()).unwrap()
    });
    let series = || -> Vec<String> {
        let page = handles::metrics(Form::Text);
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_string()).collect()
    };
    let all = series();
    let mut unique = all.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(all.len(), unique.len(), "{all:?}");
    let json: serde_json::Value = serde_json::from_str(&handles::metrics(Form::Json)).unwrap();
    assert_eq!(json.as_object().unwrap().keys().filter(|name| name.starts_with("mte_batches{")).count(), 3);
    handles::remove(tokens[0]).unwrap().destroy();
    let kept = |name: &str| series().iter().any(|series| series == name);
    assert!(kept("mte_batches{engine=\"same#2\"}") && kept("mte_batches{engine=\"same#3\"}"), "names stay");
    tokens[1..].iter().for_each(|token| handles::remove(*token).unwrap().destroy());
}
