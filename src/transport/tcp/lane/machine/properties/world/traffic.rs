//! What goes over the connection: requests and their answers, refusals, and buffers that are not mapped.

use super::*;
use crate::transport::tcp::pipeline::Moved;
use crate::transport::tcp::wire::REJECTED_FRAME;

impl World {
    pub(super) fn send(&mut self, room: u64) {
        let Some(open) = self.open.as_mut().filter(|_| self.pipeline.wants_to_send()) else { return };
        let bytes = open.take(self.pipeline.outgoing(), room);
        let mut moved = Moved::default();
        self.pipeline.note_sent(bytes, &mut moved, &self.stats);
        self.settle(&moved);
    }

    pub(super) fn receive(&mut self, bytes: u64) {
        let Some(open) = &mut self.open else { return };
        let looked_for = self.pipeline.incoming().requests.len();
        let bytes = bytes.min(open.replies_before(looked_for));
        if bytes > 0 {
            open.answer(bytes, &mut self.frames);
            let mut moved = Moved::default();
            let outcome = self.pipeline.note_received(bytes, &mut self.frames, &mut moved, &self.stats);
            assert!(outcome.is_ok(), "good replies are refused");
            self.settle(&moved);
        }
    }

    /// Peer and pipeline have to agree on what is answered.
    fn settle(&mut self, moved: &Moved) {
        assert_eq!(moved.replies, self.open.as_mut().is_some_and(Peer::settle));
        if moved.replies {
            let (spent, more) = (self.pipeline.is_spent(), !self.pipeline.is_empty());
            self.feed(Event::Replied { spent, more });
        }
    }

    pub(super) fn reject(&mut self, which: usize, cut: usize) {
        let Some(open) = self.open.as_mut().filter(|open| open.terms.v2) else { return };
        let Some(which) = which.checked_rem(self.pipeline.incoming().requests.len()) else { return };
        if which == 0 && open.is_amid_reply() {
            return;
        }
        let bytes = open.refuse(which, &mut self.frames);
        let late = STATUS_LEN - cut;
        let mut moved = Moved::default();
        let mut outcome =
            self.pipeline.note_received(bytes - late as u64, &mut self.frames, &mut moved, &self.stats);
        if late > 0 {
            assert!(outcome.is_ok(), "judged by half a frame");
            if moved.replies {
                self.feed(Event::Replied { spent: false, more: true });
            }
            self.frames[0][cut..].copy_from_slice(&REJECTED_FRAME[cut..]);
            outcome = self.pipeline.note_received(late as u64, &mut self.frames, &mut moved, &self.stats);
        }
        assert!(matches!(outcome, Err(Down::Rejected)), "a refusal is not heard");
        self.feed(Event::Down(Down::Rejected));
    }

    pub(super) fn fault(&mut self, sending: bool) {
        if self.open.is_none() || sending && !self.pipeline.wants_to_send() {
            return;
        }
        let run = if sending { self.pipeline.outgoing() } else { self.pipeline.incoming() };
        match run.requests.len() {
            0 => {}
            1 => self.feed(Event::Down(Down::Fault { sending })),
            _ => self.pipeline.be_cautious(),
        }
    }
}
