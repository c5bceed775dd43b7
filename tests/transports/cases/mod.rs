//! The cases. Each makes its own engines and runs in a process of its own, so none depends on another.

mod ends;
mod given_up;
#[cfg(feature = "rdma")]
mod preference;
mod returns;
mod transfers;

pub use ends::*;
pub use given_up::*;
#[cfg(feature = "rdma")]
pub use preference::*;
pub use returns::*;
pub use transfers::*;
