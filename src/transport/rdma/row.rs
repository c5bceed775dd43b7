//! RDMA's row in the table of transports.

use std::sync::Arc;

use super::offer::{RdmaOffer, MEMBERS, NAME};
use super::transport::Rdma;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::segment_desc::SegmentDesc;
use crate::topology::Matrix;
use crate::transport::host::Host;
use crate::transport::offer::Offer;
use crate::transport::protocol::Protocol;
use crate::transport::Transport;

/// The row.
pub struct Row;

impl Protocol for Row {
    fn name(&self) -> &'static str {
        NAME
    }

    fn members(&self) -> &'static [&'static str] {
        MEMBERS
    }

    fn read(&self, desc: &SegmentDesc) -> Result<Option<Arc<dyn Offer>>> {
        Ok(RdmaOffer::read(desc)?.map(|offer| Arc::new(offer) as Arc<dyn Offer>))
    }

    fn needs_nics(&self) -> bool {
        true
    }

    fn can_use(&self, nic: &str, config: &Config) -> bool {
        Rdma::usable(nic, config)
    }

    fn install(&self, host: Arc<dyn Host>, nics: Option<&Matrix>) -> Result<Arc<dyn Transport>> {
        Ok(Rdma::install(host, nics.cloned().unwrap_or_default())?)
    }

    fn unreachable(&self, peer: &str, offer: Option<&dyn Offer>) -> Error {
        let text = match offer.is_some_and(|offer| offer.leads()) {
            true => format!(
                "segment '{peer}' is reached by {NAME} only, which is not installed here; call installTransport(\"{NAME}\")"
            ),
            false => format!("segment '{peer}' is reached by {NAME} only, and publishes no NIC that works"),
        };
        Error::new(Code::DeviceNotFound, text).peer(peer)
    }
}
