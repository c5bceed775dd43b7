//! Notifications that upstream's peers send over a queue pair beside those for data. We offer one to each peer that has one,
//! receive only: ours go over the handshake port. The thread of the NIC takes up what comes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::connection::{Connection, Remote};
use super::destroyer::Destroyer;
use super::nic::Nic;
use super::verbs::{Cq, Receiver, Wc};
use crate::config::Config;
use crate::error::Result;
use crate::handshake::Notification;
use crate::runtime::headroom;

/// Entries of the completion queue, or fewer if the device says so. Upstream's value.
const DEPTH: u32 = 4096;
/// Takings at one look: the thread has other things to do, whatever one peer sends. Chosen: a full box of a few peers.
const ROUNDS: usize = 8;
/// Completions taken at a time. Chosen: what a few peers have under way.
const BATCH: usize = 32;

/// The boxes of one NIC. Any thread.
pub(super) struct Inbox {
    config: Arc<Config>,
    destroyer: Arc<Destroyer>,
    nic: Arc<Nic>,
    /// Made for the first box.
    cq: OnceLock<Arc<Cq>>,
    /// Guards the boxes; held while messages are copied, not while they are delivered.
    boxes: Mutex<Boxes>,
    /// Held by whoever makes a box, while the driver works.
    making: Mutex<()>,
}

#[derive(Default)]
struct Boxes {
    by_id: HashMap<u32, Letterbox>,
    last_id: u32,
}

/// Where one peer's notifications arrive.
struct Letterbox {
    receiver: Arc<Receiver>,
    /// It goes with the connection that it was offered with.
    connection: Weak<Connection>,
    /// The peer's queue pair, once it is connected.
    peer: Option<u32>,
}

impl Letterbox {
    fn is_of(&self, connection: &Arc<Connection>) -> bool {
        std::ptr::eq(self.connection.as_ptr(), Arc::as_ptr(connection))
    }

    fn is_live(&self) -> bool {
        self.connection.upgrade().is_some_and(|connection| connection.is_open())
    }
}

impl Inbox {
    /// No box yet.
    pub(super) fn new(config: &Arc<Config>, destroyer: &Arc<Destroyer>, nic: &Arc<Nic>) -> Self {
        Inbox {
            config: config.clone(),
            destroyer: destroyer.clone(),
            nic: nic.clone(),
            cq: OnceLock::new(),
            boxes: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// The number of the queue pair that goes with `connection`, made if there is none; `None` if no more are to be had:
    /// then the peer notifies us over the handshake port. Blocks on the driver.
    pub(super) fn offer(&self, connection: &Arc<Connection>) -> Option<u32> {
        let (config, nic) = (&self.config, &self.nic);
        if !config.notify_enabled {
            return None;
        }
        let _making = self.making.lock();
        let known = |boxes: &Boxes| {
            boxes.by_id.values().find(|one| one.is_of(connection)).map(|one| one.receiver.number())
        };
        let slots = config.notify_recv_count.min(nic.limits.max_qp_wr.max(1));
        let depth = DEPTH.min(nic.limits.max_cqe.max(1));
        let room = config.notify_max_peers.min((depth / slots) as usize);
        let id = {
            let mut boxes = self.boxes.lock();
            if let Some(number) = known(&boxes) {
                return Some(number);
            }
            if boxes.by_id.len() >= room {
                drop(boxes);
                // The peer's last connection may have ended a moment ago.
                self.sweep();
                boxes = self.boxes.lock();
            }
            if boxes.by_id.len() >= room {
                return None;
            }
            boxes.last_id = boxes.last_id.wrapping_add(1);
            boxes.last_id
        };
        let made = self.cq(depth).and_then(|cq| {
            let port = (nic.port_number, nic.pkey_index);
            Receiver::open(&nic.pd, &cq, port, (slots, config.notify_buffer_bytes), id)
        });
        let receiver = match made {
            Ok(receiver) => receiver,
            Err(error) => {
                tracing::debug!("{}: no queue pair for notifications: {error}", nic.name);
                return None;
            }
        };
        let number = receiver.number();
        let letterbox =
            Letterbox { receiver: Arc::new(receiver), connection: Arc::downgrade(connection), peer: None };
        self.boxes.lock().by_id.insert(id, letterbox);
        // What comes from now on ends the sleep of the NIC's thread, which armed what there was.
        nic.wakeup.set();
        Some(number)
    }

    /// Lets the peer's queue pair `peer` send to that of `connection`. `false`: it cannot. Blocks on the driver.
    pub(super) fn connect(&self, connection: &Arc<Connection>, to: &Remote, peer: u32) -> bool {
        let _making = self.making.lock();
        let path = connection.path(&self.nic, &self.config, to, peer);
        let receiver = {
            let mut boxes = self.boxes.lock();
            let Some(one) = boxes.by_id.values_mut().find(|one| one.is_of(connection)) else { return false };
            if one.peer.is_some() {
                return one.peer == Some(peer);
            }
            one.peer = Some(peer);
            one.receiver.clone()
        };
        let connected = receiver.connect(&path);
        if let Err(error) = &connected {
            tracing::debug!("{}: a peer cannot notify us over a queue pair: {error}", self.nic.name);
            self.withdraw(connection);
        }
        connected.is_ok()
    }

    /// The peer has none.
    pub(super) fn withdraw(&self, connection: &Arc<Connection>) {
        self.keep(|one| !one.is_of(connection));
    }

    /// Gives up what goes with connections that are gone.
    pub(super) fn sweep(&self) {
        self.keep(Letterbox::is_live);
    }

    /// Gives up all.
    pub(super) fn clear(&self) {
        self.keep(|_| false);
    }

    fn keep(&self, wanted: impl Fn(&Letterbox) -> bool) {
        let mut boxes = self.boxes.lock();
        if boxes.by_id.values().all(&wanted) {
            return;
        }
        let (kept, gone) = std::mem::take(&mut boxes.by_id).into_iter().partition(|(_, one)| wanted(one));
        boxes.by_id = kept;
        drop(boxes);
        let gone: HashMap<u32, Letterbox> = gone;
        self.destroyer.discard(gone);
    }

    /// The next message ends the sleep of the NIC's thread.
    pub(super) fn arm(&self) -> Result<()> {
        self.cq.get().map_or(Ok(()), |cq| cq.arm())
    }

    /// Delivers what has come, `None` for what is malformed; `false` if nothing has. For the NIC's thread.
    pub(super) fn poll(&self, mut deliver: impl FnMut(Option<Notification>)) -> bool {
        let Some(cq) = self.cq.get() else { return false };
        let mut found = false;
        for _ in 0..ROUNDS {
            let mut wcs = [Wc::default(); BATCH];
            let mut arrived = Vec::new();
            let mut gone = Vec::new();
            let count = {
                let mut boxes = self.boxes.lock();
                let count = cq.poll(&mut wcs).unwrap_or(0);
                for wc in &wcs[..count] {
                    let (id, slot) = ((wc.wr_id >> 32) as u32, wc.wr_id as u32);
                    let Some(one) = boxes.by_id.get(&id) else { continue };
                    let taken = match wc.status {
                        super::verbs::wc::SUCCESS => one.receiver.take(slot, wc.byte_len, read),
                        _ => Err(libc::ENOTCONN),
                    };
                    match taken {
                        Ok(notification) => arrived.push(notification),
                        // The peer hung up, or sent what fits nowhere; it has the handshake port.
                        Err(_) => gone.extend(boxes.by_id.remove(&id)),
                    }
                }
                count
            };
            if !gone.is_empty() {
                self.destroyer.discard(gone);
            }
            arrived.into_iter().for_each(&mut deliver);
            found |= count > 0;
            if count < BATCH {
                break;
            }
        }
        found
    }

    fn cq(&self, depth: u32) -> Result<Arc<Cq>> {
        if let Some(cq) = self.cq.get() {
            return Ok(cq.clone());
        }
        let cq = Cq::create(&self.nic.context, depth, &self.nic.channel, 0)?;
        Ok(self.cq.get_or_init(|| cq).clone())
    }
}

/// Upstream's form: the length of the name in four bytes, little end first, the name, and the same of the message. What
/// stands behind it is ignored; `None` if it is not all there, or does not fit.
fn read(bytes: &[u8]) -> Option<Notification> {
    let (name, rest) = text(bytes)?;
    let (message, _) = text(rest)?;
    Some(Notification { name, message })
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    let copy = match std::str::from_utf8(text) {
        Ok(text) => headroom::copy(text, "a notification").ok()?,
        // Each byte may become the three of a replacement character.
        Err(_) if headroom::has_room(text.len().saturating_mul(3)) => {
            String::from_utf8_lossy(text).into_owned()
        }
        Err(_) => return None,
    };
    Some((copy, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_far_as_they_go_and_others_are_none() {
        let bytes = b"\x05\0\0\0name1\x08\0\0\0msg-AAAA";
        let expected = Notification { name: "name1".into(), message: "msg-AAAA".into() };
        assert_eq!(read(bytes), Some(expected.clone()));
        assert_eq!(read(&[bytes.as_slice(), b"more"].concat()), Some(expected));
        assert_eq!(read(&[0; 8]), Some(Notification::default()));
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "{len}");
        }
        assert_eq!(read(&[0xff; 64]), None);
        assert_eq!(read(b"\x01\0\0\0\xff\0\0\0\0").unwrap().name, "\u{fffd}");
    }
}
