//! The time that deadlines and ages are counted by. A simulation stops the clock of its event loop, and this is the clock it stops.

use std::time::Instant;

/// Now: what [`Instant::now`] says, or the simulated clock's time inside an event loop whose clock is stopped.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
