//! Every transport of this build. A new one is a folder beside this file and a row of [`PROTOCOLS`].

use super::protocol::Protocol;
use crate::config::Config;
use crate::error::{Class, Code, Error};

/// In order of preference: the first one that a peer offers and that works here is used.
pub const PROTOCOLS: &[&dyn Protocol] = &[
    &super::shm::Row,
    #[cfg(feature = "rdma")]
    &super::rdma::Row,
    &super::tcp::Row,
    &super::posix_shm::Row,
    #[cfg(feature = "internals")]
    &super::echo::Row,
];

/// Protocols of this project that this build was made without.
const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "rdma"))]
    "rdma",
];

/// Protocols that some build of upstream knows and none of this project does. Descriptors that name one are read,
/// because such a peer may offer another way as well.
const FOREIGN: &[&str] = &[
    "ascend",
    "barex",
    "cxi",
    "cxl",
    "efa",
    "hip",
    "maca",
    "musa",
    "nccl",
    "nvlink",
    "nvlink_intra",
    "nvmeof",
    "nvmeof_generic",
    "sunrise_link",
    "ub",
    "ubshmem",
];

/// The answer to a connection request where no transport has connections, in upstream's words.
pub const NO_CONNECTIONS: &str = "no RDMA transport on this node";

/// The place of a protocol in [`PROTOCOLS`].
pub fn position(name: &str) -> Option<usize> {
    PROTOCOLS.iter().position(|row| row.name() == name)
}

/// Whether descriptors may name this protocol.
pub fn is_known(name: &str) -> bool {
    position(name).is_some() || LEFT_OUT.contains(&name) || FOREIGN.contains(&name)
}

/// Why this protocol cannot be installed: -303 for one that this build lacks, -1 for one that does not exist.
pub fn not_here(name: &str) -> Error {
    let names: Vec<_> = PROTOCOLS.iter().map(|row| row.name()).collect();
    let names = names.join(" or ");
    if is_known(name) {
        let text = format!("transport '{name}' is not in this build; use {names}");
        return Error::new(Code::NotImplemented, text);
    }
    Error::invalid(format!("unknown transport '{name}'; this build has {names}"))
}

/// Why a segment whose descriptor names a protocol without a row cannot be reached: -6 for a protocol that another
/// build of this project has, else -1.
pub fn unreachable(protocol: &str, peer: &str) -> Error {
    let text = format!("segment '{peer}' is reached by '{protocol}', which this build lacks");
    let code = if LEFT_OUT.contains(&protocol) { Code::DeviceNotFound } else { Code::InvalidArgument };
    Error::new(code, text).permanent(Class::Unsupported).peer(peer)
}

/// The transport that the settings ask for, and by which variable. The more modest one wins.
pub fn forced(config: &Config) -> Option<(&'static str, &'static str)> {
    if config.force_tcp {
        return Some(("tcp", "MC_FORCE_TCP"));
    }
    config.force_hca.then_some(("rdma", "MC_FORCE_HCA"))
}

/// The transport that is installed at creation, whether or not discovery is asked for.
pub fn installed_at_creation(config: &Config) -> Option<&'static str> {
    config.force_tcp.then_some("tcp")
}

/// The transports that are installed beside the first one, whichever that is.
pub fn installed_beside(config: &Config) -> impl Iterator<Item = &'static str> {
    let wanted = [(config.same_host, "shm"), (config.posix_shm, "posix_shm")];
    let is_alone = config.force_tcp;
    wanted.into_iter().filter(move |(wanted, _)| *wanted && !is_alone).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_one_name_and_members_of_its_own() {
        let mut names: Vec<_> = PROTOCOLS.iter().map(|row| row.name()).collect();
        names.extend(LEFT_OUT.iter().chain(FOREIGN));
        let mut members: Vec<_> = PROTOCOLS.iter().flat_map(|row| row.members()).collect();
        let counts = (names.len(), members.len());
        names.sort_unstable();
        names.dedup();
        members.sort_unstable();
        members.dedup();
        assert_eq!((names.len(), members.len()), counts, "{names:?} {members:?}");
    }

    #[test]
    fn names_are_told_apart() {
        for (name, code) in [
            ("efa", Code::NotImplemented),
            ("nvmeof", Code::NotImplemented),
            ("warp", Code::InvalidArgument),
            ("", Code::InvalidArgument),
        ] {
            let error = not_here(name);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.text().contains("tcp"), "{error}");
        }
        assert!(["rdma", "tcp", "cxl", "shm"].into_iter().all(is_known) && !is_known("warp"));
    }

    #[test]
    fn the_more_modest_setting_wins() {
        let config = |force_tcp, force_hca| Config { force_tcp, force_hca, ..Config::default() };
        assert_eq!(forced(&config(false, false)), None);
        assert_eq!(forced(&config(false, true)), Some(("rdma", "MC_FORCE_HCA")));
        assert_eq!(forced(&config(true, true)), Some(("tcp", "MC_FORCE_TCP")));
        assert_eq!(installed_at_creation(&config(false, true)), None);
        assert_eq!(installed_beside(&config(true, false)).next(), None);
        assert!(installed_beside(&config(false, true)).eq(["posix_shm"]));
        assert_eq!(installed_beside(&Config { posix_shm: false, ..Config::default() }).next(), None);
    }
}
