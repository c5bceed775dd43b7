//! One key.

use ring::hmac;

/// Bytes by which a key is told from others.
pub(super) const ID_LEN: usize = 8;

pub(super) struct Key {
    pub id: [u8; ID_LEN],
    pub mac: hmac::Key,
}

impl Key {
    pub(super) fn new(text: &str) -> Self {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&hmac::sign(&mac, b"mte cluster key 1 id").as_ref()[..ID_LEN]);
        Key { id, mac }
    }
}
