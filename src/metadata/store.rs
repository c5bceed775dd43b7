//! What a metadata store is to the engine.

use std::sync::Arc;

use serde_json::Value;

use super::backend::cannot_list;
pub use super::backend::Watch;
use crate::error::Result;
use crate::host_port::HostPort;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;

/// Makes the local descriptor without its buffers, sent along when a peer's is fetched; null while no
/// transport is installed.
pub(super) type OwnDescriptor = Arc<dyn Fn() -> Value + Send + Sync>;

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
    /// It was deleted: its owner ended, and may come back as another process.
    Gone,
    /// It may have changed: read it again.
    Unknown,
}

/// Called on the control thread with each change; must not block.
pub(super) type Changed = Box<dyn Fn(Change) + Send + Sync>;

/// A place for descriptors and RPC addresses. Futures run on the control thread.
pub trait Store: Send + Sync {
    /// Whether peers are asked directly, so that segment names are addresses and nothing is published.
    fn is_peer_to_peer(&self) -> bool;

    /// The current descriptor of `segment`, never cached. `ERR_METADATA` if there is none.
    fn get(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>>;

    /// The same as its owner wrote it, time stamp included.
    fn document(&self, segment: &str) -> BoxFuture<'_, Result<Value>> {
        let got = self.get(segment);
        Box::pin(async move { got.await.map(SegmentDesc::encode) })
    }

    /// The names of all segments that are published, sorted; those of key spaces of their own, which have a slash, left out.
    /// `ERR_NOT_IMPLEMENTED` where the store cannot list.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(std::future::ready(Err(cannot_list("peers without a store"))))
    }

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

    /// What the store's clock showed at its last answer, as seconds since 1970, if it tells.
    fn clock_secs(&self) -> Option<u64> {
        None
    }

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
