//! What this engine is to its peers: name, address, descriptor. Answers the handshake daemon, on the
//! control thread.

use std::sync::Arc;

use serde_json::Value;

use super::notifications::Notifications;
use super::transports::Transports;
use crate::config::Config;
use crate::handshake::{ConnectionMessage, Handler, Notification};
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::transport::incarnation;

/// This engine, as peers see it.
pub struct Local {
    /// Segment name that peers open.
    pub name: String,
    /// Handshake address.
    pub address: HostPort,
    /// Random id of this engine start.
    pub incarnation: [u8; incarnation::LEN],
    /// Registered memory.
    pub registry: Arc<Registry>,
    /// How peers reach it.
    pub transports: Transports,
    /// Peers ask this engine for its descriptor.
    is_peer_to_peer: bool,
    /// Notifications until the caller fetches them.
    pub notifications: Notifications,
}

impl Local {
    /// An engine without transports.
    pub fn new(
        name: String,
        address: HostPort,
        incarnation: [u8; incarnation::LEN],
        config: &Config,
    ) -> Self {
        Local {
            name,
            address,
            incarnation,
            registry: Arc::default(),
            transports: Transports::default(),
            is_peer_to_peer: true,
            notifications: Notifications::new(config),
        }
    }

    /// The same for an engine whose descriptor is in a store.
    pub fn in_store(mut self) -> Self {
        self.is_peer_to_peer = false;
        self
    }

    /// The descriptor that peers get; `None` before a transport is installed.
    pub fn descriptor(&self) -> Option<SegmentDesc> {
        let desc = SegmentDesc {
            name: self.name.clone(),
            incarnation: Some(incarnation::hex(&self.incarnation)),
            ..SegmentDesc::default()
        };
        self.transports.describe(desc)
    }
}

impl Handler for Local {
    fn metadata(&self, _: &Value) -> Option<Value> {
        self.is_peer_to_peer.then(|| self.descriptor())?.map(|descriptor| descriptor.encode())
    }

    fn notify(&self, notification: Notification) -> bool {
        self.notifications.add(notification)
    }

    fn connection(&self, request: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        Box::pin(self.transports.answer(request))
    }
}
