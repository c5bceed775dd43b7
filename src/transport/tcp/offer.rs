//! TCP's members of the descriptor: written for this engine, read from a peer's.

use std::any::Any;
use std::net::IpAddr;

use serde_json::Value;

use super::nics;
use super::shared::Endpoint;
use super::wire;
use crate::error::{Code, Error, Result};
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Offered, Route};
use crate::transport::incarnation;
use crate::transport::offer::{self, Offer, PeerBuffer, Shown};
use crate::transport::ranges::Ranges;

/// The name in descriptors; as the members below, upstream's.
pub(super) const NAME: &str = "tcp";
const HOST: &str = "tcp_data_host";
const PORT: &str = "tcp_data_port";
const PROTO_VERSION: &str = "tcp_proto_version";
/// Address of the cell that holds the incarnation; a member of this project only.
const CELL: &str = "incarnation_addr";
/// Addresses of the publisher's NICs at which the data port is reached too; a member of this project only.
const ADDRESSES: &str = "tcp_data_addresses";
/// The members that are TCP's own.
pub(super) const MEMBERS: &[&str] = &[HOST, PORT, PROTO_VERSION, CELL, ADDRESSES];

/// Upstream's numbers of the framings: the one with status frames, which this project speaks, and the one of a peer
/// whose descriptor names none.
const OUR_VERSION: u32 = 2;
const OLDEST_VERSION: u32 = 1;

/// Where our data port is.
pub(super) struct Ours<'a> {
    /// Host that peers connect to.
    pub host: &'a str,
    /// Data port.
    pub port: u16,
    /// Address of the cell that holds the incarnation.
    pub cell: u64,
    /// Addresses of the NICs that lanes of peers may be spread over.
    pub addresses: &'a [IpAddr],
}

/// Adds our members.
pub(super) fn describe(ours: &Ours<'_>, desc: &mut SegmentDesc) {
    desc.put(HOST, ours.host);
    desc.put(PORT, ours.port);
    desc.put(PROTO_VERSION, OUR_VERSION);
    desc.put(CELL, ours.cell);
    if !ours.addresses.is_empty() {
        let addresses: Vec<String> = ours.addresses.iter().map(IpAddr::to_string).collect();
        desc.put(ADDRESSES, addresses);
    }
}

/// Upstream writes these in every descriptor.
pub(super) fn describe_absence(desc: &mut SegmentDesc) {
    desc.put(PORT, 0);
    desc.put(PROTO_VERSION, OLDEST_VERSION);
}

/// What a peer offers.
pub(super) struct TcpOffer {
    host: Option<String>,
    /// 0 if there is none.
    port: u16,
    proto_version: u32,
    incarnation: Option<[u8; wire::INCARNATION_LEN]>,
    /// 0 if there is none.
    cell: u64,
    addresses: Vec<IpAddr>,
    buffers: Vec<PeerBuffer>,
    ranges: Ranges,
}

impl TcpOffer {
    /// `None` if the descriptor is another transport's and names no data port.
    pub(super) fn read(desc: &SegmentDesc) -> Result<Option<Self>> {
        let members = desc.typed();
        let port = members.uint(PORT)?.unwrap_or(0);
        let own_form = desc.protocol == NAME;
        let host = members.optional_text(HOST)?;
        let proto_version = members.uint(PROTO_VERSION)?.unwrap_or(OLDEST_VERSION);
        let cell = members.uint(CELL)?.unwrap_or(0);
        let addresses = addresses_in(members.array(ADDRESSES)?)?;
        if !own_form && port == 0 {
            return Ok(None);
        }
        let (buffers, ranges) = offer::plain_buffers(desc, NAME)?;
        let incarnation = desc.incarnation.as_deref().and_then(incarnation::unhex);
        Ok(Some(TcpOffer { host, port, proto_version, incarnation, cell, addresses, buffers, ranges }))
    }

    /// What a connection reads to know that it talks to the process that the descriptor speaks of: the incarnation id,
    /// and the address of the cell that holds it.
    fn proof(&self) -> Option<([u8; wire::INCARNATION_LEN], u64)> {
        self.incarnation.filter(|_| self.cell != 0).map(|id| (id, self.cell))
    }
}

impl Offer for TcpOffer {
    fn leads(&self) -> bool {
        self.port != 0
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn buffers(&self) -> Shown<'_> {
        PeerBuffer::shown(&self.buffers)
    }

    /// A connection proves the incarnation by reading the peer's cell. Without a cell nothing is proven, and this is 0.
    fn incarnation(&self) -> u64 {
        self.proof().map_or(0, |(id, _)| incarnation::key(&id))
    }

    /// The framing may differ: each connection uses the one that the descriptor names when it is made, and upstream does
    /// not compare it either.
    fn same_as(&self, other: &dyn Offer) -> bool {
        let Some(other) = other.as_any().downcast_ref::<Self>() else { return false };
        let TcpOffer { host, port, proto_version: _, incarnation, cell, addresses, buffers, ranges } = other;
        self.host == *host
            && self.port == *port
            && self.incarnation == *incarnation
            && self.cell == *cell
            && self.addresses == *addresses
            && self.buffers == *buffers
            && self.ranges == *ranges
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Texts that are no addresses are left out: those who write them know more than this reader.
fn addresses_in(list: &[Value]) -> Result<Vec<IpAddr>> {
    let text = |value: &Value| value.as_str().map(str::parse::<IpAddr>);
    let wrong = || Error::new(Code::MalformedJson, format!("{ADDRESSES} is not a list of texts"));
    let mut addresses = Vec::new();
    for value in list.iter().take(nics::MOST) {
        addresses.extend(text(value).ok_or_else(wrong)?.ok());
    }
    Ok(addresses)
}

/// The addresses of the peer's NICs, and the version of the descriptor that tells them. None if lanes to it cannot prove
/// whom they lead to, or are for one request each.
pub(super) fn addresses(route: &dyn Route) -> (u64, Vec<IpAddr>) {
    let Offered { offer, version } = route.offer();
    let offer = offer.as_ref().and_then(|offer| offer.as_any().downcast_ref::<TcpOffer>());
    let proven = offer.filter(|offer| offer.leads() && offer.proof().is_some());
    let lasting = proven.filter(|offer| offer.proto_version >= OUR_VERSION);
    (version, lasting.map(|offer| offer.addresses.clone()).unwrap_or_default())
}

/// Where the data port of the peer behind `route` is: the host of its descriptor, or that of its handshake address.
pub(super) async fn endpoint(route: &dyn Route) -> Result<Endpoint> {
    let peer = route.peer();
    let offer = route.offer().offer;
    let offer = offer.as_ref().and_then(|offer| offer.as_any().downcast_ref::<TcpOffer>());
    let Some(offer) = offer.filter(|offer| offer.leads()) else {
        return Err(Error::new(Code::Socket, "the peer offers no TCP data port any more").peer(peer));
    };
    let host = match &offer.host {
        Some(host) => host.clone(),
        None => route.rpc_address().await?.host,
    };
    Ok(Endpoint {
        peer: peer.to_string(),
        host,
        port: offer.port,
        proto_version: offer.proto_version,
        incarnation: offer.proof(),
    })
}

#[cfg(test)]
mod tests;
