//! What every store has to do.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use transfer_engine::error::{Class, Code};
use transfer_engine::handshake::Notification;

use crate::node::{until, Node, BYTES, WRITE};
use crate::servers::{free_port, Kind, Server};

const URL: &str = "TE_STORES_URL";

fn descriptor(server: &Server, key: &str) -> Option<Value> {
    server.get(key).map(|text| serde_json::from_str(&text).unwrap())
}

fn buffers(server: &Server, name: &str) -> Option<usize> {
    descriptor(server, &format!("mooncake/ram/{name}")).map(|desc| desc["buffers"].as_array().unwrap().len())
}

pub fn keys_come_and_go_with_the_engine(server: Server) {
    let node = Node::create(&server.url(), "node a:9999").unwrap();
    let port = node.engine.address().port;
    let newline = server.kind.newline();
    let address = format!("{{\"ip_or_host_name\":\"127.0.0.1\",\"rpc_port\":{port}}}{newline}");
    assert_eq!(server.get("mooncake/rpc_meta/node a:9999"), Some(address), "with the first write");
    assert_eq!(server.get("mooncake/ram/node a:9999"), None, "nothing is installed");
    assert!(
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err(),
        "the port is bound and does not listen yet"
    );
    node.engine.install_transport("tcp", None).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(buffers(&server, "node a:9999"), Some(0));
    node.engine.register(&[node.range(0)], "cpu:0", true).unwrap();
    let text = server.get("mooncake/ram/node a:9999").unwrap();
    assert!(text.ends_with(&format!("}}{newline}")) && !text.contains(": ") && !text.contains(", "));
    let desc: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(desc["buffers"], json!([{"addr": node.addr(), "length": BYTES, "name": "node a:9999"}]));
    assert_eq!((&desc["name"], &desc["protocol"]), (&json!("node a:9999"), &json!("tcp")));
    assert_eq!(text.trim_end(), desc.to_string(), "compact, with sorted members");
    assert!(desc["incarnation"].is_string());
    node.engine.unregister(std::iter::once(node.addr())).unwrap();
    assert_eq!(buffers(&server, "node a:9999"), Some(0));
    assert_eq!(node.engine.open_segment("node a:9999").unwrap(), 0);
    drop(node);
    assert_eq!(server.get("mooncake/rpc_meta/node a:9999"), None);
    assert_eq!(server.get("mooncake/ram/node a:9999"), None);
}

pub fn keys_carry_the_cluster(server: Server) {
    let _node = Node::start(&server.url(), "a");
    assert!(server.get("mooncake/team-a/rpc_meta/a").is_some());
    assert!(server.get("mooncake/team-a/ram/a").is_some());
}

pub fn bytes_and_notifications_reach_the_peer(server: Server) {
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("//b").unwrap();
    assert_eq!((target, a.engine.open_segment("b").unwrap()), (1, 1));
    a.exchange_with(&b, target, 1).unwrap();
    let note = Notification { name: "n".into(), message: "m".into() };
    a.engine.notify(1, note.clone()).unwrap();
    assert_eq!(b.engine.local().notifications.take(), [note]);
    let absent = a.engine.open_segment("nobody").unwrap_err();
    assert_eq!(absent.code(), Code::Metadata);
    assert!(absent.text().contains("mooncake/ram/nobody"), "{absent}");
    assert_eq!(a.engine.open_segment("nvmeof/foo").unwrap_err().code(), Code::Metadata);
}

pub fn p07_a_living_engine_keeps_its_name(server: Server) {
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let before = (server.get("mooncake/rpc_meta/a"), server.get("mooncake/ram/a"));
    let refused = Node::try_start(&server.url(), "a").err().unwrap();
    assert_eq!((refused.code(), refused.kind()), (Code::Metadata, Class::Rejected));
    assert!(refused.text().contains("the name is in use"), "{refused}");
    assert_eq!((server.get("mooncake/rpc_meta/a"), server.get("mooncake/ram/a")), before);
    let target = b.engine.open_segment("a").unwrap();
    b.exchange_with(&a, target, 2).unwrap();
}

/// Keys as an upstream engine that was killed leaves them.
fn leave_remains(server: &Server, address: Value) {
    server.put("mooncake/rpc_meta/a", &address.to_string());
    let buffers = json!([{"addr": 4096, "length": 4096, "name": "a"}]);
    let desc = json!({"name": "a", "protocol": "tcp", "tcp_data_port": 1, "tcp_proto_version": 2, "buffers": buffers});
    server.put("mooncake/ram/a", &desc.to_string());
}

pub fn p07_a_dead_engines_name_is_taken_over(mut server: Server) {
    // Nobody there; somebody who does not answer; nothing that makes sense.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    for address in [
        json!({"ip_or_host_name": "127.0.0.1", "rpc_port": free_port()}),
        json!({"ip_or_host_name": "127.0.0.1", "rpc_port": silent}),
        json!({"rpc_port": -1}),
    ] {
        leave_remains(&server, address);
        let a = Node::start(&server.url(), "a");
        let desc = descriptor(&server, "mooncake/ram/a").unwrap();
        assert_eq!(desc["buffers"], json!([{"addr": a.addr(), "length": BYTES, "name": "a"}]));
        let b = Node::start(&server.url(), "b");
        b.exchange_with(&a, b.engine.open_segment("a").unwrap(), 3).unwrap();
        drop(a);
        assert_eq!(server.get("mooncake/rpc_meta/a"), None, "what was taken over is removed in the end");
        assert_eq!(server.get("mooncake/ram/a"), None);
        drop(b);
        server.wipe();
    }
}

pub fn a_strict_setting_keeps_even_dead_names(server: Server) {
    let address = json!({"ip_or_host_name": "127.0.0.1", "rpc_port": free_port()});
    leave_remains(&server, address.clone());
    let refused = Node::create(&server.url(), "a").err().unwrap();
    assert!(refused.text().contains("MC_METADATA_TAKE_OVER"), "{refused}");
    assert_eq!(server.get("mooncake/rpc_meta/a"), Some(address.to_string()));
}

/// Runs in a process of its own until it is killed.
pub fn be_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let _node = Node::start(&url, "victim");
    println!("READY");
    loop {
        std::thread::park();
    }
}

pub fn p07_a_killed_engines_keys_expire(server: Server) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_engine_to_be_killed", "--nocapture"])
        .env(URL, server.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("READY")));
    let node = Node::start(&server.url(), "a");
    let target = node.engine.open_segment("victim").unwrap();
    assert!(target > 0);
    // Longer than the life of a key, 4 s: it is kept alive, which is not the same as coming back.
    let end = Instant::now() + Duration::from_millis(5500);
    while Instant::now() < end {
        for key in ["mooncake/rpc_meta/victim", "mooncake/ram/victim", "mooncake/rpc_meta/a"] {
            assert!(server.get(key).is_some(), "{key} was gone while its engine lived");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    let killed = Instant::now();
    if server.kind.expires() {
        until("the keys of the killed engine are gone", || {
            server.get("mooncake/rpc_meta/victim").is_none() && server.get("mooncake/ram/victim").is_none()
        });
        // Twice its life, for a slow machine.
        assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    }
    let again = Node::start(&server.url(), "victim");
    until("the one that came back is reached", || node.exchange_with(&again, target, 4).is_ok());
}

pub fn p07_keys_come_back_after_a_wipe(mut server: Server) {
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    server.wipe();
    a.exchange_with(&b, target, 5).unwrap();
    until("both are in the store again", || {
        ["a", "b"].iter().all(|name| {
            buffers(&server, name) == Some(1) && server.get(&format!("mooncake/rpc_meta/{name}")).is_some()
        })
    });
    let c = Node::start(&server.url(), "c");
    c.exchange_with(&b, c.engine.open_segment("b").unwrap(), 6).unwrap();
    // A name that somebody else took meanwhile is not taken back.
    server.wipe();
    server.put("mooncake/ram/a", r#"{"name":"a","protocol":"tcp","buffers":[]}"#);
    // Over HTTP a key that was ours half a second ago is written without a look: nobody takes over as fast.
    until("what is not ours is not written over", || match a.engine.register(&[a.range(1)], "*", true) {
        Err(error) => error.code() == Code::Metadata,
        Ok(()) => {
            a.engine.unregister(std::iter::once(a.range(1).addr)).unwrap();
            server.put("mooncake/ram/a", r#"{"name":"a","protocol":"tcp","buffers":[]}"#);
            false
        }
    });
    assert_eq!(buffers(&server, "a"), Some(0));
    drop(a);
    assert!(server.get("mooncake/ram/a").is_some(), "a key that is not ours is not removed");
}

pub fn a_dead_store_refuses_registrations_and_keeps_transfers_going(mut server: Server) {
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    a.exchange_with(&b, target, 7).unwrap();
    server.stop();
    a.exchange_with(&b, target, 8).unwrap();
    let error = a.engine.register(&[a.range(1)], "*", true).unwrap_err();
    assert_eq!(error.code(), Code::Metadata, "{error}");
    let second = a.range(1);
    assert_eq!(
        a.engine.unregister(std::iter::once(second.addr)).unwrap_err().code(),
        Code::AddressNotRegistered
    );
    assert_eq!(a.engine.open_segment("c").unwrap_err().code(), Code::Metadata);
    let error = b.engine.unregister(std::iter::once(b.addr())).unwrap_err();
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert_eq!(
        b.engine.unregister(std::iter::once(b.addr())).unwrap_err().code(),
        Code::AddressNotRegistered
    );
    let gone = a.transfer(WRITE, target, b.addr(), 8).unwrap_err();
    assert!(gone.contains("not registered") || gone.contains("AddressNotRegistered"), "{gone}");
    assert_eq!(Node::create(&server.url(), "d").err().unwrap().code(), Code::Metadata);
    a.engine.open_segment_fresh("b").unwrap_err();
    server.again();
    until("what happened meanwhile is published", || {
        buffers(&server, "a") == Some(1) && buffers(&server, "b") == Some(0)
    });
    b.engine.register(&[b.range(0)], "*", true).unwrap();
    until("a transfer works again", || a.exchange_with(&b, target, 9).is_ok());
}

pub fn a_peer_that_restarts_is_found_again(server: Server) {
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    a.exchange_with(&b, target, 10).unwrap();
    a.engine.notify(1, Notification { name: "1".into(), message: String::new() }).unwrap();
    drop(b);
    let b = Node::start(&server.url(), "b");
    until("the peer is found at its new place", || a.exchange_with(&b, target, 11).is_ok());
    a.engine.notify(1, Notification { name: "2".into(), message: String::new() }).unwrap();
    assert_eq!(b.engine.local().notifications.take().len(), 1);
}

pub fn changes_of_a_peer_are_heard_of(server: Server) {
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    let known = || a.engine.segment_buffers(target, |_, _, _| ()).unwrap();
    assert_eq!(known(), 1);
    b.engine.register(&[b.range(1)], "*", true).unwrap();
    if server.kind == Kind::Etcd {
        until("the watch tells", || known() == 2);
    } else {
        // In use, it is read again when it is old.
        until("the descriptor is read again", || {
            a.exchange_with(&b, target, 12).unwrap();
            known() == 2
        });
    }
    b.engine.unregister(std::iter::once(b.range(1).addr)).unwrap();
    a.engine.sync_segments();
    assert_eq!(known(), 1);
}

pub fn malformed_descriptors_are_refused_and_not_cached(server: Server) {
    let a = Node::start(&server.url(), "a");
    let device = json!({"name": "mlx5_0", "lid": 0, "gid": "00:01"});
    let tcp =
        |buffers: Value| json!({"name": "x", "protocol": "tcp", "tcp_data_port": 1, "buffers": buffers});
    let rdma = |devices: Value, buffers: Value| json!({"name": "x", "protocol": "rdma", "devices": devices, "buffers": buffers, "priority_matrix": {}});
    let keyed = |rkey: Value, lkey: Value| {
        rdma(json!([device]), json!([{"name": "cpu:0", "addr": 1, "length": 1, "rkey": rkey, "lkey": lkey}]))
    };
    let huge = format!(
        r#"{{"name":"x","protocol":"tcp","tcp_data_port":1,"buffers":[{}]}}"#,
        "1,".repeat(200_000).trim_end_matches(',')
    );
    let mut texts: Vec<String> =
        ["", "'x'", "{", "null", "[]", "7", "\"x\"", &"[".repeat(10_000), &huge].map(String::from).to_vec();
    let values = [
        json!({"name": "x"}),
        json!({"name": "x", "protocol": "nonsense", "buffers": []}),
        json!({"name": "x", "protocol": ["tcp", "rdma"], "buffers": []}),
        json!({"name": {}, "protocol": "tcp", "buffers": []}),
        json!({"name": "x", "protocol": "tcp", "tcp_data_port": -1, "buffers": []}),
        json!({"name": "x", "protocol": "tcp", "tcp_data_port": 65536, "buffers": []}),
        json!({"name": "x", "protocol": "tcp", "tcp_data_port": "1", "buffers": []}),
        json!({"name": "x", "protocol": "tcp", "tcp_data_port": 1, "buffers": {}}),
        tcp(json!([{"name": "", "addr": 1, "length": 1}])),
        tcp(json!([{"name": "x", "addr": 0, "length": 1}])),
        tcp(json!([{"name": "x", "addr": 1, "length": 0}])),
        tcp(json!([{"name": "x", "addr": u64::MAX, "length": 2}])),
        tcp(json!([{"name": "x", "addr": 1.5, "length": 2}])),
        tcp(json!([[]])),
        rdma(json!([{"name": "", "lid": 0, "gid": "00"}]), json!([])),
        rdma(json!([{"name": "n", "lid": 0, "gid": ""}]), json!([])),
        keyed(json!([1, 2]), json!([1, 2])),
        keyed(json!([1]), json!([])),
        keyed(json!([-1]), json!([1])),
        keyed(json!([1u64 << 32]), json!([1])),
    ];
    texts.extend(values.iter().map(Value::to_string));
    for text in texts {
        server.put("mooncake/ram/x", &text);
        let error = a.engine.open_segment("x").unwrap_err();
        let shown = &text[..text.len().min(100)];
        assert_eq!(error.code(), Code::MalformedJson, "{shown}: {error}");
        assert!(error.text().contains("mooncake/ram/x"), "{error}");
    }
    // Nothing was cached.
    let b = Node::start(&server.url(), "b");
    let good = descriptor(&server, "mooncake/ram/b").unwrap();
    server.put("mooncake/ram/x", &good.to_string());
    let x = a.engine.open_segment("x").unwrap();
    a.exchange_with(&b, x, 13).unwrap();
    // A descriptor that becomes malformed does not replace the one that is known.
    server.put("mooncake/ram/x", "{");
    assert_eq!(a.engine.open_segment_fresh("x").unwrap_err().code(), Code::MalformedJson);
    a.exchange_with(&b, x, 14).unwrap();
    server.put("mooncake/ram/ghost", r#"{"name":"ghost","protocol":"tcp","tcp_data_port":1,"buffers":[]}"#);
    for (address, code) in [
        (r#"{"ip_or_host_name":"no-such-host.invalid","rpc_port":15001}"#, Code::Dns),
        (r#"{"ip_or_host_name":"","rpc_port":15001}"#, Code::MalformedJson),
        (r#"{"ip_or_host_name":"h","rpc_port":70000}"#, Code::MalformedJson),
        (r#"{"ip_or_host_name":"h"}"#, Code::MalformedJson),
    ] {
        // Once without the address of the data port, so that the other is asked for.
        let name = format!("ghost-{}", address.len());
        server.put(&format!("mooncake/rpc_meta/{name}"), address);
        let desc =
            json!({"name": name, "protocol": "tcp", "tcp_data_port": 1, "tcp_data_host": "h", "buffers": []});
        server.put(&format!("mooncake/ram/{name}"), &desc.to_string());
        let id = a.engine.open_segment(&name).unwrap();
        let note = Notification { name: "n".into(), message: "m".into() };
        assert_eq!(a.engine.notify(id as u64, note).unwrap_err().code(), code, "{address}");
    }
}
