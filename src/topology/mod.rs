//! Which NICs are near which memory.

pub mod matrix;

pub use matrix::Matrix;
