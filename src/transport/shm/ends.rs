//! How single slices end.

use std::collections::VecDeque;

use super::awaited::Awaited;
use super::errors;
use super::wire::End;
use crate::error::Error;
use crate::transport::slice::{canceled, Slice};

/// Ends a WRITE as the peer says.
pub(super) fn finish(awaited: Option<Awaited>, end: End, now_ns: u64, peer: &str) {
    let slice = match awaited {
        None => return,
        Some(Awaited::Trail(trail)) => return trail.end(),
        Some(Awaited::Write(slice)) => slice,
        Some(Awaited::Withdrawn(slice, _)) if end == End::Applied => slice,
        Some(Awaited::Withdrawn(slice, _)) => return fail_unwanted(slice),
    };
    match end {
        End::Applied => slice.complete(now_ns),
        End::Refused => {
            let error = errors::refused(&slice, peer);
            slice.fail(error);
        }
        End::SourceFault => {
            let error = errors::unmapped_here(&slice);
            slice.fail(error);
        }
        End::TargetFault => {
            let error = errors::unmapped_there(&slice, peer);
            slice.fail(error);
        }
        // Nobody has withdrawn it.
        End::Withdrawn => slice.fail(errors::hung_up(peer)),
    }
}

/// Ends a slice that nobody wants moved any more.
pub(super) fn fail_unwanted(slice: Slice) {
    match slice.is_revoked() {
        true => slice.fail_revoked(),
        false => slice.fail(canceled()),
    }
}

/// `None`: it was not wanted any more, and has ended.
pub(super) fn unless_unwanted(slice: Slice) -> Option<Slice> {
    if slice.is_revoked() || slice.is_given_up() {
        fail_unwanted(slice);
        return None;
    }
    Some(slice)
}

/// Fails what is not to be kept.
pub(super) fn retain<T>(
    list: &mut VecDeque<T>,
    slice: impl Fn(T) -> Slice,
    keep: impl Fn(&T) -> bool,
    why: &Error,
) {
    for _ in 0..list.len() {
        let Some(one) = list.pop_front() else { return };
        match keep(&one) {
            // There is room: one was just taken out.
            true => list.push_back(one),
            false => slice(one).fail(why.clone()),
        }
    }
}
