//! Words of this engine that peers read beside the bytes that they pull: the cell that holds the incarnation, and words that
//! say whether something is still valid (a region, a connection). A word keeps its address for as long as the transport lives,
//! and never holds the same number twice. The incarnation stands in front of each as well, so one read proves both.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::error::{Class, Code, Error, Result};
use crate::transport::incarnation;

/// Words made at once. Chosen: two pages of them.
const CHUNK: usize = 256;
/// Numbers of a word: the incarnation, its own, and one that is not used, so that none crosses a cache line.
const WIDTH: usize = 4;
/// The place of its own among them.
const NUMBER: usize = 2;

/// All words of an engine. Any thread.
pub(super) struct Board {
    cell: [AtomicU64; 2],
    id: [u64; 2],
    /// Guards which words are in use.
    words: Mutex<Words>,
}

struct Words {
    chunks: Vec<Box<[AtomicU64]>>,
    free: Vec<usize>,
    /// The number of the next word that is opened. Begins at random, so that memory which was a word once does not look
    /// like one by chance.
    next: u64,
    is_wiped: bool,
}

/// A word in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    index: usize,
    /// Where peers read it.
    pub addr: u64,
    /// What it holds while it is valid; not 0.
    pub number: u64,
}

impl Board {
    /// A board whose cell holds the incarnation.
    pub(super) fn new(id: &[u8; incarnation::LEN]) -> Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| {
            Error::new(Code::Socket, format!("no random numbers: {e}")).transient(Class::Resource)
        })?;
        let next = u64::from_le_bytes(random) >> 1 | 1;
        let words = Words { chunks: Vec::new(), free: Vec::new(), next, is_wiped: false };
        let id = numbers(id);
        Ok(Board { cell: id.map(AtomicU64::new), id, words: Mutex::new(words) })
    }

    /// Where peers read the incarnation.
    pub(super) fn cell(&self) -> u64 {
        self.cell.as_ptr() as u64
    }

    /// From now on nothing that peers pull counts.
    pub(super) fn wipe(&self) {
        let mut words = self.words.lock();
        words.is_wiped = true;
        let all = self.cell.iter().chain(words.chunks.iter().flat_map(|chunk| chunk.iter()));
        all.for_each(|number| number.store(0, SeqCst));
    }

    /// Opens a word. `ERR_MEMORY` if there is none left and no room for more.
    pub(super) fn open(&self) -> Result<Word> {
        let no_room = || Error::out_of_memory("a word for peers");
        let mut words = self.words.lock();
        if words.free.is_empty() {
            let first = words.chunks.len() * CHUNK;
            let mut chunk = Vec::new();
            // Room for all that there will be: giving a word back must not fail.
            let all = first + CHUNK;
            let fits = chunk.try_reserve_exact(CHUNK * WIDTH).is_ok()
                && words.chunks.try_reserve(1).is_ok()
                && words.free.try_reserve(all).is_ok();
            fits.then_some(()).ok_or_else(no_room)?;
            let [one, two] = self.id;
            chunk.extend([one, two, 0, 0].into_iter().cycle().take(CHUNK * WIDTH).map(AtomicU64::new));
            words.chunks.push(chunk.into_boxed_slice());
            words.free.extend((first..all).rev());
        }
        let index = words.free.pop().ok_or_else(no_room)?;
        let number = words.next;
        words.next += 1;
        let word = &words.chunks[index / CHUNK][index % CHUNK * WIDTH..][..WIDTH];
        if !words.is_wiped {
            word[NUMBER].store(number, SeqCst);
        }
        Ok(Word { index, addr: word.as_ptr() as u64, number })
    }

    /// The word is valid no more. Once only.
    pub(super) fn close(&self, word: Word) {
        let mut words = self.words.lock();
        words.chunks[word.index / CHUNK][word.index % CHUNK * WIDTH + NUMBER].store(0, SeqCst);
        words.free.push(word.index);
    }
}

/// An incarnation as the numbers that the cell holds.
pub(super) fn numbers(id: &[u8; incarnation::LEN]) -> [u64; 2] {
    let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| id[at + i]));
    [half(0), half(incarnation::LEN / 2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_used_again_with_another_number() {
        let board = Board::new(&[1; 16]).unwrap();
        let opened: Vec<_> = (0..CHUNK + 2).map(|_| board.open().unwrap()).collect();
        let mut addrs: Vec<_> = opened.iter().map(|word| word.addr).collect();
        addrs.sort_unstable();
        addrs.dedup();
        assert_eq!(addrs.len(), opened.len());
        board.close(opened[3]);
        let again = board.open().unwrap();
        assert_eq!(again.addr, opened[3].addr);
        assert!(opened.iter().all(|word| word.number != again.number));
    }
}
