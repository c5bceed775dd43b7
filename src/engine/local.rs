//! What this engine is to its peers: name, descriptor, queue of notifications. Answers the
//! handshake daemon, on the control thread.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::transports::Transports;
use crate::config::Config;
use crate::handshake::{Answer, ConnectionMessage, Handler, Notification};
use crate::host_port::{self, HostPort};
use crate::memory::Registry;
use crate::metadata::SegmentDesc;
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
    /// `MC_RDMA_BIND_ADDRESS`.
    rdma_bind_address: Option<String>,
    /// Port of names without one.
    default_port: u16,
    /// Notifications until the caller fetches them, at most `notify_queue_max`.
    notifications: Mutex<Queue>,
    notify_queue_max: usize,
    notify_queue_bytes: usize,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Notification>,
    /// Text in `messages`.
    bytes: usize,
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
            default_port: config.handshake_port,
            rdma_bind_address: config.rdma_bind_address.clone(),
            notifications: Mutex::default(),
            notify_queue_max: config.notify_queue_max,
            notify_queue_bytes: config.notify_queue_bytes,
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
        self.transports.describe(self, desc)
    }

    /// Server part of the paths of our NICs.
    pub fn rdma_server(&self) -> String {
        match &self.rdma_bind_address {
            // As upstream: an IPv6 address stays without brackets.
            Some(host) => format!("{host}:{}", host_port::parse(&self.name, self.default_port).port),
            None => self.name.clone(),
        }
    }

    /// Takes every queued notification.
    pub fn take_notifications(&self) -> VecDeque<Notification> {
        std::mem::take(&mut *self.notifications.lock()).messages
    }

    /// Puts notifications back in front, after the caller could not be given them.
    pub fn put_back(&self, mut taken: VecDeque<Notification>) {
        let mut queue = self.notifications.lock();
        queue.bytes += taken.iter().map(text_bytes).sum::<usize>();
        taken.append(&mut queue.messages);
        queue.messages = taken;
    }
}

impl Handler for Local {
    fn metadata(&self, _: &Value) -> Option<Value> {
        self.is_peer_to_peer.then(|| self.descriptor())?.map(|descriptor| descriptor.encode())
    }

    fn notify(&self, notification: Notification) -> bool {
        let mut queue = self.notifications.lock();
        let bytes = queue.bytes.saturating_add(text_bytes(&notification));
        let full = queue.messages.len() >= self.notify_queue_max || bytes > self.notify_queue_bytes;
        if full || queue.messages.try_reserve(1).is_err() {
            return false;
        }
        queue.bytes = bytes;
        queue.messages.push_back(notification);
        true
    }

    fn connection(&self, request: ConnectionMessage) -> Answer<'_> {
        Box::pin(self.transports.accept(request))
    }
}

fn text_bytes(notification: &Notification) -> usize {
    notification.name.len() + notification.message.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p39_the_notification_queue_is_bounded() {
        let config = Config { notify_queue_max: 2, notify_queue_bytes: 100, ..Config::default() };
        let address = HostPort { host: "h".into(), port: 1 };
        let local = Local::new("h:1".into(), address, [0; 16], &config);
        let note = |name: &str| Notification { name: name.into(), message: String::new() };
        assert!(local.notify(note("a")) && local.notify(note("b")) && !local.notify(note("c")));
        let taken = local.take_notifications();
        assert!(local.notify(note("c")));
        local.put_back(taken);
        let names: Vec<String> = local.take_notifications().into_iter().map(|n| n.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let large = Notification { name: "x".into(), message: "y".repeat(config.notify_queue_bytes) };
        assert!(!local.notify(large) && local.notify(note("d")));
    }
}
