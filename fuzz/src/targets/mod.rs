//! The fuzz targets: each is a function of bytes that panics where the library does not keep what it promises.

pub mod c_abi;
pub mod descriptor;
pub mod handshake;
mod input;
pub mod json;
mod memory;
pub mod names;
pub mod settings;
pub mod wire;

/// A target by its name, which is also that of its program and of its folder in the corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("c_abi", c_abi::run),
    ("descriptor", descriptor::run),
    ("handshake", handshake::run),
    ("json", json::run),
    ("names", names::run),
    ("settings", settings::run),
    ("wire", wire::run),
];
