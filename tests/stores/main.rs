//! Metadata stores, against real servers that the tests start: one suite over all of them, then what is special to each.
//!
//! Settings come from the environment, so each test runs in a process of its own.

mod bind;
#[path = "../common/mod.rs"]
mod common;
mod interop;
mod node;
mod outages;
#[cfg(feature = "rdma")]
mod rdma;
mod security;
// tests/c_abi.rs uses it too.
#[allow(dead_code)]
mod servers;
mod special;
mod suite;

use common::in_child;
use servers::{Kind, Server};

/// What every test here runs with: short lives, so that expiry can be waited for.
const SETTINGS: &[(&str, &str)] = &[
    ("MC_TCP_BIND_ADDRESS", "127.0.0.1"),
    ("MC_METADATA_TTL_SEC", "2"),
    ("MC_METADATA_TIMEOUT_MS", "3000"),
    ("MC_METADATA_REVALIDATE_MS", "200"),
    ("MC_LOG_LEVEL", "WARNING"),
];

/// Runs `case` against a fresh server, in a process with more settings.
fn alone(name: &str, kind: Kind, more: &[(&str, &str)], case: fn(Server)) {
    let settings: Vec<_> = SETTINGS.iter().chain(more).copied().collect();
    if !in_child(name, &settings) {
        case(Server::start(kind));
    }
}

/// Every case of the suite over every store.
macro_rules! suite {
    ($($case:ident $($setting:expr)?;)*) => {
        suite! { @store etcd Etcd: $($case $($setting)?;)* }
        suite! { @store redis Redis: $($case $($setting)?;)* }
        suite! { @store mte_server Mte: $($case $($setting)?;)* }
        suite! { @store wheels_server Wheel: $($case $($setting)?;)* }
    };
    (@store $module:ident $kind:ident: $($case:ident $($setting:expr)?;)*) => {
        mod $module {
            use super::*;
            $(#[test] fn $case() {
                let name = concat!(stringify!($module), "::", stringify!($case));
                alone(name, Kind::$kind, &[$($setting)?], suite::$case);
            })*
        }
    };
}

suite! {
    keys_come_and_go_with_the_engine;
    keys_carry_the_cluster ("MC_METADATA_CLUSTER_ID", "team-a");
    bytes_and_notifications_reach_the_peer;
    p07_a_living_engine_keeps_its_name;
    p07_a_dead_engines_name_is_taken_over;
    a_strict_setting_keeps_even_dead_names ("MC_METADATA_TAKE_OVER", "0");
    p07_a_killed_engines_keys_expire ("MC_METADATA_TTL_SEC", "4");
    p07_keys_come_back_after_a_wipe;
    a_dead_store_refuses_registrations_and_keeps_transfers_going;
    a_peer_that_restarts_is_found_again;
    changes_of_a_peer_are_heard_of;
    malformed_descriptors_are_refused_and_not_cached;
}

/// Not a test by itself: an engine that the test above kills.
#[test]
fn an_engine_to_be_killed() {
    suite::be_killed();
}
