//! What this engine is to its peers: name, address, descriptor. Answers the handshake daemon, on the
//! control thread.

use std::sync::Arc;

use serde_json::Value;

use super::described::{Described, Made};
use super::notifications::Notifications;
use super::transports::Transports;
use crate::config::Config;
use crate::error::Result;
use crate::handshake::{ConnectionMessage, Document, Handler, Notification};
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::{aside, BoxFuture};
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
    described: Described,
}

/// What a buffer counts for when it is decided where a descriptor is encoded. Counted: its shortest text.
const BUFFER_BYTES: usize = 50;

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
            registry: Arc::new(Registry::new(config.allow_reregister)),
            transports: Transports::default(),
            is_peer_to_peer: true,
            notifications: Notifications::new(config),
            described: Described::default(),
        }
    }

    /// The same for an engine whose descriptor is in a store.
    pub fn in_store(mut self) -> Self {
        self.is_peer_to_peer = false;
        self
    }

    /// The descriptor that peers get; `None` before a transport is installed. `ERR_MEMORY` if it does not fit.
    pub fn descriptor(&self) -> Result<Option<SegmentDesc>> {
        let desc = SegmentDesc {
            name: self.name.clone(),
            incarnation: Some(incarnation::hex(&self.incarnation)),
            ..SegmentDesc::default()
        };
        self.transports.describe(desc)
    }

    /// The descriptor has changed: peers who ask from now on get it as it is.
    pub fn changed(&self) {
        self.described.changed();
    }

    /// The descriptor without its buffers, which is sent along when a peer's is fetched; null before a transport is
    /// installed.
    pub fn outline(&self) -> Value {
        let made = self.described.current().or_else(|| self.describe().ok().flatten());
        made.map_or(Value::Null, |made| (*made.outline).clone())
    }

    /// The descriptor, encoded now.
    fn describe(&self) -> Result<Option<Made>> {
        let changes = self.described.changes();
        let Some(desc) = self.descriptor()? else { return Ok(None) };
        let made = Made::new(desc, changes)?;
        self.described.keep(&made);
        Ok(Some(made))
    }

    /// An error is told as if there were no transport yet: the peer may ask again.
    async fn described(self: Arc<Self>) -> Option<Made> {
        if let Some(made) = self.described.current() {
            return Some(made);
        }
        let _turn = self.described.turn.lock().await;
        if let Some(made) = self.described.current() {
            return Some(made);
        }
        let (bytes, local) = (self.registry.count() * BUFFER_BYTES, self.clone());
        let made = aside::run(bytes, move || local.describe()).await;
        made.unwrap_or_else(|error| {
            tracing::warn!("a peer was not told of this engine's memory: {error}");
            None
        })
    }
}

impl Handler for Local {
    fn metadata(self: Arc<Self>, _: Value) -> BoxFuture<'static, Option<Arc<Document>>> {
        Box::pin(async move {
            if !self.is_peer_to_peer {
                return None;
            }
            self.described().await.map(|made| made.document)
        })
    }

    fn notify(&self, notification: Notification) -> bool {
        self.notifications.add(notification)
    }

    fn connection(&self, request: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>> {
        Box::pin(self.transports.answer(request))
    }
}
