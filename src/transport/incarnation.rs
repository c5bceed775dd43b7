//! Incarnations: a random id per engine start, as hex text in descriptors and as a number that slices carry.

/// Bytes of an id. Chosen: as many random bits as a UUID, so that two starts never have the same.
pub const LEN: usize = 16;

/// Lower-case hex of an id, as in descriptors.
pub fn hex(id: &[u8; LEN]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inverse of [`hex`]; `None` for a text that is no id.
pub fn unhex(text: &str) -> Option<[u8; LEN]> {
    let mut id = [0; LEN];
    if text.len() != 2 * LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(id)
}

/// An id as a number that is not 0.
pub fn key(id: &[u8; LEN]) -> u64 {
    id.iter().fold(0u64, |key, byte| key.rotate_left(8) ^ u64::from(*byte)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_hex() {
        let id: [u8; LEN] = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(unhex(&hex(&id)), Some(id));
        for text in ["", "00", "zz000000000000000000000000000000", "+f000000000000000000000000000000é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
