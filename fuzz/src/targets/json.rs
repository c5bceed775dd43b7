//! JSON texts of peers, stores and callers.

use transfer_engine::json::{self, members::Members};

use super::memory::bounded;

/// What a byte may unfold into. From the reader's own limit: an object of two bytes and a comma has 21 values of 32 bytes.
const PER_BYTE: usize = 512;

/// What is read and written again is read as the same, and is plain ASCII.
pub fn run(bytes: &[u8]) {
    bounded(bytes, PER_BYTE, || {
        let Ok(value) = json::parse(bytes) else { return };
        let text = json::write(&value);
        assert!(text.bytes().all(|byte| (b' '..=b'\x7f').contains(&byte)), "{text}");
        assert_eq!(json::parse(text.as_bytes()).unwrap(), value, "{text}");
        let mut appended = b"before".to_vec();
        json::append_line(&mut appended, &value).unwrap();
        assert_eq!(appended, format!("before{text}\n").into_bytes());
        let Ok(members) = Members::of(&value, "input") else { return };
        for name in value.as_object().into_iter().flat_map(|map| map.keys()) {
            // As many readings as a member may have; at most one fits.
            let _ = (members.text(name), members.flag(name), members.array(name));
            let (small, large) = (members.uint::<u16>(name), members.uint::<u64>(name));
            assert!(small.is_err() || large.is_ok_and(|large| large == small.unwrap().map(u64::from)));
            let _ = (members.uints::<u32>(name), members.filled_text(name));
        }
    });
}
