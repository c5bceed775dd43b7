//! What a peer's descriptor offers one transport.

use std::any::Any;
use std::sync::Arc;

use serde_json::{json, Value};

use super::ranges::Ranges;
use crate::error::{Code, Error, Result};
use crate::json::members::Members;
use crate::memory::Region;
use crate::segment_desc::{SegmentDesc, BUFFERS};

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

/// Buffers to be shown to a caller: first byte, bytes, name of each.
pub type Shown<'a> = Box<dyn ExactSizeIterator<Item = (u64, u64, &'a str)> + 'a>;

impl PeerBuffer {
    /// `buffers` to be shown.
    pub fn shown(buffers: &[PeerBuffer]) -> Shown<'_> {
        Box::new(buffers.iter().map(|buffer| (buffer.addr, buffer.len, &*buffer.name)))
    }
}

/// Lists regions in the plain form: the segment's name, address and length of each. `ERR_MEMORY` if the list does not fit.
pub fn list_plain(regions: &[Arc<Region>], desc: &mut SegmentDesc) -> Result<()> {
    let name = desc.name.clone();
    let buffer = |region: &Arc<Region>| json!({"name": name, "addr": region.addr, "length": region.len});
    let mut buffers = Vec::new();
    buffers.try_reserve_exact(regions.len()).map_err(|_| Error::out_of_memory(BUFFERS))?;
    buffers.extend(regions.iter().map(buffer));
    desc.put(BUFFERS, buffers);
    Ok(())
}

/// The buffers that a peer offers a transport which needs no more than address and length, and the ranges that a request
/// may lie in. In the form of `protocol` itself a request lies in one buffer; in another transport's form a region may be
/// several entries, and an entry with an empty list of keys is not for peers.
pub fn plain_buffers(desc: &SegmentDesc, protocol: &str) -> Result<(Vec<PeerBuffer>, Ranges)> {
    let own_form = desc.protocol == protocol;
    let buffers = if own_form { desc.list(BUFFERS, PeerBuffer::read)? } else { of_other_form(desc)? };
    let each = buffers.iter().map(|buffer| (buffer.addr, buffer.len));
    let ranges = if own_form { Ranges::single(each)? } else { Ranges::joined(each)? };
    Ok((buffers, ranges))
}

/// Whether the form is right is for its own transport to say.
fn of_other_form(desc: &SegmentDesc) -> Result<Vec<PeerBuffer>> {
    let open = |value: &Value| !value["rkey"].as_array().is_some_and(|keys| keys.is_empty());
    let items = desc.members.get(BUFFERS).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut buffers = Vec::new();
    buffers.try_reserve_exact(items.len()).map_err(|_| Error::out_of_memory(BUFFERS))?;
    for item in items.iter().filter(|item| open(item)) {
        buffers.extend(Members::of(item, "element").and_then(|members| PeerBuffer::read(&members)).ok());
    }
    Ok(buffers)
}

/// A peer's descriptor as one transport reads it. Immutable.
pub trait Offer: Send + Sync {
    /// Whether the peer can be reached by it where the transport is installed. If not,
    /// [`super::protocol::Protocol::unreachable`] says why.
    fn leads(&self) -> bool;

    /// The ranges that a request may lie in.
    fn ranges(&self) -> &Ranges;

    /// The buffers that may be accessed, as callers are shown them. Not as a list, for which there may be no memory.
    fn buffers(&self) -> Shown<'_>;

    /// The peer's incarnation (see [`super::incarnation::key`]) as far as this transport proves it when it connects; 0:
    /// not at all.
    fn incarnation(&self) -> u64;

    /// Whether `other`, of the same transport, says the same: then nothing that was prepared for it has to be made
    /// anew.
    fn same_as(&self, other: &dyn Offer) -> bool;

    /// Lets the transport that made the offer get its own type back.
    fn as_any(&self) -> &dyn Any;
}
