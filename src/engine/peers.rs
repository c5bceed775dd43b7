//! Questions about peers: whether one lives, what it publishes.

use std::future::Future;
use std::time::Duration;

use super::segments::{never_opened, stripped, LOCAL_SEGMENT};
use super::Engine;
use crate::error::{Class, Code, Error, Result};
use crate::runtime::aside;
use crate::transport::table::PROTOCOLS;

/// How long reading a descriptor to show it may take. Chosen: the default limit of a store's operation and of a connect.
const SHOW_LIMIT: Duration = Duration::from_secs(5);

impl Engine {
    /// Whether the engine of this segment name answers on its handshake port, asked now; at most `MC_HANDSHAKE_CONNECT_TIMEOUT`
    /// is waited for the answer. `ERR_METADATA` if the name is unknown in the store, else as a handshake fails.
    pub fn probe_peer(&self, name: &str) -> Result<()> {
        self.probe_within(name, self.config.connect_timeout)
    }

    /// As [`Engine::probe_peer`], but waits for `limit` at most.
    pub fn probe_within(&self, name: &str, limit: Duration) -> Result<()> {
        let name = stripped(name)?;
        if name == self.local.name {
            return Ok(());
        }
        let (store, client, name) = (self.store.clone(), self.client.clone(), name.to_string());
        let peer = name.clone();
        self.ask(limit, peer, "a probe", async move {
            let address = store.rpc_address(&name).await?;
            client.probe(&address).await
        })
    }

    /// The same for a segment that was opened. -1 for an id that is unknown.
    pub fn probe_segment(&self, id: i32) -> Result<()> {
        if id == LOCAL_SEGMENT {
            return Ok(());
        }
        let name = self.segments.name_of(id).ok_or_else(|| never_opened(id))?;
        self.probe_peer(&name)
    }

    /// The transport that a submit call to an open segment takes now. -1 for an id that is unknown and for the own one, -6 or -1
    /// if none leads there.
    pub fn transport_to(&self, id: i32) -> Result<&'static str> {
        let segment = self.segment(id)?;
        let way = self.way(&segment, &segment.known())?;
        Ok(PROTOCOLS[way.row].name())
    }

    /// -1 for an id that is unknown: it was never opened, or removed.
    pub fn segment_status(&self, id: i32) -> Result<()> {
        if id == LOCAL_SEGMENT || self.segments.name_of(id).is_some() {
            return Ok(());
        }
        Err(never_opened(id))
    }

    /// The descriptor of a segment as its owner publishes it now, as JSON text; null for the own one before a transport is
    /// installed. Waits for the owner or the store, a few seconds at most.
    pub fn segment_descriptor(&self, id: i32) -> Result<String> {
        if id == LOCAL_SEGMENT {
            let own = self.local.descriptor()?;
            return Ok(own.map_or_else(|| "null".into(), |own| own.encode().to_string()));
        }
        let name = self.segments.name_of(id).ok_or_else(|| never_opened(id))?;
        let store = self.store.clone();
        let peer = name.clone();
        self.ask(SHOW_LIMIT, peer, "the question for its descriptor", async move {
            let desc = store.get(&name).await?;
            aside::run(desc.weight(), move || Ok(desc.encode().to_string())).await
        })
    }

    /// Waits for a question to a peer, or to the store about it, for `limit` at most.
    fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        peer: String,
        what: &'static str,
        answer: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.control.block(async move {
            tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                let text =
                    format!("'{peer}', or the store, has not answered {what} within {limit:?}; does it run?");
                Err(Error::new(Code::Socket, text).transient(Class::Timeout).peer(peer))
            })
        })
    }

    /// Whether a byte of `[addr, addr+len)` lies in registered memory.
    pub fn overlaps(&self, addr: u64, len: u64) -> bool {
        self.local.registry.overlaps(addr, len)
    }
}
