//! What the program `mte` asks of the library: calls that block, and plain data. It changes with the program and is an
//! interface for nobody else.

mod bench;
mod guest;
mod ping;
mod segments;
mod settings;

/// Whether an event that a transport counts tells of trouble.
pub use crate::engine::metrics::tells_of_trouble;
/// The table of error codes.
pub use crate::error::codes::{Row as CodeRow, TABLE as CODES};
/// What the calls fail with.
pub use crate::error::{Code, Error, Result};
/// Status pages.
pub use crate::observe::page;
pub use bench::{Bench, Load, Measured, Op, Target};
pub use ping::{Pinger, Round};
pub use segments::{Seen, Watcher};

/// The NIC priority matrix that an engine created with `devices` would use here, as JSON text in upstream's form, and where
/// it comes from.
pub fn topology(devices: &str) -> Result<(String, &'static str)> {
    settings::settings();
    crate::engine::topology::of_machine(devices)
}
