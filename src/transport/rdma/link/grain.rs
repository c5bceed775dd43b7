//! How long slices are: a pure function over what a call moves and over how many rails. Long slices cost less processor
//! time per byte; short ones are shared more evenly by the rails, and less is lost with one that fails.

/// Shortest slice, in time on its rail, ns. Chosen: half a microsecond, about what a slice and a doorbell cost the
/// processor.
const SHORTEST_NS: u64 = 500;
/// A rail's part of a call that takes no longer is not cut, ns. Chosen: with one slice per rail such a call is through
/// soonest; another slice would cost about as much as it saves.
const WHOLE_NS: u64 = 2_500;
/// Longest slice, in time on its rail, ns. Chosen: at any rate about 1 % of what a rail may have posted; what is sent again
/// after a failure takes no longer.
const LONGEST_NS: u64 = 20_000;
/// So many slices make a rail's part of a longer call. Chosen: rails that begin with different loads end within a quarter
/// of that part, and mostly much closer.
const PARTS: u64 = 4;
/// Limits of the times above, bytes: at any rate, and for slow ports. 64 KiB is upstream's slice.
pub(super) const LEAST: u64 = 16 << 10;
pub(super) const USUAL: u64 = 64 << 10;
/// Faster ports count as ports of this rate, bytes per second. Chosen: 6 Tbit/s; the product with a time fits in 64 bits.
const MOST_RATE: u64 = 1 << 40;
/// Lengths are multiples of this, so that most slices begin where pages do.
const PAGE: u64 = 4096;

/// Longest slice of a call that moves `bytes` over `rails` rails of `rate` bytes per second each. `most` is what the caller
/// has set, if anything: then no slice is longer, and where all rails have enough, none is shorter.
pub(super) fn choose(bytes: u64, rails: u64, rate: u64, most: Option<u64>) -> u64 {
    // To a power of two, because lengths of requests mostly are.
    let within = |ns: u64| (rate.min(MOST_RATE) * ns / 1_000_000_000).next_power_of_two();
    let longest = most.unwrap_or_else(|| within(LONGEST_NS).max(USUAL));
    let shortest = within(SHORTEST_NS).clamp(LEAST, USUAL).min(longest);
    let part = match rails {
        0 | 1 => return longest,
        _ => bytes.div_ceil(rails),
    };
    let whole = part.min(within(WHOLE_NS).max(USUAL));
    let chosen = (part / PARTS).max(whole).clamp(shortest, longest);
    chosen.next_multiple_of(PAGE).min(longest)
}

/// Length of the next slice of a request with `left` bytes to go, which takes slices of at most `grain`: as few as it
/// needs, and about equal.
pub(super) fn even(left: u64, grain: u64) -> u64 {
    let count = left.div_ceil(grain.max(1)).max(1);
    left.div_ceil(count).next_multiple_of(PAGE).min(grain).min(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const G400: u64 = 50_000_000_000;
    const G100: u64 = 12_500_000_000;

    #[test]
    fn slices_are_long_in_large_calls_and_short_where_rails_would_be_idle() {
        #[rustfmt::skip]
        let cases: &[(&str, u64, u64, u64, u64)] = &[
            ("one rail: as long as is allowed", 4 * KIB, 1, G400, MIB),
            ("no rail is known", MIB, 0, G400, MIB),
            ("slower ports have shorter ones", MIB, 1, G100, 256 * KIB),
            ("a slow port has upstream's", MIB, 1, G100 / 100, 64 * KIB),
            ("a large call", 128 * MIB, 8, G400, MIB),
            ("a quarter of each rail's part", 16 * MIB, 8, G400, 512 * KIB),
            ("no less than what is not worth cutting", 2 * MIB, 8, G400, 128 * KIB),
            ("one slice per rail", MIB, 8, G400, 128 * KIB),
            ("one slice per rail of a small call", 256 * KIB, 8, G400, 32 * KIB),
            ("no more slices than are worth their cost", 64 * KIB, 8, G400, 32 * KIB),
            ("nothing", 0, 8, G400, 32 * KIB),
            ("all bytes there are", u64::MAX, 2, u64::MAX, 32 * MIB),
        ];
        for (name, bytes, rails, rate, expected) in cases {
            assert_eq!(choose(*bytes, *rails, *rate, None), *expected, "{name}");
        }
    }

    #[test]
    fn what_is_set_is_the_length_unless_rails_would_be_idle() {
        for (bytes, rails, set, expected) in [
            (MIB, 1, 3 * MIB, 3 * MIB),
            (MIB, 1, 1000, 1000),
            (128 * MIB, 8, 2 * MIB, 2 * MIB),
            (128 * MIB, 8, 64 * KIB, 64 * KIB),
            (MIB, 8, 64 * MIB, 128 * KIB),
            (MIB, 8, 64 * KIB, 64 * KIB),
            (64 * KIB, 8, 10_000, 10_000),
        ] {
            assert_eq!(choose(bytes, rails, G400, Some(set)), expected, "{bytes} over {rails}, set {set}");
        }
    }

    #[test]
    fn a_request_is_cut_into_as_few_and_as_equal_slices_as_can_be() {
        let cases: &[(u64, u64, &[u64])] = &[
            (MIB, MIB, &[MIB]),
            (MIB, 768 * KIB, &[512 * KIB, 512 * KIB]),
            (MIB, 384 * KIB, &[344 * KIB, 340 * KIB, 340 * KIB]),
            (10 * KIB, 4 * KIB, &[4 * KIB, 4 * KIB, 2 * KIB]),
            (5, 3, &[3, 2]),
            (1, 1, &[1]),
        ];
        for (len, grain, expected) in cases {
            let mut left = *len;
            let next = || {
                let next = (left > 0).then(|| even(left, *grain))?;
                left -= next;
                Some(next)
            };
            assert_eq!(std::iter::from_fn(next).collect::<Vec<_>>(), *expected, "{len} by {grain}");
        }
    }
}
