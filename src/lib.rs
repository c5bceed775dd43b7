//! Moves batches of memory blocks between hosts behind Mooncake's transfer engine C ABI.
//!
//! The surface is C: the functions that `include/` declares, in `libtransfer_engine.so` and `.a`. To Rust the crate is
//! closed, but for what `mte` needs; with the feature `internals`, which only this package's own tests and fuzz
//! targets turn on, every module is open.
//!
//! **Threads.** Every function may be called from any thread. An engine has a control thread, and each transport a few
//! of its own; they end with `destroyTransferEngine`. **Clean-up.** The library is never unloaded (`-z nodelete`),
//! installs no handlers, and leaves no thread behind that touches a destroyed engine. **Features.** `rdma` and `etcd`,
//! both on; without them the build needs neither libclang nor protoc. **Safety.** `unsafe` stands only where
//! ARCHITECTURE.md lists it; no address of a caller or a peer is dereferenced, and no panic leaves an exported
//! function.
#![deny(unsafe_code)]
// The crate is closed: what is `pub` is meant, and nothing is kept that nobody uses.
#![deny(dead_code, unreachable_pub)]
// Without `internals` only the C surface can be reached; items that tests look into are `pub` all the same.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]
// A build without a feature does not use all that the lower layers offer.
#![cfg_attr(not(feature = "default"), allow(dead_code))]

#[cfg(not(feature = "internals"))]
mod cluster_key;
#[cfg(not(feature = "internals"))]
mod config;
#[cfg(not(feature = "internals"))]
mod engine;
#[cfg(not(feature = "internals"))]
mod error;
#[cfg(not(feature = "internals"))]
mod ffi;
#[cfg(not(feature = "internals"))]
mod handshake;
#[cfg(not(feature = "internals"))]
mod host_port;
#[cfg(not(feature = "internals"))]
mod json;
#[cfg(not(feature = "internals"))]
mod memory;
#[cfg(not(feature = "internals"))]
mod metadata;
#[cfg(not(feature = "internals"))]
mod observe;
#[cfg(not(feature = "internals"))]
mod runtime;
#[cfg(not(feature = "internals"))]
mod segment_desc;
#[cfg(not(feature = "internals"))]
mod tls;
#[cfg(not(feature = "internals"))]
mod topology;
#[cfg(not(feature = "internals"))]
mod transport;

#[cfg(feature = "internals")]
pub mod cluster_key;
#[cfg(feature = "internals")]
pub mod config;
#[cfg(feature = "internals")]
pub mod engine;
#[cfg(feature = "internals")]
pub mod error;
#[cfg(feature = "internals")]
pub mod ffi;
#[cfg(feature = "internals")]
pub mod handshake;
#[cfg(feature = "internals")]
pub mod host_port;
#[cfg(feature = "internals")]
pub mod json;
#[cfg(feature = "internals")]
pub mod memory;
#[cfg(feature = "internals")]
pub mod metadata;
#[cfg(feature = "internals")]
pub mod observe;
#[cfg(feature = "internals")]
pub mod runtime;
#[cfg(feature = "internals")]
pub mod segment_desc;
#[cfg(feature = "internals")]
pub mod tls;
#[cfg(feature = "internals")]
pub mod topology;
#[cfg(feature = "internals")]
pub mod transport;

#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod tools;

/// Descriptors that this process may have open at once.
pub use runtime::descriptors::limit as descriptor_limit;

/// The token that HTTP stores ask for, by the environment.
pub fn http_token() -> Option<String> {
    config::Config::from_env().0.metadata_http_token.map(|token| token.0)
}

/// Header by which HTTP stores are told how long a key lives, and the path of the keys that our own one has.
pub use metadata::{EXPIRE_HEADER, KEYS_PATH};

#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
pub(crate) mod sim;
