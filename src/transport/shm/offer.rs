//! The transport's member of descriptors: which host the engine is on. Where it listens there follows from its incarnation.

use std::any::Any;

use super::host;
use crate::error::Result;
use crate::runtime::per_process::PerProcess;
use crate::segment_desc::SegmentDesc;
use crate::transport::incarnation;
use crate::transport::offer::{self, Offer, PeerBuffer, Shown};
use crate::transport::ranges::Ranges;

/// The name in C and in descriptors. Upstream's transport of that name lists its buffers in another form, which is not read here.
pub(super) const NAME: &str = "shm";
/// The host's token; a member of this project only.
const HOST: &str = "mte_shm_host";
/// The members that are the transport's own.
pub(super) const MEMBERS: &[&str] = &[HOST];

/// This host's token.
pub(super) fn own_host() -> Option<&'static str> {
    static TOKEN: PerProcess<Option<String>> = PerProcess::new(host::token);
    TOKEN.get().as_deref()
}

/// Name of the socket of the engine with this incarnation, among the abstract ones (unix(7)).
pub(super) fn socket_name(id: &[u8; incarnation::LEN]) -> String {
    format!("mte-shm-{}", incarnation::hex(id))
}

/// Adds our member.
pub(super) fn describe(desc: &mut SegmentDesc) {
    if let Some(host) = own_host() {
        desc.put(HOST, host);
    }
}

/// What a peer offers.
pub(super) struct ShmOffer {
    host: String,
    /// Of its start.
    pub id: [u8; incarnation::LEN],
    buffers: Vec<PeerBuffer>,
    ranges: Ranges,
}

impl ShmOffer {
    /// `None` if the descriptor says nothing of it.
    pub(super) fn read(desc: &SegmentDesc) -> Result<Option<Self>> {
        let host = desc.typed().optional_text(HOST)?;
        let id = desc.incarnation.as_deref().and_then(incarnation::unhex);
        let Some((host, id)) = host.zip(id) else { return Ok(None) };
        let (buffers, ranges) = offer::plain_buffers(desc, NAME)?;
        Ok(Some(ShmOffer { host, id, buffers, ranges }))
    }
}

impl Offer for ShmOffer {
    /// To engines that say that they are on this host. Whether it is true shows when they are connected to.
    fn leads(&self) -> bool {
        own_host().is_some_and(|own| own == self.host)
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn buffers(&self) -> Shown<'_> {
        PeerBuffer::shown(&self.buffers)
    }

    fn incarnation(&self) -> u64 {
        incarnation::key(&self.id)
    }

    fn same_as(&self, other: &dyn Offer) -> bool {
        let Some(other) = other.as_any().downcast_ref::<Self>() else { return false };
        let ShmOffer { host, id, buffers, ranges } = other;
        self.host == *host && self.id == *id && self.buffers == *buffers && self.ranges == *ranges
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(host: &str, id: u8, addr: u64, ranges: &[(u64, u64)]) -> ShmOffer {
        let buffers = vec![PeerBuffer { addr, len: 100, name: "*".into() }];
        let ranges = Ranges::single(ranges.iter().copied()).unwrap();
        ShmOffer { host: host.into(), id: [id; incarnation::LEN], buffers, ranges }
    }

    #[test]
    fn an_offer_is_the_same_if_all_of_it_is() {
        let one = || offer("host", 1, 100, &[(100, 100)]);
        assert!(one().same_as(&one()));
        for other in [
            offer("other", 1, 100, &[(100, 100)]),
            offer("host", 2, 100, &[(100, 100)]),
            offer("host", 1, 200, &[(100, 100)]),
            offer("host", 1, 100, &[(200, 100)]),
        ] {
            assert!(!one().same_as(&other) && !other.same_as(&one()));
        }
        assert!(!one().leads() && offer(own_host().unwrap(), 1, 100, &[]).leads());
    }
}
