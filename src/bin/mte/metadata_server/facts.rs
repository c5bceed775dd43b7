//! What the server's page tells of a value. The server itself never looks into values.

use serde_json::Value;

/// Largest value that is looked into. Chosen: a descriptor with some 30,000 buffers, which takes tens of milliseconds and of MiB.
const LONGEST_BYTES: usize = 4 << 20;
/// Longest text that is kept of a value, bytes: what is kept of many takes little beside them.
const LONGEST_TEXT: usize = 1024;

/// What a value says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Facts {
    /// The descriptor of a segment.
    Segment(Segment),
    /// The handshake address of an engine.
    Address(String),
    /// Nothing that can be told, and why.
    Unread(&'static str),
}

/// What a descriptor says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Segment {
    /// What its owner calls itself.
    pub owner: String,
    /// The transport in whose form the buffers are listed.
    pub protocol: String,
    /// NICs that it is reached by; `None`: it lists none, as over TCP.
    pub nics: Option<usize>,
    /// Buffers that peers may access.
    pub buffers: usize,
    /// Their bytes in all.
    pub bytes: u64,
}

/// What a key is for, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// The descriptor of this segment, in this cluster.
    Segment { cluster: &'a str, name: &'a str },
    /// The handshake address of this engine.
    Address { cluster: &'a str, name: &'a str },
    /// Something that this project does not know.
    Other,
}

impl<'a> Kind<'a> {
    /// As engines name their keys: `mooncake/[cluster/]ram/name` and `mooncake/[cluster/]rpc_meta/name`. A name with a slash stands for a key
    /// space of its own, and has no `ram/` before it.
    pub(super) fn of(key: &'a str) -> Self {
        let Some(rest) = key.strip_prefix("mooncake/") else { return Kind::Other };
        let part = |word: &str| {
            let (cluster, name) = match rest.strip_prefix(word) {
                Some(name) => ("", name),
                None => {
                    let at = rest.find(&format!("/{word}"))?;
                    (&rest[..at], &rest[at + 1 + word.len()..])
                }
            };
            (!name.is_empty()).then_some((cluster, name))
        };
        if let Some((cluster, name)) = part("rpc_meta/") {
            return Kind::Address { cluster, name };
        }
        match part("ram/") {
            Some((cluster, name)) => Kind::Segment { cluster, name },
            None if rest.contains('/') => Kind::Segment { cluster: "", name: rest },
            None => Kind::Other,
        }
    }
}

impl Facts {
    /// Reads the value of `key`.
    pub(super) fn of(key: &str, value: &[u8]) -> Self {
        let kind = Kind::of(key);
        if kind == Kind::Other {
            return Facts::Unread("the key is none of an engine's");
        }
        if value.len() > LONGEST_BYTES {
            return Facts::Unread("too large to look into");
        }
        let Ok(document) = serde_json::from_slice::<Value>(value) else {
            return Facts::Unread("not JSON");
        };
        let text = |member: &str| document[member].as_str().map(cut);
        if let Kind::Address { .. } = kind {
            let (host, port) = (text("ip_or_host_name"), document["rpc_port"].as_u64());
            return match (host, port) {
                (Some(host), Some(port)) if host.contains(':') => Facts::Address(format!("[{host}]:{port}")),
                (Some(host), Some(port)) => Facts::Address(format!("{host}:{port}")),
                _ => Facts::Unread("no address"),
            };
        }
        let (Some(owner), Some(protocol)) = (text("name"), text("protocol")) else {
            return Facts::Unread("no descriptor");
        };
        let buffers = document["buffers"].as_array().map_or(&[][..], Vec::as_slice);
        let lengths = buffers.iter().filter_map(|buffer| buffer["length"].as_u64());
        Facts::Segment(Segment {
            owner,
            protocol,
            nics: document["devices"].as_array().map(Vec::len),
            buffers: buffers.len(),
            bytes: lengths.fold(0, u64::saturating_add),
        })
    }
}

/// The beginning of a text that may be long.
fn cut(text: &str) -> String {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=text.len().min(LONGEST_TEXT)).rev().find(fits).unwrap_or(0);
    text[..end].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_names() {
        let segment = |cluster, name| Kind::Segment { cluster, name };
        let address = |cluster, name| Kind::Address { cluster, name };
        for (key, kind) in [
            ("mooncake/ram/node", segment("", "node")),
            ("mooncake/a/ram/h:1", segment("a", "h:1")),
            ("mooncake/nvmeof/foo", segment("", "nvmeof/foo")),
            ("mooncake/rpc_meta/h:1", address("", "h:1")),
            ("mooncake/a/rpc_meta/ram/x", address("a", "ram/x")),
            ("mooncake/ram/", segment("", "ram/")),
            ("mooncake/x", Kind::Other),
            ("mooncake/", Kind::Other),
            ("other", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(Kind::of(key), kind, "{key}");
        }
    }

    #[test]
    fn values_are_read_as_far_as_they_can_be() {
        let tcp = Segment { owner: "n".into(), protocol: "tcp".into(), nics: None, buffers: 3, bytes: 12 };
        let read = |key: &str, value: &str| Facts::of(key, value.as_bytes());
        let text = r#"{"name":"n","protocol":"tcp","buffers":[{"length":5},{"length":7},{}],"x":1}"#;
        assert_eq!(read("mooncake/ram/n", text), Facts::Segment(tcp));
        let Facts::Segment(rdma) =
            read("mooncake/ram/n", r#"{"name":"n","protocol":"p","devices":[{},{}],"buffers":3}"#)
        else {
            panic!("a descriptor is not read")
        };
        assert_eq!((rdma.nics, rdma.buffers), (Some(2), 0));
        let at = |host: &str| format!(r#"{{"ip_or_host_name":"{host}","rpc_port":9}}"#);
        assert_eq!(read("mooncake/rpc_meta/n", &at("h")), Facts::Address("h:9".into()));
        assert_eq!(read("mooncake/rpc_meta/n", &at("::1")), Facts::Address("[::1]:9".into()));
        for (key, value) in [
            ("mooncake/ram/n", "\u{0}"),
            ("mooncake/ram/n", "[]"),
            ("mooncake/ram/n", r#"{"name":1,"protocol":"tcp"}"#),
            ("mooncake/rpc_meta/n", r#"{"rpc_port":9}"#),
            ("other", text),
        ] {
            assert!(matches!(read(key, value), Facts::Unread(_)), "{key} {value}");
        }
        assert_eq!(
            Facts::of("mooncake/ram/n", &vec![b' '; LONGEST_BYTES + 1]),
            Facts::Unread("too large to look into")
        );
        let long = format!(r#"{{"name":"{}","protocol":"tcp"}}"#, "ä".repeat(1000));
        let Facts::Segment(long) = read("mooncake/ram/n", &long) else { panic!("a long name is not read") };
        assert_eq!(long.owner, "ä".repeat(LONGEST_TEXT / 2));
        // As deep as a stranger likes.
        assert!(matches!(read("mooncake/ram/n", &"[".repeat(100_000)), Facts::Unread(_)));
    }
}
