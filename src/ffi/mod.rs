//! The C ABI: pointers in, integer codes out, nothing decided here. `build.rs` generates the
//! headers from these files.
//!
//! The doc comments are the headers' text, so they have no `# Safety` sections. What every
//! function asks of its caller: strings are NUL-terminated, arrays hold as many entries as
//! the count says, out-parameters point to writable values. NULL is checked everywhere.

#![allow(unsafe_code, non_camel_case_types, non_snake_case, clippy::missing_safety_doc)]

pub mod access;
pub mod arrays;
pub mod batch;
pub mod create;
pub mod engine;
pub mod ext;
mod guard;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod pages;
pub mod peer;
pub mod report;
pub mod segment;
pub mod shared;
pub mod stats;
pub mod tokenspeed;
pub mod transfer;
pub mod types;
