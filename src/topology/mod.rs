//! Which NICs are near which memory.

pub mod discover;
pub mod matrix;

pub use matrix::Matrix;
