//! Where segment descriptors and RPC addresses come from: the table of the kinds of stores. A new one is a file and one row
//! here.

mod backend;
#[cfg(feature = "etcd")]
mod etcd;
mod http;
mod http_date;
mod keyed;
mod keys;
pub mod p2p;
mod redis;
mod store;
mod tls;

use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, Result};

pub use http::{EXPIRE_HEADER, KEYS_PATH};
pub use store::{Change, Own, Store, Watch};

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
    Row { scheme: "rediss", open: redis::open },
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
    if connection.trim().eq_ignore_ascii_case(p2p::CONNECTION) {
        let text = format!("unknown metadata store '{connection}'; did you mean {}?", p2p::CONNECTION);
        return Err(Error::invalid(text));
    }
    let scheme = connection.split_once("://").map_or(DEFAULT_SCHEME, |(scheme, _)| scheme);
    let row = STORES.iter().find(|row| row.scheme == scheme).ok_or_else(|| {
        let known: Vec<_> = STORES.iter().map(|row| row.scheme).collect();
        // What is no scheme may be a password at a wrong place.
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let shown = if is_scheme { scheme } else { "..." };
        Error::invalid(format!(
            "unknown metadata store '{shown}://'; known are P2PHANDSHAKE and {}",
            known.join(", ")
        ))
    })?;
    (row.open)(connection, config, own)
}

#[cfg(not(feature = "etcd"))]
fn not_in_this_build(_: &str, _: &Config, _: Own) -> Result<Arc<dyn Store>> {
    let text = "the metadata store etcd is not in this build; build with the feature etcd";
    Err(Error::new(crate::error::Code::NotImplemented, text))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
            ("rediss://h:6379", "redis"),
            ("http://h/metadata", "http"),
            ("https://h:8443/metadata?x=1", "http"),
            #[cfg(feature = "etcd")]
            ("etcd://h:2379", "etcd"),
            #[cfg(feature = "etcd")]
            ("h:2379, i:2379;[::1]:2379", "etcd"),
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
            "http://u:secret@h/",
            "http://h:0/",
            "http:// h/",
            "redis://",
            "redis://h:99999",
            "redis://u:secret@h",
            "u:secret@h://x",
            "http://u:secret@\u{1}h/",
            "http://u:secret@",
            "http://u:secret@/",
            "http://u:secret/more@h/",
            "http://u:secret?more@h/",
            "etcd://u:secret,more@h",
            "redis://h/1",
            "rediss://",
            "rediss://u:secret@h",
            "etcd://,;",
            "etcd://h:99999",
            "etcd://h:2380x",
            "h:23790/prefix",
            "etcd://u:secret@h:2379",
            "etcd://h:2379,i:0",
            "etcd://ftp://h",
            "P2PHANDSHAKE ",
            "p2phandshake",
            " P2pHandshake\n",
        ] {
            let error = open(text).err().expect(text);
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
            assert!(!error.text().contains("secret"), "{error}");
            assert!(
                !text.to_lowercase().contains("p2p") || error.text().contains("did you mean P2PHANDSHAKE?")
            );
        }
    }
}
