//! The C ABI: pointers in, integer codes out, nothing decided here. `build.rs` generates the
//! headers from these files.

#![allow(unsafe_code, non_camel_case_types, non_snake_case)]

pub mod engine;
pub mod ext;
mod guard;
pub mod memory;
pub mod notify;
pub mod segment;
pub mod stats;
pub mod transfer;
pub mod types;
