//! Which NICs are near which memory: found in sysfs or given by the caller, and looked up when a transfer is cut.
//!
//! `discover` reads the machine into a `Matrix`; a `Selector` answers from a matrix without allocating.
//! Nothing here knows a transport, and nothing starts a thread.

mod devices;
pub mod discover;
pub mod location;
pub mod matrix;
pub mod order;
mod pages;
pub mod select;

pub use devices::{Nic, Root};
pub use discover::{survey, Filter};
pub use matrix::{Matrix, Row};
