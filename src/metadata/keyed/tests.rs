//! Keys and texts against what upstream wrote, and ownership against a service that misbehaves.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::cluster_key::Distrust;
use crate::metadata::backend::{refused, unreachable, Put, Version};
use crate::metadata::keys::percent_encoded;

/// A service in memory.
#[derive(Default)]
struct Memory {
    keys: Mutex<HashMap<String, Vec<u8>>>,
    lose_answers: Mutex<usize>,
    /// It has no room for anything new.
    is_full: Mutex<bool>,
    /// It does not answer those who delete.
    is_away: Mutex<bool>,
    /// Before this key is written, somebody else writes these.
    overtaken: Mutex<Option<Overtaken>>,
}

type Overtaken = (&'static str, Vec<(String, Vec<u8>)>);

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn get(&self, key: String, _: bool) -> BoxFuture<'_, Result<Option<Entry>>> {
        let found = self.keys.lock().get(&key).cloned();
        let entry = |value: Vec<u8>| Entry { version: Version::Content(value.as_slice().into()), value };
        Box::pin(async move { Ok(found.map(entry)) })
    }

    fn put(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> BoxFuture<'_, Result<Put>> {
        Box::pin(async move {
            if *self.is_full.lock() {
                return Err(refused("no room".into()));
            }
            let mut keys = self.keys.lock();
            if let Some((_, theirs)) = self.overtaken.lock().take_if(|(before, _)| *before == key) {
                keys.extend(theirs);
            }
            if keys.get(&key).map(|now| Version::Content(now.as_slice().into())) != over {
                return Ok(Put::Lost);
            }
            keys.insert(key, value.to_vec());
            let mut lost = self.lose_answers.lock();
            if *lost > 0 {
                *lost -= 1;
                return Err(unreachable("the answer was lost".into()));
            }
            Ok(Put::Done(Version::Content(value)))
        })
    }

    fn delete(&self, key: String, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            if *self.is_away.lock() {
                return Err(unreachable("nobody answers".into()));
            }
            let mut keys = self.keys.lock();
            let same = keys.get(&key).is_some_and(|now| Version::Content(now.as_slice().into()) == version);
            if same {
                keys.remove(&key);
            }
            Ok(same)
        })
    }

    fn keep(&self, key: String, value: Arc<[u8]>, _: Version) -> BoxFuture<'_, Result<bool>> {
        let same = self.keys.lock().get(&key).is_some_and(|now| **now == *value);
        Box::pin(async move { Ok(same) })
    }
}

fn run<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn store(config: &Config) -> (Arc<Memory>, Keyed) {
    let memory = Arc::new(Memory::default());
    let own = Own { incarnation: "me".into(), descriptor: Arc::new(|| Value::Null) };
    (memory.clone(), Keyed::new(memory, 1, config, own))
}

fn mine(name: &str) -> SegmentDesc {
    let protocol = "tcp".into();
    SegmentDesc { name: name.into(), protocol, incarnation: Some("me".into()), ..SegmentDesc::default() }
}

/// Every object below `value` that has this member.
fn with_member<'a>(value: &'a Value, member: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            if map.contains_key(member) {
                found.push(value);
            }
            map.values().for_each(|inner| with_member(inner, member, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| with_member(inner, member, found)),
        _ => {}
    }
}

#[test]
fn texts_and_keys_are_those_recorded_from_upstream() {
    let http = json::parse(include_bytes!("../../../tests/vectors/http-metadata.json")).unwrap();
    let redis = json::parse(include_bytes!("../../../tests/vectors/redis-metadata.json")).unwrap();
    let (_, plain) = store(&Config::default());
    let team = Config { metadata_cluster_id: Some("team-a".into()), ..Config::default() };
    let (_, team) = store(&team);
    let mut requests = Vec::new();
    with_member(&http, "target", &mut requests);
    let mut seen = 0;
    for request in requests {
        let target = request["target"].as_str().unwrap();
        let ours = ["initiator:9999", "target-1", "missing", "nvmeof/foo"]
            .map(|name| [plain.keys.segment(name), plain.keys.rpc(name)]);
        let ours = ours.iter().flatten().map(|key| format!("/metadata?key={}", percent_encoded(key)));
        assert!(ours.into_iter().any(|ours| ours == target), "{target}");
        seen += check(request["body"].as_str().unwrap());
    }
    let mut commands = Vec::new();
    with_member(&redis, "args", &mut commands);
    for command in commands {
        let args: Vec<&str> =
            command["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        if let ["SET", key, text] = args[..] {
            let ours = ["node a", "node-b"].map(|name| [team.keys.segment(name), team.keys.rpc(name)]);
            assert!(ours.iter().flatten().any(|ours| ours == key), "{key}");
            seen += check(text.strip_suffix('\n').unwrap());
            assert!(text.ends_with("}\n"));
        }
    }
    assert!(seen > 10);
}

/// A recorded value is what we write for the same content; 1 if there is one.
fn check(text: &str) -> usize {
    if text.is_empty() {
        return 0;
    }
    if let Ok(address) = decode_address(text.as_bytes()) {
        assert_eq!(json::write(&encode_address(&address)), text);
        return 1;
    }
    let recorded = json::parse(text.as_bytes()).unwrap();
    let mut ours = decode(text.as_bytes()).unwrap().encode();
    ours["timestamp"] = recorded["timestamp"].clone();
    assert_eq!(json::write(&ours), text);
    1
}

#[test]
fn a_write_whose_answer_was_lost_is_recognised_and_removed() {
    let (memory, store) = store(&Config::default());
    run(async {
        let address = HostPort { host: "127.0.0.1".into(), port: 1 };
        store.put_rpc_address("a", &address).await.unwrap();
        *memory.lose_answers.lock() = 1;
        store.put(mine("a")).await.unwrap();
        *memory.lose_answers.lock() = 100;
        let with = |port: u16| {
            let mut desc = mine("a");
            desc.put("tcp_data_port", port);
            desc
        };
        let changed = || with(5);
        // Every attempt arrives, no answer does.
        store.put(changed()).await.unwrap_err();
        *memory.lose_answers.lock() = 0;
        store.put(with(6)).await.unwrap();
        assert_eq!(store.get("a").await.unwrap().members["tcp_data_port"], 6);
        *memory.lose_answers.lock() = 100;
        store.put(changed()).await.unwrap_err();
        store.remove_rpc_address("a").await.unwrap();
        store.remove("a").await.unwrap();
        assert!(memory.keys.lock().is_empty());
        assert_eq!(store.put(mine("a")).await.unwrap_err().kind(), Class::Canceled);
    });
}

#[test]
fn p07_what_was_written_although_nobody_was_told_so_is_removed() {
    let config = Config { metadata_timeout: Duration::from_millis(50), ..Config::default() };
    let (memory, store) = store(&config);
    run(async {
        // Every attempt arrives, no answer does.
        *memory.lose_answers.lock() = usize::MAX;
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap_err();
        store.put(mine("a")).await.unwrap_err();
        assert_eq!(memory.keys.lock().len(), 2);
        // They count as not published, so nobody writes them again.
        store.look_after_claims_once().await.unwrap();
        store.remove_rpc_address("a").await.unwrap();
        store.remove("a").await.unwrap();
        assert!(memory.keys.lock().is_empty());
    });
}

#[test]
fn p07_what_others_wrote_is_neither_replaced_nor_removed() {
    let (memory, store) = store(&Config::default());
    let theirs = SegmentDesc { incarnation: Some("they".into()), ..mine("a") };
    let text = json::write(&theirs.clone().encode()).into_bytes();
    run(async {
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap();
        store.put(mine("a")).await.unwrap();
        memory.keys.lock().insert("mooncake/ram/a".into(), text.clone());
        let error = store.put(mine("a")).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
        store.look_after_claims_once().await.unwrap_err();
        store.remove("a").await.unwrap();
        store.remove("b").await.unwrap();
        assert_eq!(memory.keys.lock().get("mooncake/ram/a"), Some(&text));
        store.remove_rpc_address("a").await.unwrap();
        assert_eq!(memory.keys.lock().len(), 1);
    });
}

#[test]
fn p07_a_first_descriptor_needs_the_name() {
    let (memory, store) = store(&Config::default());
    run(async {
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap();
        let other = br#"{"ip_or_host_name":"127.0.0.1","rpc_port":2}"#;
        memory.keys.lock().insert("mooncake/rpc_meta/a".into(), other.to_vec());
        let error = store.put(mine("a")).await.unwrap_err();
        assert!(error.text().contains("took the name over"), "{error}");
        assert_eq!(memory.keys.lock().len(), 1);
    });
}

#[test]
fn p07_a_first_descriptor_does_not_replace_that_of_whoever_took_the_name_meanwhile() {
    let (memory, store) = store(&Config::default());
    let text =
        json::write(&SegmentDesc { incarnation: Some("they".into()), ..mine("a") }.encode()).into_bytes();
    run(async {
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap();
        // This engine was stopped between its look at the name and its write, and counted as dead.
        let other = br#"{"ip_or_host_name":"127.0.0.1","rpc_port":2}"#.to_vec();
        let theirs =
            vec![("mooncake/rpc_meta/a".to_string(), other), ("mooncake/ram/a".into(), text.clone())];
        *memory.overtaken.lock() = Some(("mooncake/ram/a", theirs));
        let error = store.put(mine("a")).await.unwrap_err();
        assert_eq!(error.kind(), Class::Rejected, "{error}");
        assert_eq!(memory.keys.lock().get("mooncake/ram/a"), Some(&text));
    });
}

#[test]
fn what_could_not_be_removed_is_removed_the_next_time() {
    let config = Config { metadata_timeout: Duration::from_millis(50), ..Config::default() };
    let (memory, store) = store(&config);
    run(async {
        store.put(mine("a")).await.unwrap();
        *memory.is_away.lock() = true;
        store.remove("a").await.unwrap_err();
        *memory.is_away.lock() = false;
        store.remove("a").await.unwrap();
        assert!(memory.keys.lock().is_empty());
    });
}

#[test]
fn p07_whoever_lost_the_name_gives_the_descriptor_up_until_the_name_is_free_again() {
    let (memory, store) = store(&Config::default());
    run(async {
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap();
        store.put(mine("a")).await.unwrap();
        let before = memory.keys.lock().clone();
        let other = br#"{"ip_or_host_name":"127.0.0.1","rpc_port":2}"#;
        memory.keys.lock().insert("mooncake/rpc_meta/a".into(), other.to_vec());
        assert_eq!(store.look_after_claims_once().await.unwrap_err().kind(), Class::Rejected);
        assert_eq!(memory.keys.lock().keys().collect::<Vec<_>>(), ["mooncake/rpc_meta/a"]);
        assert_eq!(store.put(mine("a")).await.unwrap_err().kind(), Class::Rejected);
        memory.keys.lock().clear();
        store.look_after_claims_once().await.unwrap();
        assert_eq!(*memory.keys.lock(), before);
    });
}

#[test]
fn p07_a_store_without_room_does_not_cost_the_descriptor() {
    let (memory, store) = store(&Config::default());
    run(async {
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap();
        store.put(mine("a")).await.unwrap();
        let before = memory.keys.lock().clone();
        memory.keys.lock().remove("mooncake/rpc_meta/a");
        *memory.is_full.lock() = true;
        assert_eq!(store.look_after_claims_once().await.unwrap_err().kind(), Class::Rejected);
        assert_eq!(memory.keys.lock().keys().collect::<Vec<_>>(), ["mooncake/ram/a"]);
        *memory.is_full.lock() = false;
        store.look_after_claims_once().await.unwrap();
        assert_eq!(*memory.keys.lock(), before);
    });
}

#[test]
fn p07_what_is_gone_is_written_again() {
    let (memory, store) = store(&Config::default());
    run(async {
        store.put_rpc_address("a", &HostPort { host: "127.0.0.1".into(), port: 1 }).await.unwrap();
        store.put(mine("a")).await.unwrap();
        let before = memory.keys.lock().clone();
        memory.keys.lock().clear();
        store.look_after_claims_once().await.unwrap();
        assert_eq!(*memory.keys.lock(), before);
    });
}

#[test]
fn p07_an_owner_that_cannot_be_asked_does_not_count_as_dead() {
    let config = Config { metadata_timeout: Duration::from_millis(50), ..Config::default() };
    let (memory, store) = store(&config);
    // No connection leads there: this host's failure, not the owner's.
    let theirs = br#"{"ip_or_host_name":"255.255.255.255","rpc_port":2}"#.to_vec();
    memory.keys.lock().insert("mooncake/rpc_meta/a".into(), theirs.clone());
    run(async {
        let mine = HostPort { host: "127.0.0.1".into(), port: 1 };
        let error = store.put_rpc_address("a", &mine).await.unwrap_err();
        assert!(error.retryable() && error.text().contains("cannot be found out"), "{error}");
        assert_eq!(memory.keys.lock().get("mooncake/rpc_meta/a"), Some(&theirs));
    });
}

/// A peer that has another cluster key.
struct OfAnother;

impl Probe for OfAnother {
    fn probe(&self, address: &HostPort) -> BoxFuture<'_, Result<()>> {
        let error = Distrust::OtherKey.error(address);
        Box::pin(async move { Err(error) })
    }
}

#[test]
fn p38_a_name_whose_owner_has_another_key_is_in_use() {
    let memory = Arc::new(Memory::default());
    let address = serde_json::json!({"ip_or_host_name": "127.0.0.1", "rpc_port": 1});
    memory.keys.lock().insert("mooncake/rpc_meta/a".into(), json::write(&address).into_bytes());
    let own = Own { incarnation: "we".into(), descriptor: Arc::new(|| Value::Null) };
    let store = Keyed::asking(memory.clone(), 1, &Config::default(), own, Arc::new(OfAnother));
    run(async {
        let here = HostPort { host: "127.0.0.1".into(), port: 2 };
        let error = store.put_rpc_address("a", &here).await.unwrap_err();
        assert_eq!(error.kind(), Class::Rejected, "{error}");
        assert!(error.text().contains("in use"), "{error}");
    });
}
