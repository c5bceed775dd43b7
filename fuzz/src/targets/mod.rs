//! The fuzz targets: each is a function of bytes that panics where the library does not keep what it promises.

pub mod descriptor;
pub mod handshake;
pub mod json;
mod memory;

/// A target by its name, which is also that of its program and of its folder in the corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] =
    &[("descriptor", descriptor::run), ("handshake", handshake::run), ("json", json::run)];
