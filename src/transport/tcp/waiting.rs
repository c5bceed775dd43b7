//! Requests to a peer with several rails that wait until one of them has room. They are the link's and not a lane's, so that
//! the rail that is through first takes them.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};

use super::request::Request;
use crate::error::Error;
use crate::transport::slice::{canceled, Slice};

/// Those of a link, in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    /// What requests fail with, once the link is closed.
    closed: Option<Error>,
    requests: VecDeque<Request>,
    bytes: u64,
}

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Bytes of the oldest request.
    pub first: u64,
    /// Bytes of all.
    pub all: u64,
}

impl Waiting {
    /// Appends `requests`. Those that nobody wants any more, and those without memory, end at once.
    pub(super) fn put(&self, requests: impl Iterator<Item = Request>) {
        let mut state = self.0.lock();
        for request in requests {
            // Looked at under the lock: whoever revokes a region or gives requests up looks here afterwards.
            let is_unwanted = state.closed.is_some() || request.is_revoked() || request.is_given_up();
            if is_unwanted || state.requests.try_reserve(1).is_err() {
                let closed = state.closed.clone();
                MutexGuard::unlocked(&mut state, || refuse(request, closed));
            } else {
                state.bytes += request.len();
                state.requests.push_back(request);
            }
        }
    }

    /// What there is; `None` if nothing waits.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        let state = self.0.lock();
        state.requests.front().map(|first| Ahead { first: first.len(), all: state.bytes })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.lock().requests.len()
    }

    /// Takes the oldest ones: one, and others as long as they have no more than `bytes` in all.
    pub(super) fn take(&self, bytes: u64) -> Option<(Request, Vec<Request>)> {
        let mut state = self.0.lock();
        let first = state.pop()?;
        let (mut run, mut rest) = (first.len(), Vec::new());
        while let Some(next) = state.requests.front() {
            run += next.len();
            if run > bytes || rest.try_reserve(1).is_err() {
                break;
            }
            rest.extend(state.pop());
        }
        Some((first, rest))
    }

    /// Ends the requests whose slices `which` picks.
    pub(super) fn abandon(&self, which: impl Fn(&Slice) -> bool, end: impl Fn(Request)) {
        let mut requests = self.take_all();
        // Without the lock: whoever hears of the end may come back. The others keep their order.
        let is_kept = |request: &Request| !request.slice().is_some_and(&which);
        for _ in 0..requests.len() {
            let Some(request) = requests.pop_front() else { break };
            match is_kept(&request) {
                true => requests.push_back(request),
                false => end(request),
            }
        }
        self.put(requests.into_iter());
    }

    /// Fails all of them.
    pub(super) fn fail_all(&self, error: &Error) {
        self.take_all().into_iter().for_each(|request| request.fail(error.clone()));
    }

    /// Fails all of them, and those that come later.
    pub(super) fn close(&self, error: &Error) {
        self.0.lock().closed.get_or_insert_with(|| error.clone());
        self.fail_all(error);
    }

    fn take_all(&self) -> VecDeque<Request> {
        let mut state = self.0.lock();
        state.bytes = 0;
        std::mem::take(&mut state.requests)
    }
}

impl State {
    fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.bytes -= request.len();
        Some(request)
    }
}

fn refuse(request: Request, closed: Option<Error>) {
    match closed {
        Some(error) => request.fail(error),
        None if request.is_revoked() => request.fail_revoked(),
        None if request.is_given_up() => request.fail(canceled()),
        None => request.fail(Error::out_of_memory("requests that wait for a connection")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::transport::slice::{Op, Sink, Task, Work};

    struct Nobody;

    impl Sink for Nobody {
        fn task_ended(&self, _: bool) {}
    }

    /// Requests of these lengths, for a task each.
    fn requests(lens: &[u64]) -> (Arc<Work>, Vec<Request>) {
        let tasks = lens.iter().map(|_| Task::default()).collect();
        let work = Work::new(tasks, None, Arc::new(Nobody));
        let slice = |(task, len): (usize, &u64)| Slice::new(&work, task as u32, Op::Read, 1, 2, *len, None);
        let requests = lens.iter().enumerate().map(slice).map(|slice| Request::new(slice, 0)).collect();
        (work, requests)
    }

    fn late() -> Error {
        Error::invalid("end of test")
    }

    fn taken(waiting: &Waiting, bytes: u64) -> Vec<u64> {
        let Some((first, rest)) = waiting.take(bytes) else { return Vec::new() };
        let lens = std::iter::once(first).chain(rest).map(|request| {
            let len = request.len();
            request.fail(late());
            len
        });
        lens.collect()
    }

    #[test]
    fn a_run_is_the_oldest_request_and_what_fits_beside_it() {
        let (waiting, (_work, all)) = (Waiting::default(), requests(&[100, 5, 5, 5, 1]));
        waiting.put(all.into_iter());
        assert_eq!(waiting.ahead(), Some(Ahead { first: 100, all: 116 }));
        assert_eq!(taken(&waiting, 10), [100]);
        assert_eq!(taken(&waiting, 10), [5, 5]);
        assert_eq!((waiting.ahead(), waiting.len()), (Some(Ahead { first: 5, all: 6 }), 2));
        assert_eq!(taken(&waiting, u64::MAX), [5, 1]);
        assert_eq!((waiting.ahead(), taken(&waiting, 1)), (None, vec![]));
    }

    #[test]
    fn those_that_are_picked_end_and_the_others_stay_in_order() {
        let (waiting, (_work, all)) = (Waiting::default(), requests(&[1, 2, 3, 4]));
        waiting.put(all.into_iter());
        let end = |request: Request| {
            assert!(waiting.0.try_lock().is_some(), "the lock is free");
            request.fail(late());
        };
        waiting.abandon(|slice| slice.len.is_multiple_of(2), end);
        assert_eq!(waiting.ahead(), Some(Ahead { first: 1, all: 4 }));
        assert_eq!(taken(&waiting, u64::MAX), [1, 3]);
    }

    #[test]
    fn nothing_is_kept_that_was_given_up_or_comes_after_the_end() {
        let (waiting, (work, all)) = (Waiting::default(), requests(&[1]));
        work.cancel();
        waiting.put(all.into_iter());
        assert_eq!(waiting.len(), 0);
        let (_works, pair): (Vec<_>, Vec<_>) = (0..2).map(|_| requests(&[1])).unzip();
        let mut pair = pair.into_iter().flatten();
        waiting.put(pair.next().into_iter());
        waiting.close(&late());
        waiting.put(pair);
        assert_eq!(waiting.len(), 0);
    }
}
