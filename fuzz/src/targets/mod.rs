//! The fuzz targets: each is a function of bytes that panics where the library does not keep what it promises.

pub mod answers;
pub mod c_abi;
pub mod cluster_key;
pub mod data_port;
pub mod descriptor;
pub mod handshake;
pub mod handshake_port;
pub mod initiator;
mod input;
pub mod json;
mod memory;
pub mod names;
mod rig;
pub mod settings;
pub mod shm_port;
pub mod wire;

/// A target by its name, which is also that of its program and of its folder in the corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("answers", answers::run),
    ("c_abi", c_abi::run),
    ("cluster_key", cluster_key::run),
    ("data_port", data_port::run),
    ("descriptor", descriptor::run),
    ("handshake", handshake::run),
    ("handshake_port", handshake_port::run),
    ("initiator", initiator::run),
    ("json", json::run),
    ("names", names::run),
    ("settings", settings::run),
    ("shm_port", shm_port::run),
    ("wire", wire::run),
];
