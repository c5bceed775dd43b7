//! Random locations.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn segments_are_read_as_they_are_written(page in any::<u64>(), nodes in prop::collection::vec(any::<i32>(), 1..9)) {
        let list: Vec<String> = nodes.iter().map(i32::to_string).collect();
        let text = format!("segments:{page}:{}", list.join(","));
        prop_assert_eq!(Location::parse(&text), Location::Segments { page, nodes });
    }

    #[test]
    fn any_other_text_is_a_name(text in prop_oneof![any::<String>(), "segments:[0-9:,a-]{0,16}"]) {
        match Location::parse(&text) {
            Location::Whole(name) => prop_assert_eq!(name, text),
            Location::Segments { nodes, .. } => {
                prop_assert!(!nodes.is_empty() && text.starts_with("segments:"));
                prop_assert_eq!(text.matches(',').count() + 1, nodes.len());
            }
        }
    }

    #[test]
    fn parts_are_in_order_and_of_equal_size(length in 1u64..2000, parts in 1usize..9, offset in any::<u64>()) {
        let offset = offset % length;
        let here = part(offset, length, parts);
        prop_assert!(here < parts);
        prop_assert!(offset == 0 || part(offset - 1, length, parts) <= here);
        let size = length / parts as u64;
        if size > 0 && here + 1 < parts {
            prop_assert!((here as u64 * size..(here as u64 + 1) * size).contains(&offset));
        }
    }
}
