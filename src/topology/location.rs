//! Location names of registered memory: what a caller or a peer wrote, and what the system says of an address.

use super::pages;

/// Where the bytes of a region are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// All in one place: `cpu:0`, `cuda:3`, `*`, or any other key of a matrix.
    Whole(String),
    /// Cut into equal parts, one per NUMA node. Written `segments:<page>:<node>,<node>…`.
    Segments {
        /// The page size that the caller named; it does not enter into the cut.
        page: u64,
        /// The node of each part, at least one.
        nodes: Vec<i32>,
    },
}

impl Location {
    /// Reads a location name. Text that begins with `segments:` but is not well-formed is an ordinary name.
    pub fn parse(text: &str) -> Self {
        parse_segments(text).unwrap_or_else(|| Location::Whole(text.to_string()))
    }
}

fn parse_segments(text: &str) -> Option<Location> {
    let (page, nodes) = text.strip_prefix("segments:")?.split_once(':')?;
    let nodes = nodes.split(',').map(|node| node.parse().ok()).collect::<Option<Vec<i32>>>()?;
    Some(Location::Segments { page: page.parse().ok()?, nodes })
}

/// Which of `parts` equal parts of `length` bytes holds `offset`. The last one also has the bytes that are left
/// over, which are all of them when there are fewer bytes than parts.
pub(super) fn part(offset: u64, length: u64, parts: usize) -> usize {
    let last = parts.saturating_sub(1);
    let size = length / (parts.max(1) as u64);
    offset.checked_div(size).map_or(last, |index| usize::try_from(index).unwrap_or(last).min(last))
}

/// The location of the memory at `addr`: `cpu:<node>` of its first page, `*` if the page was not touched yet, is not
/// mapped, or the system does not tell (a container's seccomp profile may refuse `move_pages`).
///
/// This build has no GPU runtime, so a device pointer cannot be told from an address that is not mapped: it gives `*`.
/// Callers name the location of GPU memory (`cuda:0`) when they register it.
pub fn of_memory(addr: u64) -> String {
    pages::node_of(addr).map_or_else(|| "*".to_string(), cpu)
}

fn cpu(node: i32) -> String {
    format!("cpu:{node}")
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(page: u64, nodes: &[i32]) -> Location {
        Location::Segments { page, nodes: nodes.to_vec() }
    }

    #[test]
    fn segments_are_read_and_malformed_text_is_an_ordinary_name() {
        assert_eq!(Location::parse("segments:4096:0,1"), segments(4096, &[0, 1]));
        assert_eq!(Location::parse("segments:2097152:3"), segments(2_097_152, &[3]));
        for name in [
            "",
            "*",
            "cpu:0",
            "segments",
            "segments:",
            "segments:4096",
            "segments:4096:",
            "segments:4096:0,",
            "segments:4096:,1",
            "segments:4096:a",
            "segments:4096:0;1",
            "segments::0",
            "segments:-1:0",
            "segments:4096:0:1",
            "segments:4096:99999999999",
        ] {
            let location = Location::parse(name);
            assert_eq!(location, Location::Whole(name.into()));
        }
    }

    #[test]
    fn each_part_has_its_node_and_the_last_one_the_tail() {
        let nodes = [4, 0, 7];
        for (offset, length, expected) in [
            (0, 11, "cpu:4"),
            (2, 11, "cpu:4"),
            (3, 11, "cpu:0"),
            (6, 11, "cpu:7"),
            (8, 11, "cpu:7"),
            // The two bytes that division leaves over.
            (9, 11, "cpu:7"),
            (10, 11, "cpu:7"),
            (u64::MAX, 11, "cpu:7"),
            (u64::MAX / 3 - 1, u64::MAX, "cpu:4"),
            (u64::MAX / 3, u64::MAX, "cpu:0"),
            (0, 2, "cpu:7"),
            (0, 0, "cpu:7"),
        ] {
            assert_eq!(cpu(nodes[part(offset, length, nodes.len())]), expected, "{offset} of {length}");
        }
        assert_eq!(part(0, 10, 0), 0);
    }

    #[test]
    fn touched_memory_has_a_node_and_unmapped_memory_has_none() {
        for addr in [0, 4096, u64::MAX, 1 << 63] {
            assert_eq!(of_memory(addr), "*", "{addr:#x}");
        }
        let touched = vec![1u8; 3 * 4096];
        let location = of_memory(touched.as_ptr() as u64 + 4096);
        if location == "*" && pages::policy().is_err() {
            println!("SKIP touched memory has a node: this system refuses NUMA queries");
            return;
        }
        let node: u32 = location.strip_prefix("cpu:").unwrap().parse().unwrap();
        let folder = format!("/sys/devices/system/node/node{node}");
        assert!(std::path::Path::new(&folder).exists(), "{folder}");
    }
}
