//! The names of keys, the same in every store.

use crate::config::Config;

/// Key names of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// `mooncake/`, or `mooncake/<cluster>/`.
    prefix: String,
}

impl Keys {
    /// The names of the cluster that `MC_METADATA_CLUSTER_ID` gives.
    pub(super) fn new(config: &Config) -> Self {
        let cluster = config.metadata_cluster_id.as_deref().unwrap_or_default();
        let slash = if cluster.is_empty() || cluster.ends_with('/') { "" } else { "/" };
        Keys { prefix: format!("mooncake/{cluster}{slash}") }
    }

    /// What the keys of descriptors begin with, those of key spaces of their own left out.
    pub(super) fn segments(&self) -> String {
        format!("{}ram/", self.prefix)
    }

    /// The key of a segment's descriptor. Names with a slash address key spaces of their own.
    pub(super) fn segment(&self, name: &str) -> String {
        let space = if name.contains('/') { "" } else { "ram/" };
        format!("{}{space}{name}", self.prefix)
    }

    /// The key of a server's handshake address.
    pub(super) fn rpc(&self, server_name: &str) -> String {
        format!("{}rpc_meta/{server_name}", self.prefix)
    }
}

/// `text` for the query of a URL: everything but letters, digits and `-._~` is encoded.
pub(super) fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_the_cluster_and_the_space() {
        for (cluster, name, segment, rpc) in [
            (None, "node", "mooncake/ram/node", "mooncake/rpc_meta/node"),
            (Some("a"), "node a", "mooncake/a/ram/node a", "mooncake/a/rpc_meta/node a"),
            (Some("a/"), "h:1", "mooncake/a/ram/h:1", "mooncake/a/rpc_meta/h:1"),
            (None, "nvmeof/foo", "mooncake/nvmeof/foo", "mooncake/rpc_meta/nvmeof/foo"),
        ] {
            let config = Config { metadata_cluster_id: cluster.map(String::from), ..Config::default() };
            let keys = Keys::new(&config);
            assert_eq!((keys.segment(name), keys.rpc(name)), (segment.to_string(), rpc.to_string()));
        }
        assert_eq!(percent_encoded("mooncake/ram/h:1 ä-._~"), "mooncake%2Fram%2Fh%3A1%20%C3%A4-._~");
        assert_eq!([percent_encoded(""), percent_encoded("a")], ["", "a"]);
    }
}
