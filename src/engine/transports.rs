//! The transports that an engine has installed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Result;
use crate::handshake::ConnectionMessage;
use crate::segment_desc::SegmentDesc;
use crate::transport::table::{NO_CONNECTIONS, PROTOCOLS};
use crate::transport::Transport;

/// The installed transports, by row of [`PROTOCOLS`]. Any thread; a transport that is installed stays.
#[derive(Default)]
pub struct Transports {
    installed: [OnceLock<Arc<dyn Transport>>; PROTOCOLS.len()],
    /// Held shared while regions come and go, exclusively by an installation. So every transport gets every region,
    /// although no lock of the registry is held while a transport prepares one.
    installing: RwLock<()>,
    /// Submit calls that had to use a transport although the peer offers a better one, which is installed too.
    pub fallbacks: AtomicU64,
}

impl Transports {
    /// The transport of a row, if it is installed.
    pub fn get(&self, row: usize) -> Option<&Arc<dyn Transport>> {
        self.installed.get(row)?.get()
    }

    /// Installs the transport of a row; the caller holds [`Transports::alone`].
    pub fn set(&self, row: usize, transport: Arc<dyn Transport>) {
        // An installed one stays.
        let _ = self.installed[row].set(transport);
    }

    /// Every installed transport, in order of preference.
    pub fn all(&self) -> Vec<Arc<dyn Transport>> {
        self.iter().cloned().collect()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<dyn Transport>> {
        self.installed.iter().filter_map(OnceLock::get)
    }

    /// No transport is installed.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Some installed transport moves local memory that was never registered.
    pub fn take_any_source(&self) -> bool {
        self.iter().any(|transport| transport.takes_any_source())
    }

    /// Keeps transports from being installed while regions are prepared or released.
    pub fn keep(&self) -> RwLockReadGuard<'_, ()> {
        self.installing.read()
    }

    /// Keeps regions from coming and going, and others from installing.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.installing.write()
    }

    /// The descriptor that peers get; `None` before a transport is installed. `ERR_MEMORY` if it does not fit.
    pub fn describe(&self, mut desc: SegmentDesc) -> Result<Option<SegmentDesc>> {
        let Some(first) = self.iter().next() else { return Ok(None) };
        desc.protocol.clear();
        for (row, installed) in PROTOCOLS.iter().zip(&self.installed) {
            match installed.get() {
                Some(transport) => transport.describe(&mut desc),
                None => row.describe_absence(&mut desc),
            }
        }
        let forms = |extension| {
            let rows = PROTOCOLS.iter().zip(&self.installed);
            rows.filter(move |(row, _)| row.is_extension() == extension)
        };
        let mut listed = first.name();
        for (row, installed) in forms(false).chain(forms(true)) {
            let Some(transport) = installed.get() else { continue };
            if transport.list_buffers(&mut desc)? {
                listed = row.name();
                break;
            }
        }
        desc.protocol = listed.into();
        Ok(Some(desc))
    }

    /// Named counters, as [`Transport::stats`].
    pub fn stats(&self) -> [(&'static str, u64); 1] {
        [("fallback_transport", self.fallbacks.load(Relaxed))]
    }

    /// Answers a connection request (type 0); `None` before a transport is installed.
    pub async fn answer(&self, request: ConnectionMessage) -> Option<ConnectionMessage> {
        let asked = self.iter().filter(|transport| transport.is_asked(&request));
        if let Some(answer) = asked.chain(self.iter()).find_map(|transport| transport.answer(&request)) {
            return Some(answer.await);
        }
        (!self.is_empty()).then(|| ConnectionMessage::rejection(NO_CONNECTIONS))
    }
}
