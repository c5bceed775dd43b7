//! What the programs in `fuzz_targets` run on each input. `tests/fuzz.rs` runs the same on the corpus.

pub mod targets;
