//! TCP's row in the table of transports.

use std::sync::Arc;

use super::offer::{self, TcpOffer, MEMBERS, NAME};
use super::transport::Tcp;
use crate::error::{Error, Result};
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
        Ok(TcpOffer::read(desc)?.map(|offer| Arc::new(offer) as Arc<dyn Offer>))
    }

    fn describe_absence(&self, desc: &mut SegmentDesc) {
        offer::describe_absence(desc);
    }

    fn install(&self, host: Arc<dyn Host>, _: Option<&Matrix>) -> Result<Arc<dyn Transport>> {
        Ok(Tcp::install(host)?)
    }

    fn unreachable(&self, peer: &str, offer: Option<&dyn Offer>) -> Error {
        let text = match offer.is_some_and(|offer| offer.leads()) {
            true => format!("segment '{peer}' is reached by '{NAME}', which is not installed here; call installTransport(\"{NAME}\")"),
            false => format!("segment '{peer}' publishes no TCP data port"),
        };
        Error::invalid(text).peer(peer)
    }
}
