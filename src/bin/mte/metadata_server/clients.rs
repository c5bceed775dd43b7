//! The connections of the server: as many as it may have, and which of them goes when there is one too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// Longest time for the body of an answer. Chosen: as for the body of a request.
pub(super) const ANSWER_LIMIT: Duration = super::BODY_LIMIT;

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No complete request has arrived since the last answer.
    Idle,
    /// A request is being served, its body included.
    Serving,
    /// An answer is on its way.
    Answering,
}

/// What one connection does, and since when. Shared with its task and its answers.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<(Phase, Instant)>>);

impl Activity {
    /// A connection without a request.
    pub(super) fn new() -> Self {
        Activity(Arc::new(Mutex::new((Phase::Idle, Instant::now()))))
    }

    /// A request has arrived.
    pub(super) fn serving(&self) {
        self.set(Phase::Serving);
    }

    /// The connection answers until the last copy of what is returned is gone.
    pub(super) fn answering(&self, body: Bytes) -> Bytes {
        self.set(Phase::Answering);
        Bytes::from_owner(Answer { body, of: self.clone() })
    }

    fn set(&self, phase: Phase) {
        *self.0.lock() = (phase, Instant::now());
    }
}

struct Answer {
    body: Bytes,
    of: Activity,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.of.set(Phase::Idle);
    }
}

struct Client {
    source: IpAddr,
    activity: Activity,
    task: AbortHandle,
}

/// Connections that are open.
pub(super) struct Clients {
    most: usize,
    open: Vec<Client>,
}

impl Clients {
    /// Room for `most`, which is at least one.
    pub(super) fn new(most: usize) -> Self {
        Clients { most: most.max(1), open: Vec::new() }
    }

    /// Adds one; if there is no room, another has to go.
    pub(super) fn add(&mut self, source: IpAddr, activity: Activity, task: AbortHandle) {
        if self.open.len() >= self.most {
            self.open.retain(|client| !client.task.is_finished());
        }
        if self.open.len() >= self.most {
            self.close_one();
        }
        self.open.push(Client { source, activity, task });
    }

    /// Closes the connection that has been without a request for the longest time. If all have one, of the source with
    /// the most connections the one that has had it for the longest time. `false` if there is none.
    pub(super) fn close_one(&mut self) -> bool {
        let mut from = HashMap::new();
        self.open.iter().for_each(|client| *from.entry(client.source).or_insert(0) += 1);
        let rank = |client: &Client| {
            let (phase, since) = *client.activity.0.lock();
            let idle = phase == Phase::Idle;
            (idle, if idle { 0 } else { from[&client.source] }, since.elapsed())
        };
        let ranks = self.open.iter().map(rank).enumerate();
        let Some((index, _)) = ranks.max_by_key(|(_, rank)| *rank) else { return false };
        self.open.swap_remove(index).task.abort();
        true
    }

    /// Closes connections whose client does not read its answer.
    pub(super) fn close_late(&mut self) {
        self.open.retain(|client| {
            let (phase, since) = *client.activity.0.lock();
            if phase == Phase::Answering && since.elapsed() > ANSWER_LIMIT {
                client.task.abort();
            }
            !client.task.is_finished()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_without_a_request_goes_first_then_one_of_the_largest_crowd() {
        let mut clients = Clients::new(4);
        let mut add = |source: [u8; 4], serving: bool| {
            let activity = Activity::new();
            if serving {
                activity.serving();
            }
            let task = tokio::spawn(std::future::pending::<()>());
            clients.add(source.into(), activity, task.abort_handle());
            task
        };
        let _engine = add([10, 0, 0, 1], true);
        let first = add([10, 0, 0, 2], true);
        let second = add([10, 0, 0, 2], true);
        let silent = add([10, 0, 0, 3], false);
        let _fresh = add([10, 0, 0, 4], true);
        assert!(silent.await.unwrap_err().is_cancelled());
        let _another = add([10, 0, 0, 5], true);
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(!second.is_finished());
    }
}
