//! The transport to upstream's segments in POSIX shared memory (`MC_FORCE_SHM` there). Each buffer is an object below `/dev/shm`
//! that the peer's process has mapped; this engine reads and writes the object, and never maps it: the peer may cut it off at
//! any time. As initiator only: nothing is published.

mod errors;
mod kernel;
mod link;
mod listening;
mod object;
mod offer;
mod picked;
mod process;
mod reached;
mod row;
mod shared;
mod transport;
mod watch;
mod worker;

pub use row::Row;
