//! What this engine is to its peers: name, descriptor, queue of notifications. Answers the
//! handshake daemon, on the control thread.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;

use crate::config::Config;
use crate::handshake::{ConnectionMessage, Handler, Notification};
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::metadata::segment_desc::{Buffer, SegmentDesc};
use crate::transport::tcp::Tcp;

/// This engine, as peers see it.
pub struct Local {
    /// Segment name that peers open.
    pub name: String,
    /// Handshake address.
    pub address: HostPort,
    /// Random id of this engine start.
    pub incarnation: [u8; 16],
    /// Registered memory.
    pub registry: Arc<Registry>,
    /// The TCP transport, once installed.
    pub tcp: OnceLock<Arc<Tcp>>,
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
    pub fn new(name: String, address: HostPort, incarnation: [u8; 16], config: &Config) -> Self {
        Local {
            name,
            address,
            incarnation,
            registry: Arc::default(),
            tcp: OnceLock::new(),
            notifications: Mutex::default(),
            notify_queue_max: config.notify_queue_max,
            notify_queue_bytes: config.notify_queue_bytes,
        }
    }

    /// The descriptor that peers get; `None` before a transport is installed.
    pub fn descriptor(&self) -> Option<SegmentDesc> {
        let tcp = self.tcp.get()?;
        let published = self.registry.published();
        let buffers = published.iter().map(|region| Buffer {
            name: self.name.clone(),
            addr: region.addr,
            length: region.len,
            ..Buffer::default()
        });
        Some(SegmentDesc {
            name: self.name.clone(),
            protocol: "tcp".into(),
            tcp_data_host: Some(self.address.host.clone()),
            tcp_data_port: tcp.port(),
            tcp_proto_version: 2,
            buffers: buffers.collect(),
            incarnation: Some(hex(&self.incarnation)),
            incarnation_addr: tcp.incarnation_cell(),
            ..SegmentDesc::default()
        })
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
        self.descriptor().map(|descriptor| descriptor.encode())
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

    fn connection(&self, _: ConnectionMessage) -> Option<ConnectionMessage> {
        self.tcp.get()?;
        Some(ConnectionMessage::rejection("no RDMA transport on this node"))
    }
}

fn text_bytes(notification: &Notification) -> usize {
    notification.name.len() + notification.message.len()
}

/// Lower-case hex of an incarnation id, as in descriptors.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inverse of [`hex`] for an incarnation id.
pub fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnation_ids_survive_hex() {
        let id: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(unhex(&hex(&id)), Some(id));
        for text in ["", "00", "zz000000000000000000000000000000", "+f000000000000000000000000000000é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

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
