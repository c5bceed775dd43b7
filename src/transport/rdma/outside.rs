//! What lies outside the transport, as its data path sees it: peers and the engine.

use std::sync::Arc;

use super::offer::{RdmaOffer, NAME};
use super::report::Host;
use super::route::{PeerDesc, Route};
use crate::error::{Code, Error, Result};
use crate::handshake::{ConnectionMessage, Notification};
use crate::host_port;
use crate::runtime::BoxFuture;
use crate::transport::host;
use crate::transport::offer::Offer;

/// A peer, through the engine's knowledge of it.
pub(super) struct Peer(pub Arc<dyn host::Route>);

impl Route for Peer {
    fn peer(&self) -> String {
        self.0.peer().to_string()
    }

    fn desc(&self) -> Result<(Arc<PeerDesc>, u64)> {
        let host::Offered { offer, version } = self.0.offer();
        let offer = offer.as_deref().and_then(RdmaOffer::of);
        match offer.filter(|offer| Offer::leads(*offer)) {
            Some(offer) => Ok((offer.desc.clone(), version)),
            None => {
                let text = "the peer publishes no RDMA device any more";
                Err(Error::new(Code::DeviceNotFound, text).peer(self.0.peer()))
            }
        }
    }

    fn refresh(&self) -> BoxFuture<'_, Result<()>> {
        self.0.refresh()
    }

    fn exchange(&self, message: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>> {
        self.0.exchange(message)
    }
}

/// The engine.
pub(super) struct Engine(pub Arc<dyn host::Host>);

impl Engine {
    /// Server part of the paths of our NICs.
    pub(super) fn server(&self) -> String {
        let config = self.0.config();
        match &config.rdma_bind_address {
            // As upstream: an IPv6 address stays without brackets.
            Some(host) => format!("{host}:{}", host_port::parse(self.0.name(), config.handshake_port).port),
            None => self.0.name().to_string(),
        }
    }
}

impl Host for Engine {
    fn republish(&self) {
        self.0.republish();
    }

    fn notified(&self, notification: Notification) -> bool {
        self.0.notified(notification)
    }

    fn look_up_nic(&self, path: &str) -> BoxFuture<'_, Result<(String, u16)>> {
        let path = path.to_string();
        Box::pin(async move {
            let unknown = |why: &str| Error::new(Code::Metadata, format!("NIC path '{path}': {why}"));
            let (server, nic) =
                path.split_once('@').ok_or_else(|| unknown("it has no '@' before the NIC"))?;
            // A server name may differ from the segment's name: an open segment whose offer has it tells which.
            let is_its =
                |offer: &dyn Offer| RdmaOffer::of(offer).is_some_and(|o| o.server.as_deref() == Some(server));
            let segment = self.0.opened_as(NAME, &is_its).unwrap_or_else(|| server.to_string());
            let reading = self.0.read(&segment).await.and_then(|desc| RdmaOffer::read(&desc));
            let offer = reading.map_err(|e| e.context(format!("look up NIC path '{path}'")))?;
            let device =
                offer.as_ref().and_then(|offer| offer.desc.nics.iter().find(|known| known.name == nic));
            let device =
                device.ok_or_else(|| unknown("the descriptor of its server does not list the NIC"))?;
            Ok((device.gid.clone(), device.lid))
        })
    }
}

#[cfg(test)]
mod tests;
