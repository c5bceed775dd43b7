//! Which host this is, for descriptors: engines that say the same may try to reach each other. It proves nothing; the
//! connection does.

use std::os::unix::fs::MetadataExt;

/// A number in hex that differs between boots of machines and between network namespaces, in which the sockets have their
/// names; `None` where /proc does not tell. From proc(5) and namespaces(7).
pub(super) fn token() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let network = std::fs::metadata("/proc/self/ns/net").ok()?;
    let parts = [boot.trim().to_string(), network.dev().to_string(), network.ino().to_string()];
    Some(format!("{:016x}", hash(parts.join("/").as_bytes())))
}

/// FNV-1a, so that the id of the boot itself is not told.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_says_the_same_each_time() {
        let token = token().unwrap();
        assert_eq!(Some(&token), super::token().as_ref());
        assert_eq!(token.len(), 16);
    }

    #[test]
    fn the_hash_is_that_of_its_definition() {
        // From the draft-eastlake-fnv test vectors.
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
