//! Atomics and locks by the names that the code uses which `tests/models` checks: there, those of a model checker stand in for them.

pub use std::sync::{atomic, OnceLock};
pub use std::thread::yield_now;

pub use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};
