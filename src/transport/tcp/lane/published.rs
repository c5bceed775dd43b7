//! What other threads read of a lane without its lock: hints for choosing a lane, and for leaving one alone.

use std::sync::atomic::{AtomicU64, AtomicU8, AtomicUsize, Ordering::Relaxed};

use super::super::pipeline::Pipeline;
use super::machine::Stage;

/// Written under the lane's lock. Relaxed: nothing is reached through these numbers, and whoever acts on one that has
/// changed since only chooses worse, or takes the lock in vain.
pub(in super::super) struct Published {
    /// Requests on the lane.
    pending: AtomicUsize,
    /// Payload bytes of those requests.
    load: AtomicU64,
    /// A `Stage`.
    stage: AtomicU8,
}

impl Default for Published {
    fn default() -> Self {
        Published {
            pending: AtomicUsize::new(0),
            load: AtomicU64::new(0),
            stage: AtomicU8::new(Stage::Down as u8),
        }
    }
}

impl Published {
    /// Publishes what there is now.
    pub(super) fn update(&self, stage: Stage, pipeline: &Pipeline) {
        self.pending.store(pipeline.len(), Relaxed);
        self.load.store(pipeline.load_bytes(), Relaxed);
        self.stage.store(stage as u8, Relaxed);
    }

    /// Anything waiting or under way.
    pub(in super::super) fn is_busy(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Requests on the lane.
    pub(in super::super) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// Payload bytes waiting or under way.
    pub(in super::super) fn load(&self) -> u64 {
        self.load.load(Relaxed)
    }

    /// A connection is there.
    pub(in super::super) fn is_up(&self) -> bool {
        self.stage.load(Relaxed) == Stage::Up as u8
    }

    /// A connection is there or being made.
    pub(in super::super) fn is_rising(&self) -> bool {
        self.stage.load(Relaxed) != Stage::Down as u8
    }
}
