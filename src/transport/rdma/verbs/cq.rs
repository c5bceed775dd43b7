//! Completion queues, and the channels that tell when one has something.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdma_sys::{ibv_comp_channel, ibv_cq};

use super::context::{set_nonblocking, Context};
use super::library::{last_errno, note_leak, returned_errno, NotifyCq, PollCq};
use super::wc::Wc;
use crate::error::{Error, Result};

/// A completion channel: a descriptor that becomes readable when an armed queue gets a completion.
#[derive(Debug)]
pub struct Channel {
    raw: NonNull<ibv_comp_channel>,
    fd: RawFd,
    context: Arc<Context>,
}

// SAFETY: libibverbs' functions on a channel may be called from any thread, and concurrently.
unsafe impl Send for Channel {}
// SAFETY: as above; we never write to the struct.
unsafe impl Sync for Channel {}

impl Channel {
    /// A new channel of `context`. `ERR_CONTEXT` with errno.
    pub fn create(context: &Arc<Context>) -> Result<Arc<Self>> {
        // SAFETY: an open context.
        let raw = NonNull::new(unsafe { (context.library.ibv_create_comp_channel)(context.raw.as_ptr()) });
        let raw = raw
            .ok_or_else(|| context.refused("create a completion channel (check ulimit -n)", last_errno()))?;
        // SAFETY: a channel just made.
        let fd = unsafe { (*raw.as_ptr()).fd };
        let channel = Arc::new(Channel { raw, fd, context: context.clone() });
        set_nonblocking(fd).map_err(|errno| context.refused("prepare a completion channel", errno))?;
        Ok(channel)
    }

    /// Readable when there are events; non-blocking. Valid as long as the channel.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Takes and acknowledges all pending events; returns how many there were. A queue has at most one for each time it
    /// was armed.
    pub fn drain(&self) -> Result<usize> {
        let library = self.context.library;
        let mut events = 0;
        loop {
            let mut cq = ptr::null_mut();
            let mut cookie = ptr::null_mut();
            // SAFETY: a live channel and two live variables.
            if unsafe { (library.ibv_get_cq_event)(self.raw.as_ptr(), &mut cq, &mut cookie) } == 0 {
                // SAFETY: the queue of an event just got: it cannot be destroyed before this call.
                unsafe { (library.ibv_ack_cq_events)(cq, 1) };
                events += 1;
                continue;
            }
            match last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => return Ok(events),
                errno => return Err(self.context.refused("read completion events", errno)),
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: created; queues keep it alive, so none is left.
        let returned = unsafe { (self.context.library.ibv_destroy_comp_channel)(self.raw.as_ptr()) };
        note_leak("a completion channel", self.context.name(), returned);
    }
}

/// A completion queue.
#[derive(Debug)]
pub struct Cq {
    pub(super) raw: NonNull<ibv_cq>,
    poll: PollCq,
    notify: NotifyCq,
    channel: Arc<Channel>,
}

// SAFETY: libibverbs' functions on a completion queue may be called from any thread, and concurrently.
unsafe impl Send for Cq {}
// SAFETY: as above; we never write to the struct.
unsafe impl Sync for Cq {}

impl Cq {
    /// A queue of at least `depth` entries whose events go to `channel`, by completion vector `vector` modulo the
    /// device's number of them. `ERR_CONTEXT` with errno.
    pub fn create(
        context: &Arc<Context>,
        depth: u32,
        channel: &Arc<Channel>,
        vector: u32,
    ) -> Result<Arc<Self>> {
        let what = format_args!("create a completion queue of {depth} entries");
        if !Arc::ptr_eq(context, &channel.context) {
            let other = channel.context.name();
            return Err(Error::invalid(format!("channel of {other} for a queue of {}", context.name())));
        }
        // SAFETY: an open context; the members never change.
        let (ops, vectors) =
            unsafe { ((*context.raw.as_ptr()).ops, (*context.raw.as_ptr()).num_comp_vectors) };
        let (Some(poll), Some(notify)) = (ops.poll_cq, ops.req_notify_cq) else {
            return Err(context.refused(what, libc::EOPNOTSUPP));
        };
        let entries = c_int::try_from(depth).map_err(|_| context.refused(what, libc::EINVAL))?;
        let vector = vector % u32::try_from(vectors).unwrap_or(1).max(1);
        // SAFETY: an open context and a channel of it, which the queue keeps alive.
        let raw = NonNull::new(unsafe {
            (context.library.ibv_create_cq)(
                context.raw.as_ptr(),
                entries,
                ptr::null_mut(),
                channel.raw.as_ptr(),
                vector as c_int,
            )
        });
        let raw = raw.ok_or_else(|| context.refused(what, last_errno()))?;
        Ok(Arc::new(Cq { raw, poll, notify, channel: channel.clone() }))
    }

    /// Takes completions into the front of `into`; returns how many. Does not block.
    pub fn poll(&self, into: &mut [Wc]) -> Result<usize> {
        let room = c_int::try_from(into.len()).unwrap_or(c_int::MAX);
        // SAFETY: a live queue and as many entries, of the library's layout, as is said.
        let polled = unsafe { (self.poll)(self.raw.as_ptr(), room, into.as_mut_ptr().cast()) };
        match usize::try_from(polled) {
            Ok(polled) => Ok(polled.min(into.len())),
            Err(_) => Err(self.context().refused("poll a completion queue", returned_errno(polled))),
        }
    }

    /// The next completion that arrives makes an event in the channel. Poll again after this: what arrived before
    /// makes none.
    pub fn arm(&self) -> Result<()> {
        // SAFETY: a live queue.
        match unsafe { (self.notify)(self.raw.as_ptr(), 0) } {
            0 => Ok(()),
            returned => Err(self.context().refused("arm a completion queue", returned_errno(returned))),
        }
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.channel.context
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: created; queue pairs keep it alive, so none is left. Waits for `drain` of another thread.
        let returned = unsafe { (self.context().library.ibv_destroy_cq)(self.raw.as_ptr()) };
        note_leak("a completion queue", self.context().name(), returned);
    }
}
