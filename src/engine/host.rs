//! The engine, as its transports see it.

use std::sync::{Arc, Weak};

use super::Engine;
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::handshake::Notification;
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::control::Control;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::Host;
use crate::transport::offer::Offer;
use crate::transport::{incarnation, table};

/// What transports may use of an engine. Weak: the engine owns its transports.
pub(super) struct EngineHost {
    engine: Weak<Engine>,
    config: Arc<Config>,
    control: Arc<Control>,
    registry: Arc<Registry>,
    name: String,
    address: HostPort,
    incarnation: [u8; incarnation::LEN],
}

impl EngineHost {
    /// `engine`, seen from below.
    pub(super) fn new(engine: &Arc<Engine>) -> Arc<Self> {
        let local = &engine.local;
        Arc::new(EngineHost {
            engine: Arc::downgrade(engine),
            config: engine.config.clone(),
            control: engine.control.clone(),
            registry: local.registry.clone(),
            name: local.name.clone(),
            address: local.address.clone(),
            incarnation: local.incarnation,
        })
    }
}

impl Host for EngineHost {
    fn config(&self) -> &Arc<Config> {
        &self.config
    }

    fn control(&self) -> &Arc<Control> {
        &self.control
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &HostPort {
        &self.address
    }

    fn incarnation(&self) -> &[u8; incarnation::LEN] {
        &self.incarnation
    }

    fn republish(&self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.publish_soon();
        }
    }

    fn notified(&self, notification: Notification) -> bool {
        self.engine.upgrade().is_some_and(|engine| engine.local.notifications.add(notification))
    }

    fn read(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>> {
        let segment = segment.to_string();
        // The engine must not live on while a store is waited for.
        let store = self.engine.upgrade().map(|engine| engine.store.clone());
        Box::pin(async move {
            let gone = || Error::invalid("the engine is being destroyed").permanent(Class::Canceled);
            store.ok_or_else(gone)?.get(&segment).await
        })
    }

    fn opened_as(&self, protocol: &str, is_wanted: &dyn Fn(&dyn Offer) -> bool) -> Option<String> {
        let row = table::position(protocol)?;
        let engine = self.engine.upgrade()?;
        engine
            .segments
            .opened_as(|segment| segment.known().offer(row).is_some_and(|offer| is_wanted(&**offer)))
    }
}
