//! The settings by which a NIC of ours is paired with certain NICs of a peer, instead of by position.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::topology::select::{parse_peer_affinity, RowId, Selector};

/// The rules. At most one of the two is in force: the settings see to that.
#[derive(Clone, Debug, Default)]
pub(super) struct Affinity {
    same_name: bool,
    /// Local NIC to peer NICs, by name.
    peers: BTreeMap<String, Vec<String>>,
}

impl Affinity {
    /// The rules of the settings, and a warning for each that is not one.
    pub(super) fn new(config: &Config) -> (Self, Vec<String>) {
        let text = config.nic_peer_affinity.as_deref().filter(|_| config.hca_peer_affinity).unwrap_or("");
        let (peers, warnings) = parse_peer_affinity(text);
        (Affinity { same_name: config.dest_device_affinity, peers }, warnings)
    }

    /// The peer's NICs that the rules want for `local`, in order, as indexes of `peer`'s devices; none if the rules do
    /// not say. With `MC_ENABLE_DEST_DEVICE_AFFINITY` it is the NIC of the same name, in either list of the row. With
    /// `MC_ENABLE_HCA_PEER_AFFINITY` it is the listed NICs, but only in the row of a GPU, and only those that the row
    /// prefers. Both rules are upstream's.
    pub(super) fn liked(&self, local: &str, peer: &Selector, row: RowId) -> Vec<usize> {
        if self.same_name {
            return peer.named(row, local).into_iter().collect();
        }
        self.peers.get(local).map_or_else(Vec::new, |names| peer.near_gpu(row, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Matrix;

    const MATRIX: &str = r#"{"cpu:0": [["a"], ["b", "c"]], "cuda:0": [["b", "c"], ["a"]]}"#;

    fn peer() -> Selector {
        let names = ["a", "b", "c"].map(String::from);
        Selector::new(&Matrix::parse(MATRIX).unwrap(), &names)
    }

    fn rules(same_name: bool, list: &str) -> Affinity {
        let config = Config {
            dest_device_affinity: same_name,
            hca_peer_affinity: !same_name,
            nic_peer_affinity: Some(list.into()),
            ..Config::default()
        };
        let (affinity, warnings) = Affinity::new(&config);
        assert_eq!(warnings, [""; 0]);
        affinity
    }

    #[test]
    fn the_nic_of_the_same_name_is_wanted_in_either_list_of_any_row() {
        let (affinity, peer) = (rules(true, ""), peer());
        for (local, location, liked) in [
            ("a", "cpu:0", vec![0]),
            ("b", "cpu:0", vec![1]),
            ("a", "cuda:0", vec![0]),
            ("c", "*", vec![2]),
            ("x", "cpu:0", vec![]),
        ] {
            assert_eq!(affinity.liked(local, &peer, peer.row(location)), liked, "{local} {location}");
        }
    }

    #[test]
    fn listed_nics_are_wanted_in_the_row_of_a_gpu_that_prefers_them() {
        let (affinity, peer) = (rules(false, "n=c,a,b;m=a"), peer());
        for (local, location, liked) in [
            ("n", "cuda:0", vec![2, 1]),
            ("m", "cuda:0", vec![]),
            ("other", "cuda:0", vec![]),
            ("n", "cpu:0", vec![]),
            ("n", "*", vec![]),
        ] {
            assert_eq!(affinity.liked(local, &peer, peer.row(location)), liked, "{local} {location}");
        }
    }

    #[test]
    fn without_settings_nothing_is_wanted() {
        let (affinity, warnings) = Affinity::new(&Config::default());
        let peer = peer();
        assert_eq!((affinity.liked("a", &peer, peer.row("cuda:0")), warnings), (vec![], vec![]));
    }
}
