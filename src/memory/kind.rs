//! What registered memory is: which processors and processes can reach it, and how.

use std::fmt;
use std::sync::Arc;

use super::shared::{self, SharedMemory};

/// The kind of a region's memory; decided once, when the region is registered.
// Nothing makes device memory so far.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub enum Kind {
    /// Memory of this process that any processor reads and writes.
    Host,
    /// The same, and other processes of this host can map it. It stays mapped here for as long as the kind is held.
    Shared(Arc<SharedMemory>),
    /// Memory of an accelerator.
    Device {
        /// The accelerator's number, as its driver counts.
        ordinal: u32,
    },
}

impl Kind {
    /// The one place that decides: memory of our own allocator is shared, all else is host memory so far. `location` (`cpu:0`,
    /// `*`, …) says where memory lies, not what it is.
    pub fn of(addr: u64, len: u64, _location: &str) -> Kind {
        shared::holding(addr, len).map_or(Kind::Host, Kind::Shared)
    }

    /// The allocation that others can map.
    pub fn shared(&self) -> Option<&Arc<SharedMemory>> {
        match self {
            Kind::Shared(memory) => Some(memory),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Host => f.write_str("host memory"),
            Kind::Shared(_) => f.write_str("shared memory of this host"),
            Kind::Device { ordinal } => write!(f, "memory of device {ordinal}"),
        }
    }
}
