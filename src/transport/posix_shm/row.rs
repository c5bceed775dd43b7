//! The transport's row in the table of transports.

use std::sync::Arc;

use super::offer::{PosixShmOffer, FORM, NAME};
use super::transport::PosixShm;
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

    fn form(&self) -> &'static str {
        FORM
    }

    /// No engine of this project publishes so, and it moves nothing between them.
    fn is_extension(&self) -> bool {
        true
    }

    fn members(&self) -> &'static [&'static str] {
        &[]
    }

    fn read(&self, desc: &SegmentDesc) -> Result<Option<Arc<dyn Offer>>> {
        Ok(PosixShmOffer::read(desc)?.map(|offer| Arc::new(offer) as Arc<dyn Offer>))
    }

    fn install(&self, host: Arc<dyn Host>, _: Option<&Matrix>) -> Result<Arc<dyn Transport>> {
        Ok(PosixShm::install(&*host))
    }

    fn unreachable(&self, peer: &str, offer: Option<&dyn Offer>) -> Error {
        let own = offer.and_then(PosixShmOffer::of);
        let text = match own.and_then(|offer| offer.not_understood.as_ref()) {
            Some(name) => format!(
                "segment '{peer}' is reached by POSIX shared memory, and names an object that is none of Mooncake's: {name:?} instead \
                 of /mooncake_PID_NAME"
            ),
            None => format!(
                "segment '{peer}' was started with MC_FORCE_SHM and is reached by POSIX shared memory of its host only; to use that \
                 from there, set MC_POSIX_SHM=1 or call installTransport(\"{NAME}\")"
            ),
        };
        Error::invalid(text).permanent(Class::Unsupported).peer(peer)
    }
}
