//! Sources of the engine in which threads meet, as they are, under a model checker: [`sync`] stands in for their atomics and locks.
//!
//! The modules are where they are in the engine, so that their paths hold. Types that they
//! only pass on are empty here.
//! Each model is a function that checks every execution of two or three threads with a few forced switches ([`check`]); `tests/models/tests/models.rs`
//! runs them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::new_without_default)]

pub use top::error;

/// The registry as it is, over pages that are a model's.
pub mod memory {
    pub use crate::pages as shared;
    pub use crate::top::memory::*;
}

#[path = "../../../src"]
mod top {
    pub mod error;
    pub mod memory;
}

pub mod handshake {
    /// Nothing is sent in a model.
    pub struct Notification;
}

#[path = "../../../src/runtime"]
pub mod runtime {
    pub mod clock;
    pub mod descriptors;
    pub mod fork;
    pub mod gate;
    pub mod per_process;

    /// Time passes whenever somebody looks, so that an execution is the same whenever it is repeated.
    pub mod instant {
        use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
        use std::sync::LazyLock;
        use std::time::{Duration, Instant};

        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        static LOOKS: AtomicU64 = AtomicU64::new(0);

        pub fn now() -> Instant {
            *START + Duration::from_nanos(LOOKS.fetch_add(1, SeqCst))
        }
    }

    pub mod slots;
    pub mod tracked;
    pub mod wakeup;

    pub use crate::sync;
}

pub mod sync;

#[path = "../../../src/transport"]
pub mod transport {
    pub mod slice;

    /// As much of it as batches ask for.
    pub trait Link: Send + Sync {
        fn poll(&self) -> bool;
        fn rely_on_threads(&self) {}
        fn give_up(&self) {}
        fn poller(&self) -> usize {
            0
        }
    }

    pub mod rdma {
        mod attention;
        mod credit;
        #[path = "../../../tests/models/src/rdma.rs"]
        pub mod models;
    }

    pub mod shm {
        mod kernel {
            pub(super) use crate::pages::*;
        }
        #[path = "../../../tests/models/src/ring.rs"]
        pub mod models;
        mod ring;
        mod wire;
    }
}

#[path = "../../../src/engine"]
pub mod engine {
    pub mod batch;
    mod deliveries;

    pub mod segment {
        #[path = "../../../tests/models/src/turns.rs"]
        pub mod models;
        mod turns;

        /// Only kept by batches.
        pub struct Segment;
    }

    #[path = "../../tests/models/src/batch.rs"]
    pub mod models;
}

pub mod check;
pub mod pages;
pub mod regions;
pub mod slices;
pub mod slots;
