//! RDMA's members of the descriptor: written for this engine, read from a peer's.

use std::any::Any;
use std::sync::Arc;

use serde_json::{json, Value};

use super::report::{Publication, PublishedBuffer};
use super::route::{PeerBuffer, PeerDesc, PeerNic};
use crate::error::{Code, Error, Result};
use crate::json::members::Members;
use crate::segment_desc::{SegmentDesc, BUFFERS};
use crate::topology::Matrix;
use crate::transport::incarnation;
use crate::transport::offer::{self, Offer, Shown};
use crate::transport::ranges::Ranges;

/// The name in descriptors.
pub(super) const NAME: &str = "rdma";
const SERVER: &str = "rdma_server_name";
const DEVICES: &str = "devices";
const MATRIX: &str = "priority_matrix";
/// A member that upstream's descriptors have since it sends notifications over queue pairs (0.3.14, observed).
const SINCE_NOTIFYING: &str = "metadata_version";
/// The members that are RDMA's own.
pub(super) const MEMBERS: &[&str] = &[SERVER, DEVICES, MATRIX];

/// Lists the buffers, with the NICs that their keys are for. `is_published` tells whether the region at an address is open
/// to peers: the transport learns of regions before they are open. `false` with every NIC dead.
pub(super) fn list(
    publication: Publication,
    is_published: impl Fn(u64) -> bool,
    server: String,
    desc: &mut SegmentDesc,
) -> bool {
    let Publication { nics, matrix, buffers } = publication;
    if nics.is_empty() {
        return false;
    }
    // Upstream up to 0.3.12 drops the whole descriptor for one buffer without keys.
    let open = |buffer: &PublishedBuffer| !buffer.rkey.is_empty() && is_published(buffer.addr);
    if server != desc.name {
        desc.put(SERVER, server);
    }
    let device = |nic| {
        let crate::transport::report::NicReport { name, lid, gid, .. } = nic;
        json!({"name": name, "lid": lid, "gid": gid})
    };
    desc.put(DEVICES, nics.into_iter().map(device).collect::<Value>());
    let buffer = |buffer: PublishedBuffer| {
        let PublishedBuffer { location, addr, len, rkey, lkey } = buffer;
        json!({"name": location, "addr": addr, "length": len, "rkey": rkey, "lkey": lkey})
    };
    desc.put(BUFFERS, buffers.into_iter().filter(open).map(buffer).collect::<Value>());
    desc.put(MATRIX, matrix.to_value());
    true
}

/// What a peer offers.
pub(super) struct RdmaOffer {
    /// As the data path wants it.
    pub desc: Arc<PeerDesc>,
    /// The server part of its NIC paths, where it is not the segment's name.
    pub server: Option<String>,
    ranges: Ranges,
    incarnation: u64,
}

impl RdmaOffer {
    /// `None` if the descriptor is another transport's.
    pub(super) fn read(desc: &SegmentDesc) -> Result<Option<Self>> {
        if desc.protocol != NAME {
            return Ok(None);
        }
        let nics = desc.list(DEVICES, device)?;
        let mut buffers = desc.list(BUFFERS, |members| buffer(members, nics.len()))?;
        // Not for remote access.
        buffers.retain(|buffer| !buffer.rkey.is_empty());
        let ranges = Ranges::joined(buffers.iter().map(|buffer| (buffer.addr, buffer.len)))?;
        let server = desc.typed().optional_text(SERVER)?;
        let id = desc.incarnation.as_deref().and_then(incarnation::unhex);
        let peer = PeerDesc {
            server: server.as_ref().unwrap_or(&desc.name).clone(),
            nics,
            buffers,
            matrix: matrix(desc),
            incarnation: desc.incarnation.clone(),
            notifies: desc.members.contains_key(SINCE_NOTIFYING),
        };
        let incarnation = id.map_or(0, |id| incarnation::key(&id));
        Ok(Some(RdmaOffer { desc: Arc::new(peer), server, ranges, incarnation }))
    }

    /// `offer` as RDMA's own; `None` if it is another transport's.
    pub(super) fn of(offer: &dyn Offer) -> Option<&Self> {
        offer.as_any().downcast_ref()
    }
}

fn device(members: &Members<'_>) -> Result<PeerNic> {
    Ok(PeerNic {
        name: members.filled_text("name")?.into(),
        lid: members.uint("lid")?.unwrap_or(0),
        gid: members.filled_text("gid")?.into(),
    })
}

fn buffer(members: &Members<'_>, devices: usize) -> Result<PeerBuffer> {
    let offer::PeerBuffer { addr, len, name } = offer::PeerBuffer::read(members)?;
    let (rkey, lkey) = (members.uints::<u32>("rkey")?, members.uints::<u32>("lkey")?);
    let (remote, local) = (rkey.len(), lkey.len());
    if remote != 0 && (remote != local || remote != devices) {
        let text = format!("{remote} rkey, {local} lkey and {devices} devices do not match");
        return Err(Error::new(Code::MalformedJson, text));
    }
    Ok(PeerBuffer { location: name, addr, len, rkey })
}

/// The peer's matrix. One that is malformed counts as none: the NICs can be used without.
fn matrix(desc: &SegmentDesc) -> Matrix {
    let Some(value) = desc.typed().get(MATRIX) else { return Matrix::default() };
    Matrix::from_value(value).unwrap_or_else(|error| {
        tracing::debug!("priority_matrix of '{}' is not used: {error}", desc.name);
        Matrix::default()
    })
}

impl Offer for RdmaOffer {
    fn leads(&self) -> bool {
        !self.desc.nics.is_empty()
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn buffers(&self) -> Shown<'_> {
        Box::new(self.desc.buffers.iter().map(|buffer| (buffer.addr, buffer.len, &*buffer.location)))
    }

    /// Both ends name theirs when they connect.
    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn same_as(&self, other: &dyn Offer) -> bool {
        Self::of(other).is_some_and(|other| self.desc == other.desc)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
