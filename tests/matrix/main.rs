//! The fault matrix: what goes wrong, at which moment, over which transport. Each cell is a process that transfers to a peer's process,
//! and is judged alike: every task is terminal in time; what is COMPLETED has its bytes; a buffer whose task has ended is not touched any
//! more; errors say whose they are, and the metrics count them; after the fault is over transfers arrive again. `docs/src/faults.md` tells what becomes of the
//! transfers in each.

mod cells;
#[path = "../common/mod.rs"]
mod common;
mod flow;
#[path = "../transports/memory.rs"]
mod memory;
#[path = "../transports/node.rs"]
#[allow(dead_code)]
mod node;
mod page;
#[path = "../transports/pair.rs"]
#[allow(dead_code)]
mod pair;
#[path = "../transports/peer.rs"]
mod peer;
mod run;
#[path = "../transports/store.rs"]
mod store;
mod table;

use cells::{Fault, Moment};
use node::Kind;

/// A test of each cell, `transport::fault::…_while_…`, and the list of the page.
macro_rules! cells {
    ($list:ident { $($transport:ident: $kind:ident, $title:literal { $($fault:ident: $Fault:ident,)+ })+ }) => {
        #[cfg(feature = "rdma")]
        const $list: &[page::Block] = &[$((Kind::$kind, $title, &[$(Fault::$Fault),+]),)+];
        $(mod $transport { $(mod $fault {
            use super::super::{run, Fault, Kind, Moment};
            fn cell(moment: Moment, name: &str) {
                let fault = concat!(stringify!($transport), "::", stringify!($fault));
                run::test(Kind::$kind, Fault::$Fault, moment, &format!("{fault}::{name}"));
            }
            #[test]
            fn p02_p03_p04_p17_while_connecting() {
                cell(Moment::Connecting, "p02_p03_p04_p17_while_connecting");
            }
            #[test]
            fn p02_p03_p04_p17_while_writing() {
                cell(Moment::Writing, "p02_p03_p04_p17_while_writing");
            }
            #[test]
            fn p02_p03_p04_p17_while_reading() {
                cell(Moment::Reading, "p02_p03_p04_p17_while_reading");
            }
            #[test]
            fn p02_p03_p04_p17_while_idle() {
                cell(Moment::Idle, "p02_p03_p04_p17_while_idle");
            }
        })+ })+
    };
}

cells! { PLAIN {
    tcp: Tcp, "TCP" {
        killed: Killed, restarted: Restarted, stopped: Stopped, left: Left, unregistered_there: UnregisteredThere,
        unregistered_here: UnregisteredHere, unmapped_here: UnmappedHere,
    }
    tcp_nics: Nics, "TCP over two NICs" {
        killed: Killed, stopped: Stopped, nic_down: NicDown, dropped: Dropped,
    }
    shm: Shm, "Engines on one host" {
        killed: Killed, restarted: Restarted, stopped: Stopped, left: Left, unregistered_there: UnregisteredThere,
        unregistered_here: UnregisteredHere, unmapped_here: UnmappedHere,
    }
} }
#[cfg(feature = "rdma")]
cells! { RDMA {
    rdma: Rdma, "RDMA, one NIC on each side" {
        killed: Killed, restarted: Restarted, stopped: Stopped, left: Left, unregistered_there: UnregisteredThere,
        unregistered_here: UnregisteredHere, nic_down: NicDown,
    }
} }

#[test]
#[cfg(feature = "rdma")]
fn the_page_of_faults_says_what_the_tests_expect() {
    page::check(&[PLAIN, RDMA].concat());
}
