//! Random ranges, against a look at every byte.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn p37_a_request_is_covered_exactly_where_its_bytes_are(
        buffers in prop::collection::vec((0u64..60, 1u64..20), 0..8),
        addr in 0u64..90,
        len in 1u64..40,
        at_the_end in any::<bool>(),
    ) {
        // The last byte of the address space belongs to no buffer, so that none wraps around.
        let base = if at_the_end { u64::MAX - 90 } else { 0 };
        let moved = || buffers.iter().map(|(start, len)| (base + start, *len));
        let bytes = addr..addr + len;
        let each = bytes.clone().all(|byte| buffers.iter().any(|(start, len)| (*start..start + len).contains(&byte)));
        let one = buffers.iter().any(|(start, len)| *start <= addr && bytes.end <= start + len);
        let joined = Ranges::joined(moved()).unwrap();
        prop_assert_eq!(joined.covers(base + addr, len), each);
        // Of buffers that overlap, the one that begins last counts; those of one engine do not.
        let single = Ranges::single(moved()).unwrap();
        let overlap = buffers.iter().enumerate().any(|(at, one)| {
            buffers[..at].iter().any(|other| one.0 < other.0 + other.1 && other.0 < one.0 + one.1)
        });
        prop_assert!(!single.covers(base + addr, len) || one);
        prop_assert!(overlap || single.covers(base + addr, len) == one);
    }
}
