//! A transfer in one call: a batch is made, submitted, waited for and freed.

use std::time::{Duration, Instant};

use super::submit::Request;
use super::Engine;
use crate::error::{Class, Code, Error, Result};

impl Engine {
    /// Moves `count` requests, at most `at_once` of them at a time (0: all), and waits until they have ended, for `limit` at most: what
    /// runs then is canceled. On return the local ranges are not touched any more, whatever the result. The error is that of
    /// the first task that failed, or of a submit that was refused; the rest is not submitted then.
    pub fn transfer(
        &self,
        count: usize,
        at_once: usize,
        entry: impl Fn(usize) -> Request,
        nics: Option<&str>,
        limit: Option<Duration>,
    ) -> Result<()> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let at_once = if at_once == 0 { count } else { at_once };
        let mut first = 0;
        while first < count {
            let part = at_once.min(count - first);
            self.transfer_part(part, |index| entry(first + index), nics, deadline).map_err(
                |e| match first {
                    0 => e,
                    _ => e.context(format!("requests {first} to {}", first + part - 1)),
                },
            )?;
            first += part;
        }
        Ok(())
    }

    fn transfer_part(
        &self,
        count: usize,
        entry: impl Fn(usize) -> Request,
        nics: Option<&str>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let batch = self.allocate_batch(count)?;
        let moved = self.submit_over(batch, count, entry, None, nics).and_then(|()| {
            let late = self.end_of(batch, deadline)?;
            self.first_failure(batch, count).map_err(|e| if late { as_late(e) } else { e })
        });
        // Only refused while a task runs, and none does.
        let freed = self.free_batch(batch);
        moved.and(freed)
    }

    /// Waits until every task has ended, of itself or because the time is over, which is `true`.
    fn end_of(&self, batch: u64, deadline: Option<Instant>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match self.wait_batch(batch, left) {
            Err(error) if error.code() == Code::BatchBusy => {
                self.cancel_batch(batch)?;
                self.wait_batch(batch, None).map(|()| true)
            }
            done => done.map(|()| false),
        }
    }

    fn first_failure(&self, batch: u64, count: usize) -> Result<()> {
        let summary = self.batch_status(batch, |_, _, _| {})?;
        if summary.failed == 0 {
            return Ok(());
        }
        for task in 0..count {
            if let Some(error) = self.task_error(batch, task)? {
                return Err(error);
            }
        }
        let text = "a task failed and has no reason: a bug of the library; report the log";
        Err(Error::invalid(text).permanent(Class::Internal))
    }
}

/// What was canceled because the time was over has run out of time.
fn as_late(error: Error) -> Error {
    if error.kind() != Class::Canceled {
        return error;
    }
    let text = "the call's time-out passed before the request ended, which was given up then";
    Error::new(Code::Socket, text).transient(Class::Timeout).peer(error.peer_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine_with(memory: &[u8]) -> std::sync::Arc<Engine> {
        let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
        engine.install_transport("tcp", None).unwrap();
        let range = crate::memory::Range { addr: memory.as_ptr() as u64, len: memory.len() as u64 };
        engine.register(&[range], "*", true).unwrap();
        engine
    }

    #[test]
    fn a_transfer_in_parts_moves_everything() {
        let memory: Vec<u8> = (0..=255).collect();
        let engine = engine_with(&memory);
        let start = memory.as_ptr() as u64;
        // Byte i of the first half to byte i of the second one.
        let entry = |index: usize| Request {
            opcode: 1,
            source: start + index as u64,
            target: 0,
            offset: start + 128 + index as u64,
            len: 1,
        };
        engine.transfer(100, 7, entry, None, None).unwrap();
        let moved = std::hint::black_box(&memory);
        assert_eq!(moved[128..228], moved[..100]);
        assert_eq!(moved[228..], (228..=255).collect::<Vec<u8>>());
        engine.destroy();
    }

    #[test]
    fn a_refused_part_ends_the_transfer_with_its_code() {
        let memory = vec![0; 64];
        let engine = engine_with(&memory);
        let start = memory.as_ptr() as u64;
        let entry = |index: usize| Request {
            opcode: 1,
            source: start + index as u64 * 16,
            target: 0,
            offset: start,
            len: 16,
        };
        let error = engine.transfer(5, 4, entry, None, None).unwrap_err();
        assert_eq!(error.code(), Code::AddressNotRegistered);
        assert!(error.to_string().contains("requests 4 to 4"), "{error}");
        engine.transfer(0, 0, entry, None, None).unwrap();
        engine.destroy();
    }
}
