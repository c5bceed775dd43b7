//! The engine, as transports see it: [`Host`] is the engine itself, [`Route`] its knowledge of one peer.

use std::net::IpAddr;
use std::sync::Arc;

use super::incarnation;
use super::offer::Offer;
use crate::config::Config;
use crate::error::Result;
use crate::handshake::{ConnectionMessage, Notification};
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::control::Control;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;

/// The engine that a transport is installed in. Does not keep the engine alive.
pub trait Host: Send + Sync {
    /// Settings.
    fn config(&self) -> &Arc<Config>;

    /// Where handshakes and connections are made.
    fn control(&self) -> &Arc<Control>;

    /// Registered memory.
    fn registry(&self) -> &Arc<Registry>;

    /// The name that peers open.
    fn name(&self) -> &str;

    /// The handshake address.
    fn address(&self) -> &HostPort;

    /// Random id of this engine start.
    fn incarnation(&self) -> &[u8; incarnation::LEN];

    /// What the transport describes has changed: the descriptor is to be published again. Does not block.
    fn republish(&self);

    /// A peer has notified this engine by way of the transport. `false`: there is no room for it. Does not block.
    fn notified(&self, notification: Notification) -> bool;

    /// The descriptor of `segment`, read now. An error of the store or the peer; class CANCELED when the engine is
    /// gone.
    fn read(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>>;

    /// The name under which a segment was opened, for the first one whose offer of the transport `protocol` satisfies
    /// `is_wanted`.
    fn opened_as(&self, protocol: &str, is_wanted: &dyn Fn(&dyn Offer) -> bool) -> Option<String>;
}

/// The way to one peer. Methods may be called from any thread; futures run on the control thread.
pub trait Route: Send + Sync {
    /// The peer's name, for messages.
    fn peer(&self) -> &str;

    /// What the peer offers this transport as last read; after the segment was closed, what it offered then.
    fn offer(&self) -> Offered;

    /// Reads the descriptor again. An error of class CANCELED once the segment was closed.
    fn refresh(&self) -> BoxFuture<'_, Result<()>>;

    /// The peer's handshake address.
    fn rpc_address(&self) -> BoxFuture<'_, Result<HostPort>>;

    /// Succeeds if the peer answers on its handshake port. An error of class RESOURCE or CANCELED says nothing about it.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;

    /// An engine of this project has answered there: its descriptor came that way.
    fn has_answered(&self) -> bool {
        false
    }

    /// Sends a connection request (type 0) to the peer's handshake port and returns the reply.
    fn exchange(&self, message: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>>;

    /// The same route, but for the address at which the peer's handshake port is reached: `host`.
    fn by_way_of(&self, host: IpAddr) -> Arc<dyn Route>;
}

/// An offer, and the version of the descriptor that it is from.
pub struct Offered {
    /// `None`: the peer does not offer this transport any more.
    pub offer: Option<Arc<dyn Offer>>,
    /// Changes whenever the descriptor was read again and says something else.
    pub version: u64,
}
