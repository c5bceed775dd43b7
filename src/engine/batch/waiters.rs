//! Whoever sleeps until the tasks of a batch are terminal, and whoever tells of their ends.

use std::time::Instant;

use super::Batch;
use crate::error::{Code, Error, Result};
use crate::runtime::sync::atomic::Ordering;
use crate::runtime::wakeup::Wakeup;
use crate::transport::slice::Sink;

impl Sink for Batch {
    fn task_ended(&self, failed: bool) {
        if failed {
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
        self.count_out(1);
    }

    fn tasks_completed(&self, count: usize) {
        self.count_out(count);
    }
}

impl Batch {
    fn count_out(&self, count: usize) {
        // SeqCst on both: either this sees `watched`, or the watcher sees `pending` 0.
        if self.pending.fetch_sub(count, Ordering::SeqCst) == count && self.watched.load(Ordering::SeqCst) {
            let waiters = self.waiters.lock();
            if self.is_done() {
                if let Some(fd) = &*waiters {
                    fd.set();
                }
                self.all_ended.notify_all();
            }
        }
    }
}

impl Batch {
    /// Sleeps until every task is terminal or `deadline`; `false` in the latter case.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        self.watched.store(true, Ordering::SeqCst);
        self.links().for_each(|link| link.rely_on_threads());
        let mut waiters = self.waiters.lock();
        while !self.is_done() {
            match deadline {
                None => self.all_ended.wait(&mut waiters),
                Some(deadline) if self.all_ended.wait_until(&mut waiters, deadline).timed_out() => {
                    return self.is_done();
                }
                Some(_) => {}
            }
        }
        true
    }

    /// A descriptor that is readable while every submitted task is terminal.
    pub fn descriptor(&self) -> Result<i32> {
        self.watched.store(true, Ordering::SeqCst);
        self.links().for_each(|link| link.rely_on_threads());
        let mut waiters = self.waiters.lock();
        if waiters.is_none() {
            let made = Wakeup::new();
            let fd =
                made.map_err(|e| Error::io(Code::Socket, "cannot create an eventfd (check ulimit -n)", &e))?;
            if self.used.load(Ordering::SeqCst) && self.is_done() {
                fd.set();
            }
            *waiters = Some(fd);
        }
        let no_fd = || Error::out_of_memory("an eventfd");
        waiters.as_ref().map(Wakeup::fd).ok_or_else(no_fd)
    }

    pub(super) fn add_pending(&self, count: usize) {
        // Before `pending`, so that a descriptor made meanwhile is not left unreadable.
        self.used.store(true, Ordering::SeqCst);
        self.pending.fetch_add(count, Ordering::SeqCst);
        // SeqCst on both: either this sees `watched`, or the watcher sees `pending`.
        if !self.watched.load(Ordering::SeqCst) {
            return;
        }
        if let Some(fd) = &*self.waiters.lock() {
            if self.is_done() {
                fd.set();
            } else {
                fd.clear();
            }
        }
    }

    /// Somebody sleeps on this batch, so completions must not wait for a poll.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }
}
