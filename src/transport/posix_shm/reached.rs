//! A peer that was found on this host: its process, its objects, and the copies between them and slices.

use super::errors;
use super::kernel;
use super::object::{Object, Objects, Refusal};
use super::offer::PosixShmOffer;
use super::process::Process;
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::runtime::resolve::{resolve, Family};
use crate::runtime::{blocking, clock};
use crate::transport::host::Route;
use crate::transport::slice::{Op, Slice};

/// A process that was proven to be the peer, and what is open of it.
pub(super) struct Reached {
    process: Process,
    /// What is open.
    pub objects: Objects,
}

impl Reached {
    /// The process that the peer's descriptor speaks of, which is read again before if it `is_stale`. Class UNSUPPORTED if it is
    /// not proven to be the peer.
    pub(super) async fn find(config: &Config, route: &dyn Route, is_stale: bool) -> Result<Self> {
        if is_stale {
            route.refresh().await?;
        }
        let offered = route.offer();
        let offer = offered.offer.as_ref().and_then(|offer| PosixShmOffer::of(&**offer));
        let Some(pid) = offer.map(|offer| offer.pid).filter(|pid| *pid != 0) else {
            return Err(errors::restarted(route.peer()));
        };
        let address = route.rpc_address().await?;
        let addresses = resolve(&address.host, address.port, Family::of(config)).await?;
        let proven = blocking::run(move || Process::prove(pid, &addresses)).await?;
        let process = proven.map_err(|why| errors::not_proven(why, route.peer()))?;
        Ok(Reached { process, objects: Objects::new() })
    }

    /// The peer's process, as it calls itself.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Whether the process is still there.
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Copies the slice, on the calling thread, to or from the object that the offer names. Class REJECTED if the peer does not
    /// have it any more, before or after the copy.
    pub(super) fn copy(&self, slice: &Slice, offer: Option<&PosixShmOffer>, peer: &str) -> Result<()> {
        let found = offer
            .filter(|offer| offer.pid == self.pid())
            .and_then(|offer| offer.around(slice.remote, slice.len));
        let Some((buffer, name)) = found else {
            return Err(errors::refused(slice, peer, "it does not publish them any more"));
        };
        let refused = |refusal| of_refusal(refusal, slice, peer);
        let object = self.objects.get(buffer, name, &self.process).map_err(refused)?;
        let offset = slice.remote - buffer.addr;
        let end = offset + slice.len;
        let outcome = object.check(end).map_err(refused).and_then(|()| {
            slice.note_posted(clock::now_ns());
            move_bytes(&object, offset, slice).map_err(|fault| errors::of_fault(&fault, slice, peer))?;
            // What was written to an object that the peer has let go meanwhile is nowhere.
            object.check(end).map_err(refused)
        });
        if outcome.as_ref().is_err_and(|error| error.kind() == Class::Rejected) {
            self.objects.forget(&object);
        }
        outcome
    }
}

fn move_bytes(object: &Object, offset: u64, slice: &Slice) -> Result<(), kernel::Fault> {
    match slice.op {
        Op::Read => kernel::read(&object.file, offset, slice.local, slice.len),
        Op::Write => kernel::write(&object.file, offset, slice.local, slice.len),
    }
}

fn of_refusal(refusal: Refusal, slice: &Slice, peer: &str) -> Error {
    match refusal {
        Refusal::Gone(why) => errors::refused(slice, peer, why),
        Refusal::Doubtful(why) => errors::not_proven(why, peer),
        Refusal::Resource(error) => {
            Error::io(Code::Memory, "the peer's shared memory cannot be opened (check ulimit -n)", &error)
                .peer(peer)
        }
    }
}
