//! The own descriptor as peers get it: encoded once for each change, not once for each request.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::Value;

use crate::error::Result;
use crate::handshake::Document;
use crate::segment_desc::{SegmentDesc, BUFFERS};

/// Earlier texts that slow peers may still be reading. Chosen: a peer that reads has its text long before the descriptor
/// has changed so often, and one that does not read cannot hold more memory than this many texts.
const MOST_EARLIER: usize = 4;

/// The text made last, with the state that it was made from. Any thread.
#[derive(Default)]
pub(super) struct Described {
    /// Changes of the descriptor so far.
    changes: AtomicU64,
    /// Guards what was made last.
    made: Mutex<Option<Made>>,
    /// Guards the earlier texts; those that nobody reads any more are gone.
    earlier: Mutex<VecDeque<Weak<Document>>>,
    /// Held by whoever encodes, so that one does it for all who ask.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// A descriptor, encoded.
#[derive(Clone)]
pub(super) struct Made {
    changes: u64,
    /// All of it.
    pub(super) document: Arc<Document>,
    /// All but the buffers.
    pub(super) outline: Arc<Value>,
}

impl Made {
    /// Encodes `desc`, which was made when there had been `changes`. `ERR_MEMORY` if the text does not fit.
    pub(super) fn new(desc: SegmentDesc, changes: u64) -> Result<Self> {
        let mut value = desc.encode();
        let document = Document::new(&value)?;
        if let Value::Object(members) = &mut value {
            members.insert(BUFFERS.into(), Value::Array(Vec::new()));
        }
        Ok(Made { changes, document, outline: Arc::new(value) })
    }
}

impl Described {
    /// The descriptor has changed. To be called after the change and before anybody is told of it.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, SeqCst);
    }

    /// Changes so far; to be read before a descriptor is made.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// What was made last, unless the descriptor has changed since.
    pub(super) fn current(&self) -> Option<Made> {
        let changes = self.changes();
        self.made.lock().clone().filter(|made| made.changes == changes)
    }

    /// Keeps what was made for those who ask next, unless something newer is there.
    pub(super) fn keep(&self, made: &Made) {
        let mut kept = self.made.lock();
        if kept.as_ref().is_some_and(|kept| kept.changes >= made.changes) {
            return;
        }
        let before = kept.replace(made.clone());
        drop(kept);
        let mut earlier = self.earlier.lock();
        earlier.extend(before.map(|before| Arc::downgrade(&before.document)));
        earlier.retain(|document| document.strong_count() > 0);
        while earlier.len() > MOST_EARLIER {
            if let Some(document) = earlier.pop_front().and_then(|document| document.upgrade()) {
                document.withdraw();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_serves_until_the_next_change_and_few_are_held() {
        let described = Described::default();
        let mut held = Vec::new();
        for n in 0..3 * MOST_EARLIER {
            assert!(described.current().is_none());
            let desc = SegmentDesc { name: format!("{n}"), ..SegmentDesc::default() };
            let made = Made::new(desc, described.changes()).unwrap();
            described.keep(&made);
            let current = described.current().unwrap();
            assert!(Arc::ptr_eq(&current.document, &made.document));
            held.push(made.document);
            described.changed();
        }
        let withdrawn = |document: &Arc<Document>| document.is_withdrawn();
        // The last one made is not an earlier one.
        let kept = held.len() - MOST_EARLIER - 1;
        assert!(held[..kept].iter().all(withdrawn) && !held[kept..].iter().any(withdrawn));
    }

    #[test]
    fn a_text_of_an_older_state_does_not_replace_a_newer_one() {
        let described = Described::default();
        let old = described.changes();
        described.changed();
        let newer = Made::new(SegmentDesc::default(), described.changes()).unwrap();
        described.keep(&newer);
        described.keep(&Made::new(SegmentDesc::default(), old).unwrap());
        assert!(Arc::ptr_eq(&described.current().unwrap().document, &newer.document));
    }
}
