//! What every transport offers the engine. A transport is a folder here and a row of [`table`]; transports never know
//! each other, the engine or a metadata store.
//!
//! [`protocol::Protocol`] is what is known before a transport is installed, [`Transport`] is an installed one,
//! [`offer::Offer`] is what a peer's descriptor says of it, [`Link`] is the way to one peer. What a transport asks of
//! the engine it asks of [`host::Host`] and [`host::Route`].

use std::sync::Arc;
use std::time::Duration;

pub mod counters;
#[cfg(feature = "internals")]
#[path = "../../tests/transports/echo.rs"]
mod echo;
pub mod host;
pub mod incarnation;
pub mod links;
pub mod local;
pub mod meter;
pub mod offer;
pub mod posix_shm;
pub mod protocol;
pub mod ranges;
#[cfg(feature = "rdma")]
pub mod rdma;
pub mod report;
pub mod shm;
pub mod slice;
pub mod table;
pub mod tcp;

use crate::error::{Error, Result};
use crate::handshake::ConnectionMessage;
use crate::memory::{Kind, Region};
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use host::Route;
use report::{NicReport, QueueReport, RailReport};
use slice::Slice;

/// How a transport moves memory of some kind.
// No transport stages yet.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// From where it lies.
    Direct,
    /// Through host memory of the transport's own.
    Staged,
    /// Not at all.
    No,
}

/// An installed transport. Methods may be called from any thread and do not block, unless
/// they say so.
pub trait Transport: Send + Sync {
    /// The protocol's name in C and in descriptors.
    fn name(&self) -> &'static str;

    /// Prepares regions for transfers: all of them or none. May block.
    fn register(&self, regions: &[Arc<Region>]) -> Result<()> {
        let _ = regions;
        Ok(())
    }

    /// Gives up what `register` made, after the region's last use. May block.
    fn unregister(&self, region: &Arc<Region>) {
        let _ = region;
    }

    /// Ends every use of a revoked region, own slices and inbound requests alike. Returns
    /// when that is under way; the caller waits for the region's use count.
    fn abort(&self, region: &Arc<Region>);

    /// Adds what the transport says in every descriptor, whichever form the buffers have.
    fn describe(&self, desc: &mut SegmentDesc) {
        let _ = desc;
    }

    /// Lists the regions that peers may access in this transport's form, with what belongs to the form; `false`, and
    /// nothing is added, if it has no region to offer now. Called until one transport says `true`: that one is the
    /// descriptor's protocol. `ERR_MEMORY` if the list does not fit.
    fn list_buffers(&self, desc: &mut SegmentDesc) -> Result<bool>;

    /// A link to the peer that `route` leads to.
    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link>;

    /// Whether a connection request is for this transport, because it names a NIC of it.
    fn is_asked(&self, request: &ConnectionMessage) -> bool {
        let _ = request;
        false
    }

    /// Answers a peer's connection request (type 0); `None` if this transport has no such connections. What no transport
    /// [is asked](Transport::is_asked) for is refused by the first that has them.
    fn answer(&self, request: &ConnectionMessage) -> Option<BoxFuture<'static, ConnectionMessage>> {
        let _ = request;
        None
    }

    /// How long a submit call of that many bytes may take when the caller has set no limit; `None`: the transport
    /// has limits of its own.
    fn task_limit(&self, bytes: u64) -> Option<Duration> {
        let _ = bytes;
        None
    }

    /// How local memory of `kind` is moved; asked in every submit call, so cheap.
    fn takes(&self, kind: &Kind) -> Takes {
        match kind {
            Kind::Host | Kind::Shared(_) => Takes::Direct,
            _ => Takes::No,
        }
    }

    /// Whether local memory may be used that was never registered.
    fn takes_any_source(&self) -> bool {
        false
    }

    /// The NICs in use, also those that are down.
    fn nics(&self) -> Vec<NicReport> {
        Vec::new()
    }

    /// The pairs of a local NIC and a peer's NIC that were used.
    fn rails(&self) -> Vec<RailReport> {
        Vec::new()
    }

    /// What is under way and waits, by peer and local end; an end without any may be missing.
    fn queues(&self) -> Vec<QueueReport> {
        Vec::new()
    }

    /// Fails everything in flight, closes all sockets, joins all threads. Idempotent.
    fn stop(&self);

    /// Named counters since installation, for metrics and diagnostics.
    fn stats(&self) -> Vec<(&'static str, u64)>;
}

/// Ranges, as first byte and bytes, that a slice does not leave.
#[derive(Clone, Copy, Debug)]
pub struct Seams {
    /// On this side.
    pub local: (u64, u64),
    /// At the peer.
    pub remote: (u64, u64),
}

impl Default for Seams {
    /// No seam but those of the region and of the request.
    fn default() -> Self {
        Seams { local: (0, u64::MAX), remote: (0, u64::MAX) }
    }
}

/// The way from this engine to one segment over one transport.
pub trait Link: Send + Sync {
    /// Whether this way was proven to lead to the peer, where that has to be found out. While it was not, other transports are
    /// used as if this one was not offered, which is no fall-back. Asked in every submit call, so cheap; begins to find out.
    fn leads(&self) -> bool {
        true
    }

    /// Whether slices can be moved at all just now; asked once per submit call, which is refused with this error
    /// as a whole. Cheap: it reads no more than a few words of memory.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// How long the slices of a submit call are meant to be that moves `bytes` in all, of which the first lie at `source`
    /// here and at `remote` at the peer. Asked once per call and link, for [`Link::cut`].
    fn grain(&self, bytes: u64, source: u64, remote: u64) -> u64 {
        let _ = (bytes, source, remote);
        u64::MAX
    }

    /// How far slices may go around `source` here, which lies in `region` (`None`: not registered), and around `remote` at the
    /// peer. Asked again where a request leaves these ranges.
    fn seams(&self, region: Option<&Region>, source: u64, remote: u64) -> Seams {
        let _ = (region, source, remote);
        Seams::default()
    }

    /// Length of the next slice of a request that has `left` bytes to go, more than `grain`, which is what [`Link::grain`] said
    /// for the call. At least 1, at most `left`; cut again where a range of [`Link::seams`] ends.
    fn cut(&self, left: u64, grain: u64) -> u64 {
        left.min(grain)
    }

    /// Posts `slices`, whose addresses were checked against the descriptor of the peer's
    /// `incarnation` (see [`incarnation::key`]; 0: unknown). Each is finished later, on any thread, whatever happens.
    fn submit(&self, slices: Vec<Slice>, incarnation: u64);

    /// Whether [`Link::submit_over`] takes this list of local NICs, separated by commas; -1 if it names one that the transport
    /// does not have. A transport without NICs takes any.
    fn check_nics(&self, nics: &str) -> Result<()> {
        let _ = nics;
        Ok(())
    }

    /// As [`Link::submit`], over the local NICs that `nics` names as long as one of them works.
    fn submit_over(&self, slices: Vec<Slice>, incarnation: u64, nics: &str) {
        let _ = nics;
        self.submit(slices, incarnation);
    }

    /// Moves what can be moved now, without blocking, on the caller's thread. `false` when nothing moved.
    fn poll(&self) -> bool;

    /// Of links with the same number it is enough to poll one.
    fn poller(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The caller is going to sleep: completions must be picked up by our own threads.
    fn rely_on_threads(&self);

    /// Some slices [were given up](Slice::is_given_up): they fail, as soon as nothing touches their local bytes. Does not
    /// block. What is submitted later is looked at when it is.
    fn give_up(&self);

    /// What connections tell of the process whose descriptor was read last: one is up that would have ended with it, or
    /// (`false`) one has ended or could not be made since, and none is up. `None`: they do not tell. As cheap as
    /// [`Link::ready`].
    fn peer_lives(&self) -> Option<bool> {
        None
    }

    /// Fails everything that waits or is under way with `error` and closes the connections.
    fn close(&self, error: &Error);
}
