//! What a peer's descriptor offers one transport.

use std::any::Any;

use super::ranges::Ranges;
use crate::error::{Code, Error, Result};
use crate::json::members::Members;

/// A buffer that a peer publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerBuffer {
    /// First byte, an address of the peer.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// What the descriptor calls it: a location, or the peer's name.
    pub name: String,
}

impl PeerBuffer {
    /// Reads an element of `buffers`: `name`, `addr`, `length`, none of them empty or 0. `ERR_MALFORMED_JSON` naming
    /// the member that is missing or out of range, also when the end passes 2^64.
    pub fn read(members: &Members<'_>) -> Result<Self> {
        let malformed = |why: String| Error::new(Code::MalformedJson, why);
        let nonzero = |name| match members.uint::<u64>(name)? {
            None | Some(0) => Err(malformed(format!("member '{name}' is missing or 0"))),
            Some(number) => Ok(number),
        };
        let name = members.filled_text("name")?.into();
        let (addr, len) = (nonzero("addr")?, nonzero("length")?);
        if addr.checked_add(len).is_none() {
            return Err(malformed(format!("addr {addr} plus length {len} passes 2^64")));
        }
        Ok(PeerBuffer { addr, len, name })
    }
}

/// A peer's descriptor as one transport reads it. Immutable.
pub trait Offer: Send + Sync {
    /// Whether the peer can be reached by it where the transport is installed. If not,
    /// [`super::protocol::Protocol::unreachable`] says why.
    fn leads(&self) -> bool;

    /// The ranges that a request may lie in.
    fn ranges(&self) -> &Ranges;

    /// The buffers that may be accessed, as callers are shown them.
    fn buffers(&self) -> Vec<PeerBuffer>;

    /// The peer's incarnation (see [`super::incarnation::key`]) as far as this transport proves it when it connects; 0:
    /// not at all.
    fn incarnation(&self) -> u64;

    /// Whether `other`, of the same transport, says the same: then nothing that was prepared for it has to be made
    /// anew.
    fn same_as(&self, other: &dyn Offer) -> bool;

    /// Lets the transport that made the offer get its own type back.
    fn as_any(&self) -> &dyn Any;
}
