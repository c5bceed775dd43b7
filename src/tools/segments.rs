//! Looks into a store without being an engine: nothing is published there. One thread, which ends with the [`Watcher`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::settings::settings;
use crate::cluster_key;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::Client;
use crate::metadata::{self, Own, Store};
use crate::runtime::control::Control;
use crate::runtime::fork;
use crate::segment_desc::{SegmentDesc, BUFFERS};
use crate::tls;

/// Segments looked at once. Chosen: a store answers so many at a time, and a thousand dead peers take half a minute.
const AT_ONCE: usize = 64;
/// The member of descriptors that lists NICs.
const NICS: &str = "devices";

/// Reads a store.
pub struct Watcher {
    control: Control,
    store: Arc<dyn Store>,
    client: Client,
    limit: Duration,
}

/// A segment as found.
#[derive(Debug, Default)]
pub struct Seen {
    /// Name in the store.
    pub name: String,
    /// The transport in whose form its buffers are listed; "" if there is no descriptor.
    pub protocol: String,
    /// Buffers that peers may access.
    pub buffers: usize,
    /// Their bytes in all.
    pub bytes: u64,
    /// Names of the NICs that it is reached by.
    pub nics: Vec<String>,
    /// Where its handshake port is.
    pub address: Option<String>,
    /// When its descriptor was written, as the owner says.
    pub published: Option<String>,
    /// Why it counts as dead; `None`: its handshake port answers.
    pub fault: Option<Error>,
}

impl Watcher {
    /// Opens a store without talking to it. A peer has `limit` to answer. Errors as of a connection string.
    pub fn open(connection: &str, limit: Duration) -> Result<Self> {
        let mut config = settings();
        cluster_key::settle(&mut config)?;
        tls::settle(&mut config)?;
        fork::watch();
        config.connect_timeout = limit;
        config.handshake_timeout = limit;
        // Peers want a descriptor of whoever asks, and look into none.
        let own = Own { incarnation: String::new(), descriptor: Arc::new(|| json!({})) };
        let store = metadata::open(connection, &config, own)?;
        Ok(Watcher { control: Control::start()?, store, client: Client::new(&config), limit })
    }

    /// The names of all segments. `ERR_NOT_IMPLEMENTED` where the store cannot list them.
    pub fn names(&self) -> Result<Vec<String>> {
        let store = self.store.clone();
        self.control.block(async move { store.list().await })
    }

    /// Looks at each of `names`, many at once; in their order. An error if the store does not answer.
    pub fn look_at(&self, names: Vec<String>) -> Result<Vec<Seen>> {
        let (store, client, limit) = (self.store.clone(), self.client.clone(), self.limit);
        self.control.block(async move {
            let (turns, mut looks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
            for (place, name) in names.into_iter().enumerate() {
                let (turns, store, client) = (turns.clone(), store.clone(), client.clone());
                looks.spawn(async move {
                    // The semaphore is never closed.
                    let _turn = turns.acquire().await;
                    (place, look(&*store, &client, name, limit).await)
                });
            }
            let mut seen = Vec::new();
            while let Some(looked) = looks.join_next().await {
                let looked = looked.map_err(|e| Error::invalid(format!("a look failed: {e}")));
                let (place, found) = looked.map_err(|e| e.permanent(Class::Internal))?;
                seen.push((place, found?));
            }
            seen.sort_unstable_by_key(|(place, _)| *place);
            Ok(seen.into_iter().map(|(_, seen)| seen).collect())
        })
    }
}

/// An error only if it is the store's, which the next segment would meet too.
async fn look(store: &dyn Store, client: &Client, name: String, limit: Duration) -> Result<Seen> {
    let mut seen = Seen { name: name.clone(), ..Seen::default() };
    let described = match store.document(&name).await {
        Ok(document) => describe(document, &mut seen),
        Err(error) => Err(error),
    };
    let server = match described {
        Ok(desc) => desc.name,
        // Not there, or of no use.
        Err(error) if store.is_peer_to_peer() || is_about_segment(&error) => {
            seen.fault = Some(error);
            name
        }
        Err(error) => return Err(error),
    };
    let address = match store.rpc_address(&server).await {
        Ok(address) => address,
        Err(error) if is_about_segment(&error) => {
            seen.fault.get_or_insert(error);
            return Ok(seen);
        }
        Err(error) => return Err(error),
    };
    seen.address = Some(address.to_string());
    // Who cannot be opened need not be asked.
    if seen.fault.is_none() {
        let probed = timeout(limit, client.probe(&address)).await.unwrap_or_else(|_| {
            let text = format!("{address} does not answer within {limit:?}; is it stopped?");
            Err(Error::new(Code::Socket, text).transient(Class::Timeout))
        });
        seen.fault = probed.err();
    }
    Ok(seen)
}

/// The store answered, but there is no segment or no readable one.
fn is_about_segment(error: &Error) -> bool {
    matches!(error.kind(), Class::Metadata | Class::Protocol)
}

fn describe(document: Value, seen: &mut Seen) -> Result<SegmentDesc> {
    seen.published = document["timestamp"].as_str().map(String::from);
    let desc = SegmentDesc::decode(document)?;
    let list =
        |member: &str| desc.members.get(member).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    seen.protocol.clone_from(&desc.protocol);
    seen.buffers = list(BUFFERS).len();
    let lengths = list(BUFFERS).iter().filter_map(|buffer| buffer["length"].as_u64());
    seen.bytes = lengths.fold(0, u64::saturating_add);
    let names = list(NICS).iter().filter_map(|nic| nic["name"].as_str());
    seen.nics = names.map(String::from).collect();
    Ok(desc)
}
