//! Moves batches of memory blocks between hosts behind Mooncake's transfer engine C ABI.
#![deny(unsafe_code)]

pub mod config;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod handshake;
pub mod host_port;
pub mod json;
pub mod memory;
pub mod metadata;
pub mod observe;
pub mod runtime;
pub mod segment_desc;
pub mod topology;
pub mod transport;
