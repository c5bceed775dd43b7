//! The shared and the static library. Their functions are those that the crate's `ffi` exports; naming it links them.

extern crate transfer_engine;
