//! The cases. Each makes its own engines and runs in a process of its own, so none depends on another.

mod ends;
mod returns;
mod transfers;
#[cfg(feature = "rdma")]
mod preference;

pub use ends::*;
#[cfg(feature = "rdma")]

pub use returns::*;
pub use transfers::*;
