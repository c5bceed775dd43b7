//! Where segment descriptors and RPC addresses come from: the `Store` trait and the registry of its kinds.
//! A new store is a file and one row here.

pub mod p2p;
pub mod segment_desc;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::host_port::HostPort;

pub use segment_desc::SegmentDesc;

/// A boxed future that may be polled on any thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes the local descriptor without its buffers, sent along when a peer's is fetched; null while no
/// transport is installed.
pub type OwnDescriptor = Arc<dyn Fn() -> Value + Send + Sync>;

/// A place for descriptors and RPC addresses. Futures run on the control thread.
pub trait Store: Send + Sync {
    /// Word for messages, for example `P2PHANDSHAKE`.
    fn name(&self) -> &'static str;

    /// Whether peers are asked directly, so that segment names are addresses and nothing is published.
    fn is_peer_to_peer(&self) -> bool;

    /// The current descriptor of `segment`, never cached. `ERR_METADATA` if there is none.
    fn get(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>>;

    /// Publishes `desc` under its name, replacing what was there.
    fn put(&self, desc: &SegmentDesc) -> BoxFuture<'_, Result<()>>;

    /// Removes the descriptor of `segment`.
    fn remove(&self, segment: &str) -> BoxFuture<'_, Result<()>>;

    /// The handshake address of `server_name`. `ERR_METADATA` if there is none.
    fn rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<HostPort>>;

    /// Publishes the handshake address of `server_name`.
    fn put_rpc_address(&self, server_name: &str, address: &HostPort) -> BoxFuture<'_, Result<()>>;

    /// Removes the handshake address of `server_name`.
    fn remove_rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<()>>;
}

type Open = fn(&str, &Config, OwnDescriptor) -> Result<Arc<dyn Store>>;

/// One kind of store.
struct Row {
    /// What stands before `://` in the connection string.
    scheme: &'static str,
    open: Open,
}

/// The scheme of a connection string that has none.
const DEFAULT_SCHEME: &str = "etcd";

const STORES: &[Row] = &[
    Row { scheme: "etcd", open: not_in_this_build },
    Row { scheme: "redis", open: not_in_this_build },
    Row { scheme: "http", open: not_in_this_build },
    Row { scheme: "https", open: not_in_this_build },
];

/// Opens the store that `connection` names: `P2PHANDSHAKE`, or `scheme://...` where no scheme means etcd.
///
/// `ERR_INVALID_ARGUMENT` if it is empty or the scheme unknown, `ERR_NOT_IMPLEMENTED` if this build lacks the
/// store.
pub fn open(connection: &str, config: &Config, own: OwnDescriptor) -> Result<Arc<dyn Store>> {
    if connection == p2p::CONNECTION {
        return Ok(Arc::new(p2p::P2p::new(config, own)));
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

fn not_in_this_build(connection: &str, _: &Config, _: OwnDescriptor) -> Result<Arc<dyn Store>> {
    Err(Error::new(
        Code::NotImplemented,
        format!("metadata store '{connection}' is not in this build; use P2PHANDSHAKE"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_string_selects_the_store() {
        let open = |text: &str| open(text, &Config::default(), Arc::new(|| Value::Null));
        let store = open("P2PHANDSHAKE").ok().unwrap();
        assert!(store.is_peer_to_peer() && store.name() == "P2PHANDSHAKE");
        for (text, code) in [
            ("", Code::InvalidArgument),
            ("zookeeper://h:1", Code::InvalidArgument),
            ("://h", Code::InvalidArgument),
            ("etcd://h:2379", Code::NotImplemented),
            ("h:2379,i:2379", Code::NotImplemented),
            ("p2phandshake", Code::NotImplemented),
            ("redis://h:6379", Code::NotImplemented),
            ("http://h/metadata", Code::NotImplemented),
            ("https://h/metadata", Code::NotImplemented),
        ] {
            assert_eq!(open(text).err().unwrap().code(), code, "{text}");
        }
    }
}
