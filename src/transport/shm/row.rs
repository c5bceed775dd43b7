//! The transport's row in the table of transports.

use std::sync::Arc;

use super::offer::{ShmOffer, MEMBERS, NAME};
use super::transport::Shm;
use crate::error::{Class, Error, Result};
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

    fn is_extension(&self) -> bool {
        true
    }

    fn members(&self) -> &'static [&'static str] {
        MEMBERS
    }

    fn read(&self, desc: &SegmentDesc) -> Result<Option<Arc<dyn Offer>>> {
        Ok(ShmOffer::read(desc)?.map(|offer| Arc::new(offer) as Arc<dyn Offer>))
    }

    fn install(&self, host: Arc<dyn Host>, _: Option<&Matrix>) -> Result<Arc<dyn Transport>> {
        Ok(Shm::install(host)?)
    }

    fn unreachable(&self, peer: &str, offer: Option<&dyn Offer>) -> Error {
        let text = match offer {
            None => format!("segment '{peer}' does not say which host it is on, as '{NAME}' needs it"),
            Some(offer) if offer.leads() => {
                format!("segment '{peer}' is reached by '{NAME}', which is not installed here; call installTransport(\"{NAME}\")")
            }
            Some(_) => format!("segment '{peer}' is reached by '{NAME}' only, and is on another host"),
        };
        Error::invalid(text).permanent(Class::Unsupported).peer(peer)
    }
}
