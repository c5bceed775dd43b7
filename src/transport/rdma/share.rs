//! How work is shared by the queue pairs of a connection: by bytes, and no more than is worth a doorbell. A pure function
//! over the bytes under way on each.

/// Bytes of a chain: the first work request with which it has as many is its last. So many more bytes than on another
/// make a queue pair clearly behind, too. Chosen: 20 µs at 400 Gbit/s, against which a doorbell is cheap, and more than a
/// full chain of small work requests, which stays together.
pub(super) const PORTION: u64 = 1 << 20;

/// The queue pair of `count` for the next chain: `preferred`, unless it is clearly behind; then the one that has the
/// fewest bytes under way. `load` tells them.
pub(super) fn choose(preferred: usize, count: usize, load: impl Fn(usize) -> u64) -> usize {
    let own = load(preferred);
    if own < PORTION {
        // None can have so much less. The usual case of small work requests, which costs one load.
        return preferred;
    }
    let all = (0..count).map(|turn| (preferred + turn) % count).map(|place| (load(place), place));
    match all.min_by_key(|(load, _)| *load) {
        Some((least, place)) if least.saturating_add(PORTION) <= own => place,
        _ => preferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_preferred_queue_pair_is_taken_unless_it_is_clearly_behind() {
        #[rustfmt::skip]
        let cases: [(&str, usize, &[u64], usize); 8] = [
            ("the only one", 0, &[9 * MIB], 0),
            ("all are idle", 1, &[0, 0, 0], 1),
            ("little is under way", 1, &[0, MIB - 1, 0], 1),
            ("clearly behind", 0, &[MIB, 0], 1),
            ("behind, but not clearly", 0, &[2 * MIB, MIB + 1], 0),
            ("ahead", 0, &[2 * MIB, 9 * MIB], 0),
            ("the one with the fewest", 2, &[3 * MIB, 2 * MIB, 9 * MIB], 1),
            ("of equals the next", 1, &[MIB, 9 * MIB, MIB], 2),
        ];
        for (name, preferred, loads, expected) in cases {
            assert_eq!(choose(preferred, loads.len(), |place| loads[place]), expected, "{name}");
        }
    }
}
