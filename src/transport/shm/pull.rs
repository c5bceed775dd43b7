//! Reading bytes of a peer into memory of ours, and whether they count: each read ends with words of the peer that say so, in the
//! same call, which the kernel makes against one process from beginning to end. So neither a number that another process got, nor
//! a program that the peer has become, passes for it.

use super::kernel::{Pieces, MOST_PIECES};

/// Pieces of a read that is short.
const FEW_PIECES: usize = 8;

/// Words beside a read.
const MOST_CHECKS: usize = 8;
/// Pieces of one read that are bytes to be pulled.
pub(super) const MOST_PULLS: usize = MOST_PIECES - MOST_CHECKS - 1;
/// Bytes of the room in which a source is looked at that could not be read.
const SCRATCH: usize = 64 << 10;

/// A peer's process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// Its number here.
    pub pid: i32,
    /// Where its incarnation is, and what it is.
    pub cell: u64,
    /// The incarnation.
    pub id: [u64; 2],
}

/// Bytes to be pulled: where they are there, where they go here, how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    pub from: u64,
    pub to: u64,
    pub len: u64,
}

/// Where a word of the peer's is, behind its incarnation ([`super::board`]), and what it has to hold.
pub(super) type Check = (u64, u64);

/// Numbers that are read of a word: the incarnation and its own.
const WORD: usize = 3;

/// Why bytes did not come, or do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// A word of the peer's holds something else.
    Stale,
    /// The process is not there or not the peer, or its memory must not be read: errno, if one tells.
    Gone(i32),
    /// The peer's range is not mapped.
    Theirs,
    /// Our range is not mapped.
    Ours,
}

/// Whether the process is the peer and all of `checks` hold.
pub(super) fn verify(source: &Source, checks: &[Check]) -> Result<(), Loss> {
    read(source, &[], checks)
}

/// Pulls all of `pulls`, at most [`MOST_PULLS`], which count if all of `checks` hold afterwards. Some may have come, whatever it
/// returns.
pub(super) fn pull(source: &Source, pulls: &[Pull], checks: &[Check]) -> Result<(), Loss> {
    match read(source, pulls, checks) {
        // Whose fault it is is looked at below.
        Err(Loss::Theirs) => {}
        outcome => return outcome,
    }
    for pull in pulls {
        match read(source, std::slice::from_ref(pull), checks) {
            Err(Loss::Theirs) => {
                verify(source, checks)?;
                return Err(if can_be_read(source, pull) { Loss::Ours } else { Loss::Theirs });
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Pulls all of `pulls`, without a look at words: of a peer that was known a moment ago, and whose page says afterwards that they
/// count. `false`: not all have come, and [`pull`] says why.
pub(super) fn pull_unproven(source: &Source, pulls: &[Pull]) -> bool {
    match pulls.len() <= FEW_PIECES {
        true => read_pieces::<FEW_PIECES>(source, pulls),
        false => read_pieces::<MOST_PIECES>(source, pulls),
    }
}

fn read_pieces<const N: usize>(source: &Source, pulls: &[Pull]) -> bool {
    let mut pieces = Pieces::<N>::new();
    pulls.iter().for_each(|pull| pieces.push(pull.from, pull.to, pull.len));
    pieces.read(source.pid).is_ok_and(|bytes| bytes == pieces.bytes())
}

/// A read that ends early is [`Loss::Theirs`], whosever fault it is.
fn read(source: &Source, pulls: &[Pull], checks: &[Check]) -> Result<(), Loss> {
    // Most have one piece, and a long list takes time to be made.
    match pulls.len() + checks.len() < FEW_PIECES {
        true => read_by::<FEW_PIECES>(source, pulls, checks),
        false => read_by::<MOST_PIECES>(source, pulls, checks),
    }
}

fn read_by<const N: usize>(source: &Source, pulls: &[Pull], checks: &[Check]) -> Result<(), Loss> {
    debug_assert!(pulls.len() + checks.len() < N && checks.len() <= MOST_CHECKS);
    let mut pieces = Pieces::<N>::new();
    pulls.iter().for_each(|pull| pieces.push(pull.from, pull.to, pull.len));
    let mut words = [[0u64; WORD]; MOST_CHECKS];
    for ((addr, _), word) in checks.iter().zip(&mut words) {
        pieces.push(*addr, word.as_mut_ptr() as u64, 8 * WORD as u64);
    }
    if checks.is_empty() {
        pieces.push(source.cell, words[0].as_mut_ptr() as u64, 16);
    }
    match pieces.read(source.pid) {
        Ok(bytes) if bytes == pieces.bytes() => {}
        Err(error) if error.raw_os_error() != Some(libc::EFAULT) => {
            return Err(Loss::Gone(error.raw_os_error().unwrap_or(0)));
        }
        _ => return Err(if pulls.is_empty() { Loss::Gone(libc::EFAULT) } else { Loss::Theirs }),
    }
    // The kernel has written them.
    let words = std::hint::black_box(words);
    if words[..checks.len().max(1)].iter().any(|word| word[..2] != source.id) {
        return Err(Loss::Gone(0));
    }
    match checks.iter().zip(&words).all(|((_, expected), word)| *expected == word[2]) {
        true => Ok(()),
        false => Err(Loss::Stale),
    }
}

/// Whether the peer's range is mapped, by reading it to where nobody looks at it.
fn can_be_read(source: &Source, pull: &Pull) -> bool {
    let mut scratch = Vec::new();
    if scratch.try_reserve_exact(SCRATCH).is_err() {
        return false;
    }
    scratch.resize(SCRATCH, 0u8);
    let mut done = 0;
    while done < pull.len {
        let len = (SCRATCH as u64).min(pull.len - done);
        let mut pieces = Pieces::<1>::new();
        pieces.push(pull.from + done, scratch.as_mut_ptr() as u64, len);
        if !pieces.read(source.pid).is_ok_and(|bytes| bytes == len) {
            return false;
        }
        done += len;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    #[test]
    fn bytes_count_only_if_the_words_hold() {
        let cell = [AtomicU64::new(5), AtomicU64::new(6)];
        let word = [5, 6, 7].map(AtomicU64::new);
        let own = std::process::id() as i32;
        let source = Source { pid: own, cell: cell.as_ptr() as u64, id: [5, 6] };
        let check = [(word.as_ptr() as u64, 7)];
        let (from, mut to) = ([9u8; 100], [0u8; 100]);
        let fits = Pull { from: from.as_ptr() as u64, to: to.as_mut_ptr() as u64, len: 100 };
        let several = [fits; MOST_PULLS];
        assert_eq!(pull(&source, &several, &check), Ok(()));
        assert!(std::hint::black_box(to) == from);
        for (pulls, expected) in
            [([fits, Pull { from: 8, ..fits }], Loss::Theirs), ([fits, Pull { to: 8, ..fits }], Loss::Ours)]
        {
            assert_eq!(pull(&source, &pulls, &check), Err(expected));
        }
        to = [0; 100];
        assert!(pull_unproven(&source, &[fits]) && pull_unproven(&source, &several));
        assert!(std::hint::black_box(to) == from);
        assert!(!pull_unproven(&source, &[fits, Pull { from: 8, ..fits }]));
        word[2].store(8, SeqCst);
        assert_eq!(pull(&source, &[fits], &check), Err(Loss::Stale));
        assert_eq!(pull(&Source { id: [5, 7], ..source }, &[fits], &check), Err(Loss::Gone(0)));
        assert_eq!(pull(&Source { id: [5, 7], ..source }, &[fits], &[]), Err(Loss::Gone(0)));
        assert_eq!(pull(&source, &[fits], &[]), Ok(()));
        assert_eq!(verify(&Source { cell: 8, ..source }, &[]), Err(Loss::Gone(libc::EFAULT)));
        assert_eq!(verify(&Source { pid: i32::MAX, ..source }, &[]), Err(Loss::Gone(libc::ESRCH)));
    }
}
