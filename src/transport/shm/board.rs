//! Words of this engine that peers read beside the bytes that they pull: the cell that holds the incarnation, and words that
//! say whether something is still valid (a region, a connection). A word keeps its address for as long as the transport lives,
//! and never holds the same number twice.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::error::{Class, Code, Error, Result};
use crate::transport::incarnation;

/// Words made at once. Chosen: a page of them.
const CHUNK: usize = 512;

/// All words of an engine. Any thread.
pub(super) struct Board {
    cell: [AtomicU64; 2],
    /// Guards which words are in use.
    words: Mutex<Words>,
}

struct Words {
    chunks: Vec<Box<[AtomicU64]>>,
    free: Vec<usize>,
    /// The number of the next word that is opened. Begins at random, so that memory which was a word once does not look
    /// like one by chance.
    next: u64,
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
        let cell = numbers(id).map(AtomicU64::new);
        let words = Words { chunks: Vec::new(), free: Vec::new(), next: u64::from_le_bytes(random) >> 1 | 1 };
        Ok(Board { cell, words: Mutex::new(words) })
    }

    /// Where peers read the incarnation.
    pub(super) fn cell(&self) -> u64 {
        self.cell.as_ptr() as u64
    }

    /// From now on nothing that peers pull counts.
    pub(super) fn wipe(&self) {
        self.cell.iter().for_each(|word| word.store(0, SeqCst));
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
            let fits = chunk.try_reserve_exact(CHUNK).is_ok()
                && words.chunks.try_reserve(1).is_ok()
                && words.free.try_reserve(all).is_ok();
            fits.then_some(()).ok_or_else(no_room)?;
            chunk.extend((0..CHUNK).map(|_| AtomicU64::new(0)));
            words.chunks.push(chunk.into_boxed_slice());
            words.free.extend((first..all).rev());
        }
        let index = words.free.pop().ok_or_else(no_room)?;
        let number = words.next;
        words.next += 1;
        let word = &words.chunks[index / CHUNK][index % CHUNK];
        word.store(number, SeqCst);
        Ok(Word { index, addr: word.as_ptr() as u64, number })
    }

    /// The word is valid no more. Once only.
    pub(super) fn close(&self, word: Word) {
        let mut words = self.words.lock();
        words.chunks[word.index / CHUNK][word.index % CHUNK].store(0, SeqCst);
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
