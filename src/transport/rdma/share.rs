//! How work is shared by the queue pairs of a connection: by bytes, and no more than is worth a doorbell. A pure function
//! over the bytes under way on each.

/// Bytes of a chain: the first work request with which it has as many is its last. A queue pair with as many under way has
/// no preference any more. Chosen: 20 µs at 400 Gbit/s, against which a doorbell is cheap, and more than a full chain of
/// small work requests, which stays together.
pub(super) const PORTION: u64 = 1 << 20;

/// A connection has no more posted than it moves in a millisecond, or that many bytes per queue pair where that is more.
/// Chosen: a caller that polls every half millisecond keeps the rail busy, and so does the NIC's thread for one that sleeps; a
/// small request behind a huge batch waits no longer than this and one turn of each batch.
const LEAST_POSTED: u64 = 2 * PORTION;

/// Bytes that may still be posted on a connection of `count` queue pairs that moves `per_ms` in a millisecond and has `posted`
/// under way; some, if it has none. The rest waits, because of what waits the next can be chosen: what is posted is moved in
/// its order.
#[inline]
pub(super) fn room(per_ms: u64, count: usize, posted: u64) -> u64 {
    per_ms.max(LEAST_POSTED.saturating_mul(count as u64)).saturating_sub(posted)
}

/// Then it is passed over for one that has so many bytes less. Chosen: an eighth of a chain; threads keep to their own queue
/// pairs where it makes no difference.
const SLACK: u64 = PORTION / 8;

/// The queue pair of `count` for the next chain: `preferred`, unless it is busy; then the one that has the fewest bytes
/// under way. `load` tells them.
pub(super) fn choose(preferred: usize, count: usize, load: impl Fn(usize) -> u64) -> usize {
    let own = load(preferred);
    if own < PORTION {
        // The usual case of small work requests, which costs one load.
        return preferred;
    }
    let all = (0..count).map(|turn| (preferred + turn) % count).map(|place| (load(place), place));
    match all.min_by_key(|(load, _)| *load) {
        Some((least, place)) if least.saturating_add(SLACK) <= own => place,
        _ => preferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_preferred_queue_pair_is_taken_unless_it_is_busy_and_another_has_less() {
        #[rustfmt::skip]
        let cases: [(&str, usize, &[u64], usize); 8] = [
            ("the only one", 0, &[9 * MIB], 0),
            ("all are idle", 1, &[0, 0, 0], 1),
            ("little is under way", 1, &[0, MIB - 1, 0], 1),
            ("busy", 0, &[MIB, MIB - SLACK], 1),
            ("hardly more busy than the other", 0, &[MIB, MIB - 1], 0),
            ("ahead", 0, &[2 * MIB, 9 * MIB], 0),
            ("the one with the fewest", 2, &[3 * MIB, 2 * MIB, 9 * MIB], 1),
            ("of equals the next", 1, &[MIB, 9 * MIB, MIB], 2),
        ];
        for (name, preferred, loads, expected) in cases {
            assert_eq!(choose(preferred, loads.len(), |place| loads[place]), expected, "{name}");
        }
    }

    #[test]
    fn what_is_posted_is_bounded_by_time_and_never_nothing() {
        assert_eq!(room(50 * MIB, 2, 0), 50 * MIB);
        assert_eq!(room(50 * MIB, 2, 49 * MIB), MIB);
        assert_eq!(room(50 * MIB, 2, 60 * MIB), 0);
        assert_eq!((room(0, 1, 0), room(0, 2, 3 * MIB)), (2 * MIB, MIB));
    }
}
