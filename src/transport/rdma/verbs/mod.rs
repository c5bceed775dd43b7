//! Owning wrappers of libibverbs objects. The library is found when it is first needed, never by the linker: a host
//! without it loads us all the same.
//!
//! Thread safety: every object may be used from any thread; libibverbs takes its own locks.
//! Resource clean-up: each object keeps what it was made from, so they are released in the right order whoever drops
//! which one first. A refused release is logged at debug level and leaves the object to the end of the process.
// Wrapped and tested as a whole; the transport uses a part of it.
#![cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]

mod context;
mod cq;
mod devices;
mod event;
mod library;
mod memory;
mod port;
mod qp;
mod recv;
pub mod wc;
mod wr;

pub use context::{Attributes, Context};
pub use cq::{Channel, Cq};
pub use devices::device_names;
pub use event::AsyncEvent;
pub use library::load;
pub use memory::{Access, Mr, Pd};
pub use port::{sysfs_gid, GidEntry, GidKind, Port, PortState};
pub use qp::{Caps, Path, Qp};
pub use recv::Receiver;
pub use wc::{wc_status_text, Wc};
pub use wr::{Chain, PostError, Wr};
