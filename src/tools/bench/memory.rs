//! Memory that both sides of one host could map, and a window of plain memory through which its bytes are written and looked
//! at: a transfer inside the own segment copies between the two.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::engine::submit::Request;
use crate::engine::{shared, Engine};
use crate::error::Result;
use crate::memory::Range;

/// Bytes of the window. Chosen: large beside the cost of a transfer.
const WINDOW_BYTES: u64 = 1 << 20;
/// Bytes of a word.
const WORD: u64 = 8;
/// Segment id of the own segment.
const OWN: i32 = 0;

/// Words that differ from place to place and from pattern to pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern(pub u64);

impl Pattern {
    /// The word at byte `at`, a multiple of 8. Multiplying by an odd number gives no word twice.
    fn word(self, at: u64) -> u64 {
        (self.0 << 40).wrapping_add(at / WORD).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Registered memory. It is used by no transport any more once the engine was destroyed, which has to come first.
pub(super) struct Memory {
    addr: u64,
    window: Box<[AtomicU64]>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Only refused where nothing was allocated.
        let _ = shared::free_unasked(self.addr);
    }
}

#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

impl Memory {
    /// Registers `bytes`, for peers too if `remote`.
    pub(super) fn new(engine: &Engine, bytes: u64, remote: bool) -> Result<Self> {
        // Whole words, since they are copied.
        let len = bytes.next_multiple_of(WORD);
        let addr = engine.allocate_shared(len, 0, -1)?;
        let words = (WINDOW_BYTES.min(len) / WORD) as usize;
        let memory = Memory { addr, window: (0..words).map(|_| AtomicU64::new(0)).collect() };
        let shared = Range { addr, len: if remote { bytes } else { len } };
        engine.register(&[shared], "*", remote)?;
        let window = Range { addr: memory.window_addr(), len: words as u64 * WORD };
        engine.register(&[window], "*", false)?;
        Ok(memory)
    }

    /// The first byte.
    pub(super) fn addr(&self) -> u64 {
        self.addr
    }

    /// Writes the pattern to the first `bytes`.
    pub(super) fn fill(&self, engine: &Engine, bytes: u64, pattern: Pattern) -> Result<()> {
        for (at, len) in self.pieces(bytes) {
            let places = (at..).step_by(WORD as usize);
            self.window.iter().zip(places).for_each(|(word, at)| word.store(pattern.word(at), Relaxed));
            self.copy(engine, Way::Out, at, len)?;
        }
        Ok(())
    }

    /// The first of the first `bytes` that is not the pattern's.
    pub(super) fn first_difference(
        &self,
        engine: &Engine,
        bytes: u64,
        pattern: Pattern,
    ) -> Result<Option<u64>> {
        for (at, len) in self.pieces(bytes) {
            self.copy(engine, Way::In, at, len)?;
            for (word, place) in self.window.iter().zip((at..at + len).step_by(WORD as usize)) {
                let (found, wanted) = (word.load(Relaxed), pattern.word(place));
                if found == wanted {
                    continue;
                }
                let bytes = found.to_ne_bytes().into_iter().zip(wanted.to_ne_bytes());
                let here = bytes.zip(place..at + len).find(|((found, wanted), _)| found != wanted);
                if let Some((_, place)) = here {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }

    /// Start and length of each part of the first `bytes` that fits the window.
    fn pieces(&self, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
        let most = self.window.len() as u64 * WORD;
        (0..bytes).step_by(most as usize).map(move |at| (at, most.min(bytes - at)))
    }

    fn copy(&self, engine: &Engine, way: Way, at: u64, len: u64) -> Result<()> {
        let opcode = match way {
            Way::In => 0,
            Way::Out => 1,
        };
        let request =
            Request { opcode, source: self.window_addr(), target: OWN, offset: self.addr + at, len };
        engine.transfer(1, 0, |_| request, None, None)
    }

    fn window_addr(&self) -> u64 {
        self.window.as_ptr() as u64
    }
}
