//! The connections of a rail whose queue pairs may be there still, also those that it has lost.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::super::connection::Connection;

/// The list; those that are gone leave it when another one comes.
#[derive(Default)]
pub(super) struct Made(Mutex<Vec<Weak<Connection>>>);

impl Made {
    /// One more.
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        let mut list = self.0.lock();
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(connection));
    }

    /// Those whose other end are the queue pairs `peers`.
    pub(super) fn to(&self, peers: &[u32]) -> Vec<Arc<Connection>> {
        // The lock is gone before one of them is dropped.
        let made: Vec<Arc<Connection>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        made.into_iter().filter(|it| it.peer_numbers() == Some(peers)).collect()
    }
}
