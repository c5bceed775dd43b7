//! The store that is none: a segment's name is its peer's handshake address, and the peer itself is asked for
//! its descriptor.

use std::future::ready;

use serde_json::Value;

use super::store::{OwnDescriptor, Store};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::handshake::Client;
use crate::host_port::{self, HostPort};
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;

/// The connection string that selects this store.
pub const CONNECTION: &str = "P2PHANDSHAKE";

/// Descriptor exchange over the handshake port.
pub struct P2p {
    client: Client,
    default_port: u16,
    own: OwnDescriptor,
}

impl P2p {
    /// A store that sends what `own` makes with each request.
    pub fn new(config: &Config, own: OwnDescriptor) -> Self {
        P2p { client: Client::new(config), default_port: config.handshake_port, own }
    }

    async fn fetch(&self, segment: String) -> Result<SegmentDesc> {
        let address = host_port::parse(&segment, self.default_port);
        SegmentDesc::decode(self.reply(segment).await?)
            .map_err(|e| e.context(format_args!("descriptor of {address}")).peer(address.to_string()))
    }

    async fn reply(&self, segment: String) -> Result<Value> {
        let mut own = (self.own)();
        match &mut own {
            Value::Null => return Err(Error::invalid("install a transport first")),
            // Peers ignore the request, but drop one that is over their length limit.
            Value::Object(members) => drop(members.insert("buffers".into(), Value::Array(Vec::new()))),
            _ => {}
        }
        let address = host_port::parse(&segment, self.default_port);
        let reply = self.client.metadata(&address, &own).await?;
        if reply.is_null() {
            let text = format!("peer {address} has no transport installed yet; open the segment later");
            return Err(Error::new(Code::Metadata, text).peer(address.to_string()));
        }
        Ok(reply)
    }
}

impl Store for P2p {
    fn is_peer_to_peer(&self) -> bool {
        true
    }

    fn get(&self, segment: &str) -> BoxFuture<'_, Result<SegmentDesc>> {
        Box::pin(self.fetch(segment.to_string()))
    }

    fn document(&self, segment: &str) -> BoxFuture<'_, Result<Value>> {
        Box::pin(self.reply(segment.to_string()))
    }

    fn place(&self, segment: &str) -> String {
        format!("descriptor of peer {}", host_port::parse(segment, self.default_port))
    }

    fn put(&self, _: SegmentDesc) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn remove(&self, _: &str) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn rpc_address(&self, server_name: &str) -> BoxFuture<'_, Result<HostPort>> {
        Box::pin(ready(Ok(host_port::parse(server_name, self.default_port))))
    }

    fn put_rpc_address(&self, _: &str, _: &HostPort) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn remove_rpc_address(&self, _: &str) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }
}
