//! A row of the table of transports.

use std::sync::Arc;

use super::host::Host;
use super::offer::Offer;
use super::Transport;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::segment_desc::SegmentDesc;
use crate::topology::Matrix;

/// A transport of this build, installed or not.
pub trait Protocol: Sync {
    /// The name in C and in descriptors.
    fn name(&self) -> &'static str;

    /// The protocol that descriptors in its form name.
    fn form(&self) -> &'static str {
        self.name()
    }

    /// Whether only this project knows it. Then peers of other projects have to find another transport's form in a
    /// descriptor, and this one's is used where no other has one.
    fn is_extension(&self) -> bool {
        false
    }

    /// The members of descriptors that are this transport's own.
    fn members(&self) -> &'static [&'static str];

    /// Reads what a peer's descriptor says of this transport; `None` if it says nothing. `ERR_MALFORMED_JSON` naming
    /// the member that is missing, of the wrong type or out of range: then the whole descriptor is of no use.
    fn read(&self, desc: &SegmentDesc) -> Result<Option<Arc<dyn Offer>>>;

    /// What descriptors say where the transport is not installed, for readers that expect its members in each.
    fn describe_absence(&self, desc: &mut SegmentDesc) {
        let _ = desc;
    }

    /// Whether it works only with NICs of a priority matrix.
    fn needs_nics(&self) -> bool {
        false
    }

    /// Whether a NIC that was found on this machine could be used.
    fn can_use(&self, nic: &str, config: &Config) -> bool {
        let _ = (nic, config);
        false
    }

    /// Makes and starts the transport; `nics` is given where the row needs them. It knows no region yet. On failure
    /// nothing of it stays.
    fn install(&self, host: Arc<dyn Host>, nics: Option<&Matrix>) -> Result<Arc<dyn Transport>>;

    /// Why the segment `peer`, whose descriptor names this protocol, cannot be reached. `offer` is what [`Self::read`]
    /// made of the descriptor. Either the transport is not installed here, or the offer does not lead there.
    fn unreachable(&self, peer: &str, offer: Option<&dyn Offer>) -> Error;
}
