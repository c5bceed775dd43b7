//! Where segment descriptors and RPC addresses come from: the `Store` trait and the registry of its kinds.
//! A new store is a file and one row here.

mod backend;
#[cfg(feature = "etcd")]
mod etcd;
mod http;
mod keyed;
mod keys;
pub mod p2p;
mod redis;
mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::host_port::HostPort;

pub use crate::segment_desc::SegmentDesc;
pub use backend::Watch;
pub use http::EXPIRE_HEADER;

/// A boxed future that may be polled on any thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes the local descriptor without its buffers, sent along when a peer's is fetched; null while no
/// transport is installed.
pub type OwnDescriptor = Arc<dyn Fn() -> Value + Send + Sync>;

/// What a store knows of the engine that uses it.
#[derive(Clone)]
pub struct Own {
    /// Random id of this engine start, as descriptors carry it.
    pub incarnation: String,
    /// Its descriptor.
    pub descriptor: OwnDescriptor,
}

/// News of a watched descriptor.
pub enum Change {
    /// It says this now, as of this revision.
    To(Box<SegmentDesc>, i64),
    /// It may have changed: read it again.
    Unknown,
}

/// Called on the control thread with each change; must not block.
pub type Changed = Box<dyn Fn(Change) + Send + Sync>;

/// A place for descriptors and RPC addresses. Futures run on the control thread.
pub trait Store: Send + Sync {
    /// Whether peers are asked directly, so that segment names are addresses and nothing is published.
    fn is_peer_to_peer(&self) -> bool;

    /// The current descriptor of `segment`, never cached. `ERR_METADATA` if there is none.
    fn get(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>>;

    /// Where the descriptor of `segment` stands, for messages.
    fn place(&self, segment: &str) -> String;

    /// As `get`, and a number to watch from.
    fn get_at(&self, segment: &str) -> BoxFuture<'_, Result<(SegmentDesc, i64)>> {
        let got = self.get(segment);
        Box::pin(async move { got.await.map(|desc| (desc, 0)) })
    }

    /// Publishes `desc` under its name, replacing what this engine published before. `ERR_METADATA` if the store cannot
    /// be reached, refuses, or has a descriptor of another live engine.
    fn put(&self, desc: SegmentDesc) -> BoxFuture<'_, Result<()>>;

    /// Removes the descriptor of `segment` if this engine published it. Afterwards the engine publishes nothing more.
    fn remove(&self, segment: &str) -> BoxFuture<'_, Result<()>>;

    /// The handshake address of `server_name`. `ERR_METADATA` if there is none.
    fn rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<HostPort>>;

    /// Publishes the handshake address of `server_name`; `ERR_METADATA` if another live engine has that name.
    fn put_rpc_address(&self, server_name: &str, address: &HostPort) -> BoxFuture<'_, Result<()>>;

    /// Removes the handshake address of `server_name` if this engine published it.
    fn remove_rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<()>>;

    /// What the store does by itself: looks after what was published, hears of changes. Runs until it is dropped.
    fn upkeep(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether [`Store::watch`] tells of changes.
    fn watches(&self) -> bool {
        false
    }

    /// Reports changes of a descriptor after `since`, a number of [`Store::get_at`], until the watch is dropped.
    fn watch(&self, segment: &str, since: i64, changed: Changed) -> Option<Watch> {
        let _ = (segment, since, changed);
        None
    }
}

type Open = fn(&str, &Config, Own) -> Result<Arc<dyn Store>>;

/// One kind of store.
struct Row {
    /// What stands before `://` in the connection string.
    scheme: &'static str,
    open: Open,
}

/// The scheme of a connection string that has none.
const DEFAULT_SCHEME: &str = "etcd";

const STORES: &[Row] = &[
    #[cfg(feature = "etcd")]
    Row { scheme: "etcd", open: etcd::open },
    #[cfg(not(feature = "etcd"))]
    Row { scheme: "etcd", open: not_in_this_build },
    Row { scheme: "redis", open: redis::open },
    Row { scheme: "http", open: http::open },
    Row { scheme: "https", open: http::open },
];

/// Whether `connection` asks for no store: peers are asked directly.
pub fn is_peer_to_peer(connection: &str) -> bool {
    connection == p2p::CONNECTION
}

/// Prepares the store that `connection` names, `P2PHANDSHAKE` or `scheme://...` where no scheme means etcd, without
/// talking to it.
///
/// `ERR_INVALID_ARGUMENT` if it is empty, malformed or the scheme unknown, `ERR_NOT_IMPLEMENTED` if this build lacks
/// the store.
pub fn open(connection: &str, config: &Config, own: Own) -> Result<Arc<dyn Store>> {
    if is_peer_to_peer(connection) {
        return Ok(Arc::new(p2p::P2p::new(config, own.descriptor)));
    }
    if connection.is_empty() {
        return Err(Error::invalid(
            "metadata connection string is empty; use P2PHANDSHAKE to run without a store",
        ));
    }
    let scheme = connection.split_once("://").map_or(DEFAULT_SCHEME, |(scheme, _)| scheme);
    let row = STORES.iter().find(|row| row.scheme == scheme).ok_or_else(|| {
        let known: Vec<_> = STORES.iter().map(|row| row.scheme).collect();
        Error::invalid(format!(
            "unknown metadata store '{scheme}://'; known are P2PHANDSHAKE and {}",
            known.join(", ")
        ))
    })?;
    (row.open)(connection, config, own)
}

#[cfg(not(feature = "etcd"))]
fn not_in_this_build(connection: &str, _: &Config, _: Own) -> Result<Arc<dyn Store>> {
    let text = format!("metadata store '{connection}' is not in this build; build with the feature etcd");
    Err(Error::new(crate::error::Code::NotImplemented, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn p35_the_connection_string_selects_the_store() {
        let open = |text: &str| {
            let own = Own { incarnation: "i".into(), descriptor: Arc::new(|| Value::Null) };
            open(text, &Config::default(), own)
        };
        for (text, name) in [
            ("P2PHANDSHAKE", "peer"),
            ("redis://h:6379", "redis"),
            ("redis://h", "redis"),
            ("http://h/metadata", "http"),
            ("https://h:8443/metadata?x=1", "http"),
            #[cfg(feature = "etcd")]
            ("etcd://h:2379", "etcd"),
            #[cfg(feature = "etcd")]
            ("h:2379, i:2379;[::1]:2379", "etcd"),
            #[cfg(feature = "etcd")]
            ("p2phandshake", "etcd"),
        ] {
            let store = open(text).map_err(|e| e.to_string()).unwrap();
            assert_eq!(store.is_peer_to_peer(), name == "peer");
            assert!(store.place("h:1").contains(name), "{text}: {}", store.place("h:1"));
        }
        for text in [
            "",
            "zookeeper://h:1",
            "://h",
            "http://",
            "http://h:x/",
            "http://h:70000/",
            "http://u:p@h/",
            "http:// h/",
            "redis://",
            "etcd://,;",
        ] {
            assert_eq!(open(text).err().map(|e| e.code()), Some(Code::InvalidArgument), "{text}");
        }
    }
}
