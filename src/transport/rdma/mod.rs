//! The RDMA transport: one-sided reads and writes over all NICs of the host.
//!
//! A slice is posted on a *rail* (local NIC, peer's NIC) by the thread that submits it, and retired by whoever polls.
//! Rails connect on first use, pause after a failure and prove themselves before they carry data again.

mod accept;
mod affinity;
mod attention;
mod completions;
mod connect;
mod connection;
mod credit;
mod destroyer;
mod errors;
mod fence;
mod flight;
#[cfg(feature = "internals")]
pub mod fuzz;
mod gid;
mod gid_choice;
pub mod gid_table;
mod inbox;
mod judge;
mod link;
mod memory;
mod nic;
mod offer;
mod origin;
mod outside;
mod peer;
mod places;
mod progress;
mod queue;
mod rail;
mod rails;
mod reap;
mod recover;
mod refusal;
mod report;
mod route;
mod row;
mod setup;
mod share;
mod shared;
mod spread;
mod stats;
mod transport;
mod upcalls;
pub mod verbs;

pub use row::Row;
