//! Models of the turns in which descriptors are read again.

use std::sync::Arc;

use loom::thread;

use super::turns::Turns;
use crate::check::each_execution;
use crate::sync::Mutex;

/// What a peer publishes, what was last read of it, and how often. Behind locks, because whoever asks a peer hears what is so at
/// that moment, which loads of atomics do not promise.
#[derive(Default)]
struct Descriptor {
    published: Mutex<u32>,
    read: Mutex<u32>,
    readings: Mutex<usize>,
}

impl Descriptor {
    /// As an exchange with the peer: it asks, and what it has heard is kept a moment later.
    fn read(&self) {
        let heard = *self.published.lock();
        *self.readings.lock() += 1;
        *self.read.lock() = heard;
    }
}

/// Whoever knows of a range that a peer has registered finds it after its turn, whoever reads at that time: a reading that began
/// before it asked may have missed it.
pub fn p07_a_turn_shows_what_was_published_before_it() {
    each_execution(3, || {
        let shared = Arc::new((Turns::default(), Descriptor::default()));
        let theirs = shared.clone();
        let other = thread::spawn(move || theirs.0.take(|| theirs.1.read()));
        let (turns, descriptor) = &*shared;
        *descriptor.published.lock() = 1;
        turns.take(|| descriptor.read());
        assert_eq!(*descriptor.read.lock(), 1, "the reading began before the change");
        other.join().unwrap();
    });
}

/// One reading at a time, and nobody waits for a turn that nobody ends: the checker reports whoever waits for ever.
pub fn one_reads_at_a_time_and_each_turn_ends() {
    each_execution(2, || {
        let shared = Arc::new((Turns::default(), Descriptor::default(), Mutex::new(false)));
        let take = |shared: &(Turns, Descriptor, Mutex<bool>)| {
            let (turns, descriptor, reads) = shared;
            turns.take(|| {
                assert!(!std::mem::replace(&mut *reads.lock(), true), "two readings at once");
                descriptor.read();
                *reads.lock() = false;
            });
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let theirs = shared.clone();
                thread::spawn(move || take(&theirs))
            })
            .collect();
        take(&shared);
        others.into_iter().for_each(|other| other.join().unwrap());
        let readings = *shared.1.readings.lock();
        assert!((1..=3).contains(&readings), "{readings}");
    });
}
