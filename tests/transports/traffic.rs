//! Requests that are under way when something happens.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use transfer_engine::error::Error;

use crate::node::{Batch, FOREVER, READ, WRITE};
use crate::pair::{Target, HALF};

/// Batches under way at a time, each with its own part of the memory.
const BATCHES: usize = 4;
/// Requests of a batch.
const REQUESTS: usize = 4;
/// Bytes of a request: as large as the parts allow, so that they take long.
const SIZE: usize = HALF / BATCHES / REQUESTS;

/// How traffic ended. Every batch was waited for.
#[derive(Debug, Default)]
pub struct End {
    /// The call that was refused.
    pub refused: Option<Error>,
    /// The tasks that failed.
    pub failed: Vec<Error>,
}

impl End {
    /// Every error of it.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        self.refused.iter().chain(&self.failed)
    }

    fn wait(&mut self, batch: Option<Batch<'_>>) {
        match batch.map(Batch::wait) {
            Some(Ok(ends)) => self.failed.extend(ends.into_iter().flatten()),
            Some(Err(refused)) => self.refused = Some(refused),
            None => {}
        }
    }
}

/// Keeps batches of WRITEs and READs under way until a submit call is refused or a task fails. As soon as the first
/// batch has arrived, calls `happen` on this thread.
pub fn disturbed_by(target: Target<'_>, happen: impl FnOnce()) -> End {
    let (arrived, arrives) = mpsc::channel();
    std::thread::scope(|scope| {
        let traffic = scope.spawn(move || traffic(target, &arrived));
        arrives.recv().expect("traffic flows before anything happens");
        happen();
        traffic.join().unwrap()
    })
}

fn traffic(target: Target<'_>, arrived: &Sender<()>) -> End {
    let mut end = End::default();
    let mut under_way = VecDeque::new();
    let begun = Instant::now();
    for round in 0.. {
        assert!(begun.elapsed() < FOREVER, "nothing is refused and nothing fails");
        if under_way.len() == BATCHES {
            end.wait(under_way.pop_front());
            if end.errors().next().is_some() {
                break;
            }
            // Heard once; nobody listens afterwards.
            let _ = arrived.send(());
        }
        let at = |index| (round % BATCHES * REQUESTS + index) * SIZE;
        let opcode = |index| if index % 2 == 0 { WRITE } else { READ };
        let requests: Vec<_> =
            (0..REQUESTS).map(|index| target.request(opcode(index), at(index), SIZE)).collect();
        match target.here.submit(&requests) {
            Ok(batch) => under_way.push_back(batch),
            Err(refused) => {
                end.refused = Some(refused);
                break;
            }
        }
    }
    under_way.into_iter().for_each(|batch| end.wait(Some(batch)));
    end
}

/// Tries until it works. Nothing tells when a peer is reached again, so the attempts themselves are the wait.
pub fn retry<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) if Instant::now() >= deadline => panic!("{what}: not within {limit:?}: {error:?}"),
            Err(_) => std::thread::yield_now(),
        }
    }
}
