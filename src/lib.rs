//! Moves batches of memory blocks between hosts behind Mooncake's transfer engine C ABI.
#![deny(unsafe_code)]

pub mod config;
pub mod error;
