//! What registered memory is: which processors and processes can reach it, and how.

use std::fmt;

/// The kind of a region's memory; decided once, when the region is registered.
// Host is the only one that is made so far.
#[allow(dead_code)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory of this process that any processor reads and writes.
    Host,
    /// Memory of this host that other processes map, too.
    Shared {
        /// The name under which they find it.
        name: String,
    },
    /// Memory of an accelerator.
    Device {
        /// The accelerator's number, as its driver counts.
        ordinal: u32,
    },
}

impl Kind {
    /// The one place that decides. Every region is host memory so far: nothing tells the engine of another kind, and
    /// `location` (`cpu:0`, `*`, …) says where memory lies, not what it is.
    pub fn of(_addr: u64, _len: u64, _location: &str) -> Kind {
        Kind::Host
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Host => f.write_str("host memory"),
            Kind::Shared { name } => write!(f, "shared memory '{name}'"),
            Kind::Device { ordinal } => write!(f, "memory of device {ordinal}"),
        }
    }
}
