//! The connections of the handshake port: how many there may be, and which of them goes when there is one too many.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::runtime::crowd::{source_of, Crowd, Readiness};

/// What a connection waits for; published by its task to the one that accepts, in the same thread.
#[derive(Clone)]
pub(super) struct Stage(Arc<AtomicU8>);

impl Stage {
    /// It has not proved the cluster key, where there is one.
    const UNPROVEN: u8 = 0;
    const READING: u8 = 1;
    const ANSWERING: u8 = 2;
    const CLOSING: u8 = 3;

    /// It may send a request.
    pub(super) fn reading(&self) {
        self.0.store(Self::READING, Relaxed);
    }

    /// Its request is complete.
    pub(super) fn answering(&self) {
        self.0.store(Self::ANSWERING, Relaxed);
    }

    /// It has its reply.
    pub(super) fn closing(&self) {
        self.0.store(Self::CLOSING, Relaxed);
    }
}

struct Client {
    /// Grows with each connection.
    order: u64,
    stage: Stage,
    task: AbortHandle,
}

/// Connections that are open, with their tasks. Dropping it ends them.
pub(super) struct Clients {
    most: usize,
    open: Crowd<Id, Client>,
    tasks: JoinSet<()>,
    next: u64,
}

impl Clients {
    /// Room for `most`, which is at least one.
    pub(super) fn new(most: usize) -> Self {
        Clients { most: most.max(1), open: Crowd::default(), tasks: JoinSet::new(), next: 0 }
    }

    /// Connections that are open.
    pub(super) fn len(&self) -> usize {
        self.open.size()
    }

    /// Sees to it that there is room for one more from `address`, and closes another for it if necessary. `false` if
    /// there is none to close. No source gets more than its share.
    pub(super) fn make_room(&mut self, address: IpAddr) -> bool {
        let source = source_of(address);
        if self.open.count(source) >= Crowd::<Id, Client>::share(self.most) {
            return self.close(|other| other == source);
        }
        self.open.size() < self.most || self.close_one()
    }

    /// Closes one connection: that without a complete request, of the source with the most connections, which is open
    /// the longest; else one whose client has its reply and does not close. `false` if every one is being answered.
    pub(super) fn close_one(&mut self) -> bool {
        self.close(|_| true)
    }

    fn close(&mut self, admitted: impl Fn(IpAddr) -> bool) -> bool {
        let first = self.open.first_to_go(|source, client| {
            let class = match client.stage.0.load(Relaxed) {
                Stage::UNPROVEN => 2,
                Stage::READING => 1,
                Stage::CLOSING => 0,
                _ => return None,
            };
            admitted(source.address).then_some(Readiness { class, since: client.order })
        });
        let Some(client) = first.and_then(|id| self.open.remove(id)) else { return false };
        client.task.abort();
        true
    }

    /// Adds a connection from `address`, served by what `serve` makes.
    pub(super) fn add<F>(&mut self, address: IpAddr, serve: impl FnOnce(Stage) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stage = Stage(Arc::new(AtomicU8::new(Stage::UNPROVEN)));
        let task = self.tasks.spawn(serve(stage.clone()));
        let client = Client { order: self.next, stage, task };
        self.next += 1;
        self.open.insert(source_of(address), client.task.id(), client);
    }

    /// Waits until a connection ends, and says how; `None` if there is none.
    pub(super) async fn ended(&mut self) -> Option<Result<(), JoinError>> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(|error| error.id(), |(id, ())| *id);
        self.open.remove(id);
        Some(ended.map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNPROVEN: fn(&Stage) = |_| {};
    const READING: fn(&Stage) = Stage::reading;
    const ANSWERING: fn(&Stage) = Stage::answering;
    const CLOSING: fn(&Stage) = Stage::closing;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    /// Adds a connection from 10.0.0.`host` if there is room.
    fn add(clients: &mut Clients, host: u8, stage: fn(&Stage)) -> bool {
        let address = IpAddr::from([10, 0, 0, host]);
        let room = clients.make_room(address);
        if room {
            clients.add(address, |handle| {
                stage(&handle);
                std::future::pending()
            });
        }
        room
    }

    fn orders(clients: &Clients) -> Vec<u64> {
        let mut orders: Vec<_> = clients.open.iter().map(|(_, client)| client.order).collect();
        orders.sort_unstable();
        orders
    }

    #[test]
    fn the_oldest_without_a_request_of_the_largest_crowd_goes_first() {
        run(async {
            let mut clients = Clients::new(6);
            for (host, stage) in
                [(1, READING), (2, ANSWERING), (2, READING), (2, READING), (3, CLOSING), (4, READING)]
            {
                assert!(add(&mut clients, host, stage));
            }
            // Of 10.0.0.2, which has three, the older one without a request; then the next; then the oldest of all.
            for gone in [2, 3, 0] {
                assert!(add(&mut clients, 5, ANSWERING));
                assert!(!orders(&clients).contains(&gone), "{gone}: {:?}", orders(&clients));
            }
            // 10.0.0.5 has its half.
            assert!(!add(&mut clients, 5, ANSWERING));
            // One that only has to close, once nothing else is left.
            for gone in [5, 4] {
                assert!(add(&mut clients, 6 + gone as u8, ANSWERING));
                assert!(!orders(&clients).contains(&gone), "{gone}: {:?}", orders(&clients));
            }
            assert!(!add(&mut clients, 20, READING));
            assert_eq!(clients.len(), 6);
        });
    }

    #[test]
    fn p39_who_has_not_proved_the_key_goes_before_all_others() {
        run(async {
            let mut clients = Clients::new(3);
            for (host, stage) in [(1, READING), (2, UNPROVEN), (3, CLOSING)] {
                assert!(add(&mut clients, host, stage));
            }
            assert!(add(&mut clients, 4, ANSWERING));
            assert_eq!(orders(&clients), [0, 2, 3]);
        });
    }

    #[test]
    fn a_crowd_makes_room_among_itself() {
        run(async {
            let mut clients = Clients::new(4);
            assert!(add(&mut clients, 1, READING) && add(&mut clients, 2, READING));
            for _ in 0..100 {
                assert!(add(&mut clients, 2, READING));
            }
            assert_eq!(orders(&clients), [0, 100, 101]);
        });
    }
}
