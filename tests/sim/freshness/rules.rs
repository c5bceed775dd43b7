//! What may be believed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::door::{edition, Door};
use super::engine::{Engine, OPEN_AGE};
use super::shelf::Kind;
use crate::engine::segment::table::Found;
use crate::engine::segment::Segment;

/// For so long after a reading that failed openings may do without one: four times what an opener waits.
const REST: Duration = Duration::from_millis(4_100);

/// The last reading that had begun when somebody found that the owner does not answer, if nothing was read since.
pub(super) fn suspicion(door: &Door) -> Option<u64> {
    let seen = door.seen.lock();
    (seen.suspected > 0 && seen.suspected >= seen.taken).then_some(seen.suspected)
}

/// What is believed can be judged by when it was true: nobody has told us something old, and the store counts as we think.
fn is_honest(door: &Door) -> bool {
    let is_old = door.seen.lock().best.is_some_and(|best| best.is_old);
    !is_old && !door.is_outdated()
}

fn failed_since(door: &Door, then: Instant) -> bool {
    door.seen.lock().failed.is_some_and(|failed| failed >= then)
}

/// The rule of what is asked for: it is as new as the call.
pub(super) fn check_asked(segment: &Arc<Segment>, door: &Door, asked: Instant, what: &str) {
    if !is_honest(door) {
        return;
    }
    let shelf = &mut *door.shelf.lock();
    let known = edition(&segment.known());
    if !shelf.was_true(known, asked) {
        let (asked, until) = (shelf.at(asked), shelf.editions[known].until.map(|until| shelf.at(until)));
        shelf.breaks(format!(
            "{what} at {asked:?} believes {known} of peer {}, over since {until:?}",
            door.peer
        ));
    }
}

/// The same for a call that goes on with what there is if nobody answers.
pub(super) fn check_asked_unless_failed(segment: &Arc<Segment>, door: &Door, asked: Instant, what: &str) {
    if !failed_since(door, asked) {
        check_asked(segment, door, asked, what);
    }
}

/// The rules of age and of suspicion, for a segment that was open when it was opened at `asked`; `suspicion` as it was then.
pub(super) fn check_opened(segment: &Arc<Segment>, door: &Door, asked: Instant, suspicion: Option<u64>) {
    if failed_since(door, asked.checked_sub(REST).unwrap_or(asked)) {
        return;
    }
    if let Some(suspected) = suspicion {
        let answered = door.seen.lock().answered;
        // The simulated clock counts milliseconds: what began in the same one counts as later.
        let is_asked = answered.is_some_and(|(reading, began)| reading > suspected || began >= asked);
        if !is_asked && !door.is_outdated() {
            let asked = door.shelf.lock().at(asked);
            let text = format!(
                "opening peer {} at {asked:?} asked nobody, though its owner did not answer",
                door.peer
            );
            door.shelf.lock().breaks(text);
        }
    }
    let is_told = door.shelf.lock().kind == Kind::Telling || door.link.leads_to().is_some();
    if !is_told {
        check_asked(
            segment,
            door,
            asked.checked_sub(OPEN_AGE).unwrap_or(asked),
            "openSegment of an open one",
        );
    }
}

/// The rules of order and of handles, at any time.
pub(super) fn check(engine: &Engine) {
    let doors = engine.doors.lock();
    for (segment, door) in doors.iter() {
        let Some(segment) = segment.upgrade() else { continue };
        let known = edition(&segment.known());
        let best = door.seen.lock().best;
        if best.is_some_and(|best| best.edition != known) {
            let text = format!("peer {}: {known} is believed, and the best answer is {best:?}", door.peer);
            door.shelf.lock().breaks(text);
        }
    }
    for (peer, id) in engine.ids.lock().iter().enumerate() {
        let Some(id) = id else { continue };
        let is_there = engine.segments.name_of(*id).is_some_and(|name| name == super::door::name(peer));
        if !is_there {
            engine.shelf.lock().breaks(format!("id {id} does not mean peer {peer} any more"));
        }
    }
    let broken = engine.shelf.lock().broken.take();
    if let Some(text) = broken {
        panic!("{text}");
    }
}

/// The id that opening a name has brought.
pub(super) fn note_id(engine: &Engine, peer: usize, id: i32) {
    if engine.segments.name_of(id).is_none() {
        // Removed while it was opened.
        return;
    }
    let mut ids = engine.ids.lock();
    let mut last = engine.last_id.lock();
    let is_right = ids[peer].map_or(id > *last, |known| known == id);
    if !is_right {
        let text = format!("peer {peer} has id {:?} and is given {id}; the last one was {last}", ids[peer]);
        engine.shelf.lock().breaks(text);
    }
    *last = id.max(*last);
    ids[peer] = Some(id);
}

/// The rule of the end, for a peer that lives: `opened` is what opening it has brought.
pub(super) fn check_present(segment: &Arc<Segment>, door: &Door, what: &str, exactly: bool) {
    // The store has told something old last, and nobody had reason to ask again.
    if door.seen.lock().best.is_some_and(|best| best.is_old) {
        return;
    }
    let shelf = &mut *door.shelf.lock();
    let Some((present, _)) = shelf.published(door.peer) else { return };
    let known = edition(&segment.known());
    let is_same = shelf.editions[known].process == shelf.editions[present].process;
    if known != present && (exactly || !is_same) {
        shelf.breaks(format!("{what}: peer {} says {present}, and {known} is believed", door.peer));
    }
}

/// Nothing is left.
pub(super) fn check_empty(engine: &Engine) {
    let (watches, under_way) = {
        let shelf = engine.shelf.lock();
        (shelf.watches(), shelf.under_way)
    };
    let doors = engine.doors.lock();
    let kept = doors.iter().filter(|(segment, _)| segment.strong_count() > 0).count();
    let open = engine.segments.count();
    if watches + under_way + kept + open > 0 {
        engine.shelf.lock().breaks(format!(
            "left when all was closed: {open} open segments, {kept} in memory, {watches} watches, {under_way} readings"
        ));
    }
    let ids: Vec<_> = engine.ids.lock().iter().flatten().copied().collect();
    for id in ids {
        if !matches!(engine.segments.find(id), Some(Found::Closed(_))) {
            engine.shelf.lock().breaks(format!("id {id} is not that of a closed segment"));
        }
    }
}
