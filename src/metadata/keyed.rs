//! A store over a key-value service: key names, JSON texts, and reading. Publishing is in `claims`.

mod claims;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::{Mutex, Notify};

use super::backend::{Backend, Entry, News, Patience, Watch};
use super::keys::Keys;
use super::store::{Change, Changed, Own, Store};
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::Client;
use crate::host_port::HostPort;
use crate::json;
use crate::json::members::Members;
use crate::observe::log::RateLimit;
use crate::runtime::{aside, headroom, BoxFuture};
use crate::segment_desc::SegmentDesc;
use claims::Claims;

/// How often in the life of a key its owner looks after it. Chosen: one look may fail, and the next still comes in
/// time.
const LOOKS_PER_LIFE: u32 = 3;

/// Longest time between two looks, however long the keys live. Chosen: a store that was emptied has its keys again
/// after this time, and a look costs one small request per key.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// How often a value is copied on its way to the store, by code that cannot do without the memory. Counted: what is kept of
/// it, the client's request, and its encoding.
const COPIES: usize = 3;

/// Finds out whether an engine lives.
trait Probe: Send + Sync {
    /// Succeeds if an engine answers at this address.
    fn probe(&self, address: &HostPort) -> BoxFuture<'_, Result<()>>;
}

impl Probe for Client {
    fn probe(&self, address: &HostPort) -> BoxFuture<'_, Result<()>> {
        let address = address.clone();
        Box::pin(async move { Client::probe(self, &address).await })
    }
}

/// A store whose values a service keeps by key.
pub(super) struct Keyed {
    backend: Arc<dyn Backend>,
    keys: Keys,
    own: Own,
    patience: Patience,
    interval: Duration,
    may_take_over: bool,
    /// The handshake port listens only once a transport is installed, and until then the address proves nothing.
    legacy_port: bool,
    /// Asks whoever has a name whether it lives.
    asker: Arc<dyn Probe>,
    /// What this engine has published; held for the length of a write, so that writes are in order.
    claims: Mutex<Claims>,
    /// Something was published: there is something to look after.
    published: Notify,
    log: RateLimit,
}

impl Keyed {
    /// A store that has not been talked to yet.
    pub(super) fn new(backend: Arc<dyn Backend>, endpoints: usize, config: &Config, own: Own) -> Self {
        Self::asking(backend, endpoints, config, own, Arc::new(Client::new(config)))
    }

    /// As [`Keyed::new`]; other engines are asked by `asker`.
    fn asking(
        backend: Arc<dyn Backend>,
        endpoints: usize,
        config: &Config,
        own: Own,
        asker: Arc<dyn Probe>,
    ) -> Self {
        Keyed {
            backend,
            keys: Keys::new(config),
            own,
            patience: Patience::new(config, endpoints),
            interval: (config.metadata_ttl / LOOKS_PER_LIFE).min(LONGEST_INTERVAL),
            may_take_over: config.metadata_take_over,
            legacy_port: config.legacy_rpc_port_binding,
            asker,
            claims: Mutex::default(),
            published: Notify::new(),
            log: RateLimit::default(),
        }
    }

    /// The bytes of a value as they are written: sorted, compact, and with a newline except over HTTP. `ERR_MEMORY` if they
    /// do not fit.
    fn text(&self, value: &Value) -> Result<Arc<[u8]>> {
        let mut text = json::line(value)?;
        if !self.backend.ends_in_newline() {
            text.pop();
        }
        headroom::check(COPIES * text.len(), "a value for the store")?;
        Ok(text.into())
    }

    async fn read(&self, key: &str, what: &str) -> Result<Entry> {
        let read = self.patience.bear(|| self.backend.get(key.to_string(), false)).await;
        let read = read.map_err(|e| e.context(format_args!("read {what} from {}", self.backend.name())))?;
        read.ok_or_else(|| {
            let text = format!("{what} is not in {} (key '{key}')", self.backend.name());
            Error::new(Code::Metadata, text).transient(Class::Metadata)
        })
    }

    async fn segment(&self, name: String) -> Result<(SegmentDesc, i64)> {
        self.descriptor(name, decode).await
    }

    /// The descriptor of a segment as `read` reads it, and its revision.
    async fn descriptor<T: Send + 'static>(
        &self,
        name: String,
        read: fn(&[u8]) -> Result<T>,
    ) -> Result<(T, i64)> {
        let key = self.keys.segment(&name);
        let entry = self.read(&key, &format!("the descriptor of '{name}'")).await?;
        let revision = entry.version.revision();
        let decoded = aside::run(entry.value.len(), move || read(&entry.value)).await;
        Ok((decoded.map_err(|e| e.context(format_args!("key '{key}'")).peer(name))?, revision))
    }

    async fn names(&self) -> Result<Vec<String>> {
        let prefix = self.keys.segments();
        let listed = self.patience.bear(|| self.backend.list(prefix.clone())).await?;
        let names = listed.iter().filter_map(|key| key.strip_prefix(&prefix));
        // What has a slash is a key of a cluster that is called as the key space.
        let mut names: Vec<String> = names.filter(|name| !name.contains('/')).map(String::from).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn address(&self, server: String) -> Result<HostPort> {
        let key = self.keys.rpc(&server);
        let entry = self.read(&key, &format!("the handshake address of '{server}'")).await?;
        decode_address(&entry.value).map_err(|e| e.context(format_args!("key '{key}'")).peer(server))
    }
}

/// The value of an `rpc_meta` key.
fn encode_address(address: &HostPort) -> Value {
    json!({"ip_or_host_name": address.host, "rpc_port": address.port})
}

fn decode_address(value: &[u8]) -> Result<HostPort> {
    if value.len() > aside::LARGE {
        let text = format!("{} bytes are no handshake address", value.len());
        return Err(Error::new(Code::MalformedJson, text));
    }
    let value = json::parse(value)?;
    let members = Members::of(&value, "handshake address")?;
    let missing = || Error::new(Code::MalformedJson, "member 'rpc_port' is missing");
    Ok(HostPort {
        host: members.filled_text("ip_or_host_name")?.into(),
        port: members.uint("rpc_port")?.ok_or_else(missing)?,
    })
}

fn decode(value: &[u8]) -> Result<SegmentDesc> {
    SegmentDesc::decode(json::parse(value)?)
}

impl Store for Keyed {
    fn is_peer_to_peer(&self) -> bool {
        false
    }

    fn get(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>> {
        let name = segment.to_string();
        Box::pin(async move { self.segment(name).await.map(|(desc, _)| desc) })
    }

    fn get_at(&self, segment: &str) -> BoxFuture<'_, Result<(SegmentDesc, i64)>> {
        Box::pin(self.segment(segment.to_string()))
    }

    fn document(&self, segment: &str) -> BoxFuture<'_, Result<Value>> {
        let name = segment.to_string();
        Box::pin(async move { self.descriptor(name, json::parse).await.map(|(value, _)| value) })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(self.names())
    }

    fn place(&self, segment: &str) -> String {
        format!("key '{}' in {}", self.keys.segment(segment), self.backend.name())
    }

    fn put(&self, desc: SegmentDesc) -> BoxFuture<'_, Result<()>> {
        let key = self.keys.segment(&desc.name);
        Box::pin(async move { self.publish_descriptor(key, self.text(&desc.encode())?).await })
    }

    fn remove(&self, segment: &str) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.withdraw(self.keys.segment(segment)))
    }

    fn rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<HostPort>> {
        Box::pin(self.address(server_name.to_string()))
    }

    fn put_rpc_address(&self, server_name: &str, address: &HostPort) -> BoxFuture<'_, Result<()>> {
        let (key, value) = (self.keys.rpc(server_name), self.text(&encode_address(address)));
        Box::pin(async move { self.claim_name(key, value?).await })
    }

    fn remove_rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.withdraw(self.keys.rpc(server_name)))
    }

    fn clock_secs(&self) -> Option<u64> {
        self.backend.clock_secs()
    }

    fn upkeep(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let backend = self.backend.clone();
            tokio::join!(self.look_after_claims(), backend.upkeep());
        })
    }

    fn watches(&self) -> bool {
        self.backend.watches()
    }

    fn watch(&self, segment: &str, since: i64, changed: Changed) -> Option<Watch> {
        let (key, name) = (self.keys.segment(segment), segment.to_string());
        let log = RateLimit::default();
        let seen = move |news: News<'_>| {
            let (value, revision) = match news {
                News::Put(value, revision) if value.len() < aside::LARGE => (value, revision),
                // A long one is read again, because that is done beside this thread.
                News::Put(..) | News::Unknown => return changed(Change::Unknown),
                News::Deleted => return changed(Change::Gone),
            };
            match decode(value) {
                Ok(desc) => changed(Change::To(Box::new(desc), revision)),
                Err(error) if log.admit("watch", &name) => {
                    tracing::warn!("the new descriptor of '{name}' is not used: {error}");
                }
                Err(_) => {}
            }
        };
        self.backend.watch(key, since, Box::new(seen))
    }
}

#[cfg(test)]
#[path = "../../tests/sim/claims/mod.rs"]
mod sim;
#[cfg(test)]
mod tests;
