//! A transport for tests: moves bytes between the engines of one process by copying them. It shows that one folder and one
//! row are enough, and is as simple as one can be.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::host::{Host, Route};
use super::offer::{list_plain, plain_buffers, Offer, PeerBuffer, Shown};
use super::protocol::Protocol;
use super::ranges::Ranges;
use super::slice::{Ends, Op, Slice};
use super::{local, Link, Transport};
use crate::error::{Class, Code, Error, Result};
use crate::memory::{PeerAccess, Region, Registry};
use crate::segment_desc::SegmentDesc;
use crate::topology::Matrix;

const NAME: &str = "echo";
/// Number of the engine among those of the process.
const ID: &str = "echo_id";

/// Where the memory of each engine is looked up; stopped ones are gone.
static ENGINES: Mutex<BTreeMap<u64, Weak<Registry>>> = Mutex::new(BTreeMap::new());

/// The row of the table.
pub(super) struct Row;

impl Protocol for Row {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_extension(&self) -> bool {
        true
    }

    fn members(&self) -> &'static [&'static str] {
        &[ID]
    }

    fn read(&self, desc: &SegmentDesc) -> Result<Option<Arc<dyn Offer>>> {
        let Some(id) = desc.typed().uint(ID)? else { return Ok(None) };
        let (buffers, ranges) = plain_buffers(desc, NAME)?;
        Ok(Some(Arc::new(EchoOffer { id, buffers, ranges })))
    }

    fn install(&self, host: Arc<dyn Host>, _: Option<&Matrix>) -> Result<Arc<dyn Transport>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Relaxed);
        ENGINES.lock().unwrap().insert(id, Arc::downgrade(host.registry()));
        Ok(Arc::new(Echo { id, host, moved: Arc::default() }))
    }

    fn unreachable(&self, peer: &str, _: Option<&dyn Offer>) -> Error {
        Error::invalid(format!("segment '{peer}' is reached by {NAME}, which is not installed here"))
            .peer(peer)
    }
}

struct EchoOffer {
    id: u64,
    buffers: Vec<PeerBuffer>,
    ranges: Ranges,
}

impl Offer for EchoOffer {
    fn leads(&self) -> bool {
        true
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn buffers(&self) -> Shown<'_> {
        PeerBuffer::shown(&self.buffers)
    }

    /// The number is the engine's and never used again.
    fn incarnation(&self) -> u64 {
        self.id
    }

    fn same_as(&self, other: &dyn Offer) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| self.id == other.id && self.buffers == other.buffers)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Echo {
    id: u64,
    host: Arc<dyn Host>,
    moved: Arc<AtomicU64>,
}

impl Transport for Echo {
    fn name(&self) -> &'static str {
        NAME
    }

    /// A request is over before its submit call returns.
    fn abort(&self, _: &Arc<Region>) {}

    fn describe(&self, desc: &mut SegmentDesc) {
        desc.put(ID, self.id);
    }

    fn list_buffers(&self, desc: &mut SegmentDesc) -> Result<bool> {
        list_plain(&self.host.registry().published()?, desc)?;
        Ok(true)
    }

    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link> {
        Arc::new(EchoLink {
            host: self.host.clone(),
            route,
            moved: self.moved.clone(),
            closed: OnceLock::new(),
        })
    }

    fn stop(&self) {
        ENGINES.lock().unwrap().remove(&self.id);
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        vec![("echo_slices", self.moved.load(Relaxed))]
    }
}

struct EchoLink {
    host: Arc<dyn Host>,
    route: Arc<dyn Route>,
    moved: Arc<AtomicU64>,
    closed: OnceLock<Error>,
}

impl EchoLink {
    /// Over to the engine of this number only: whoever has come back in its place has another one.
    fn carry(&self, slice: Slice, id: u64) {
        if let Some(closed) = self.closed.get() {
            return slice.fail(closed.clone());
        }
        let registry = ENGINES.lock().unwrap().get(&id).and_then(Weak::upgrade);
        let Some(registry) = registry else { return slice.fail(self.gone()) };
        let wanted = if slice.op == Op::Read { PeerAccess::READ } else { PeerAccess::WRITE };
        match registry.use_for_peer(slice.remote, slice.len, wanted) {
            Some(held) => {
                self.moved.fetch_add(1, Relaxed);
                local::copy(slice, &held, &mut Ends::default());
            }
            None => {
                let text =
                    format!("{} bytes at {:#x} are not registered at the peer", slice.len, slice.remote);
                slice.fail(Error::new(Code::AddressNotRegistered, text).permanent(Class::Rejected));
            }
        }
    }

    /// The next request may find the one who came back.
    fn gone(&self) -> Error {
        let route = self.route.clone();
        self.host.control().spawn(async move {
            // If the peer cannot be read now, the next request tries again.
            let _ = route.refresh().await;
        });
        let text = "the peer's engine is gone; its descriptor is being read again";
        Error::new(Code::Socket, text).transient(Class::Network).peer(self.route.peer())
    }
}

impl Link for EchoLink {
    fn submit(&self, slices: Vec<Slice>, incarnation: u64) {
        slices.into_iter().for_each(|slice| self.carry(slice, incarnation));
    }

    fn poll(&self) -> bool {
        false
    }

    fn rely_on_threads(&self) {}

    fn give_up(&self) {}

    fn close(&self, error: &Error) {
        let _ = self.closed.set(error.clone());
    }
}
