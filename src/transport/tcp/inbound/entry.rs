//! How a peer gets in, and what becomes of one that is not believed.

use super::super::door::{Doubt, Passed};
use super::super::wire::Header;
use super::Inbound;

impl Inbound {
    /// Has the peer pass the door, where there is one. `Some(false)`: it has not yet; `None`: the connection is over.
    pub(super) fn pass_door(&mut self) -> Option<bool> {
        let Some(door) = &mut self.door else { return Some(true) };
        match door.pass(&mut self.heads, &mut self.heads_len, &mut self.socket) {
            Passed::Waits => Some(false),
            Passed::Through => {
                self.door = None;
                self.lookahead = 1;
                Some(true)
            }
            Passed::Refused(why) => {
                // A stranger, upstream's too, hears it as it hears of an address that is refused.
                let is_v2 = self.heads.first_chunk().is_some_and(|bytes| Header::decode(bytes).v2);
                let is_told = why.is_of_stranger() && is_v2 && self.replies.reserve();
                self.refuse(&why);
                is_told.then(|| {
                    self.replies.push_rejected();
                    false
                })
            }
        }
    }

    /// Nothing that this peer sends is a request.
    pub(super) fn refuse(&mut self, why: &Doubt) {
        self.shared.note_distrusted(&self.socket, why);
        self.refused = true;
    }
}
