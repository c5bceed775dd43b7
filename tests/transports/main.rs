//! One suite over every transport: the same cases over TCP, RDMA on the simulated libibverbs, the own segment, and a
//! transport that exists for tests only. What only one of them does is tested beside it.

#[path = "../common/mod.rs"]
mod common;
mod suite;

use suite::{Kind, CASES};

/// Runs every case of the suite.
fn run(kind: Kind) {
    for (name, case) in CASES {
        println!("{kind:?}: {name}");
        case(kind);
    }
}

#[test]
fn over_tcp() {
    run(Kind::Tcp);
}

#[test]
fn over_the_own_segment() {
    run(Kind::Own);
}

#[test]
fn over_a_transport_that_is_one_file_and_one_row() {
    run(Kind::Echo);
}

#[test]
#[cfg(feature = "rdma")]
fn over_rdma() {
    let registry = format!("te-suite-{}", std::process::id());
    let environment =
        [("SIMVERBS_DEVICES", "sim0,sim1"), ("SIMVERBS_QUIET", "1"), ("SIMVERBS_SHM", registry.as_str())];
    if !common::in_simverbs("over_rdma", &environment) {
        run(Kind::Rdma);
    }
}
