//! Which GID of a port an engine takes, and why.

use super::seen::{Gid, Nic, Quality};
use crate::config::Config;
use crate::doctor::finding::Finding;

/// The choice that an engine makes before it knows a peer.
pub(super) fn choice(nic: &Nic, config: &Config) -> Finding {
    let check = nic.check("GID");
    let netdev = nic.netdev.as_deref().unwrap_or("its network device");
    if let Some(index) = config.gid_index {
        return match nic.gids.iter().find(|gid| gid.index == index) {
            Some(gid) => judged(check, gid, "MC_GID_INDEX says so", nic, netdev),
            None => Finding::fault(
                check,
                format!("MC_GID_INDEX={index} names an empty entry"),
                match nic.gids.first() {
                    Some(best) => format!("unset MC_GID_INDEX, or set it to {}", best.index),
                    None => format!("give {netdev} an IPv4 address, and unset MC_GID_INDEX"),
                },
            ),
        };
    }
    match nic.gids.first() {
        Some(gid) => judged(check, gid, gid.why, nic, netdev),
        None => Finding::fault(
            check,
            "none",
            if nic.is_ethernet() {
                format!("give {netdev} an IPv4 address: each address becomes a GID")
            } else {
                "have the subnet manager configure the port".into()
            },
        ),
    }
}

fn judged(check: String, gid: &Gid, why: &str, nic: &Nic, netdev: &str) -> Finding {
    let others = match nic.gids.len() {
        0 | 1 => String::new(),
        count => format!(", best of {count}"),
    };
    let of = gid.netdev.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
    let seen = format!("index {}{of}: {}{others}; {why}", gid.index, gid.text);
    match gid.quality {
        Quality::Good => Finding::ok(check, seen),
        Quality::Confined => Finding::warning(
            check,
            seen,
            format!(
                "give {netdev} an IPv4 address: a link-local GID, or one of an overlay, leads to few peers"
            ),
        ),
        Quality::Unroutable => Finding::warning(
            check,
            seen,
            format!("give {netdev} an IPv4 address, and see that the NIC is in RoCE v2 mode"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::nics::tests::nic;

    fn with(qualities: &[Quality]) -> Nic {
        let gid = |(index, quality): (usize, &Quality)| Gid {
            index: index as u8,
            text: "fe:80".into(),
            netdev: None,
            why: "of some rank",
            quality: *quality,
        };
        Nic { gids: qualities.iter().enumerate().map(gid).collect(), ..nic() }
    }

    #[test]
    fn the_best_gid_is_judged() {
        for (qualities, level) in [
            (&[Quality::Good, Quality::Confined][..], Level::Ok),
            (&[Quality::Confined], Level::Warning),
            (&[Quality::Unroutable], Level::Warning),
            (&[], Level::Fault),
        ] {
            let finding = choice(&with(qualities), &Config::default());
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(level == Level::Ok || finding.remedy.contains("eth0 an IPv4 address"), "{finding:?}");
        }
    }

    #[test]
    fn the_setting_decides_and_must_name_an_entry() {
        let config = |index| Config { gid_index: Some(index), ..Config::default() };
        let nic = with(&[Quality::Good, Quality::Confined]);
        assert!(choice(&nic, &config(0)).seen.contains("MC_GID_INDEX says so"));
        assert_eq!(choice(&nic, &config(1)).level, Level::Warning);
        let finding = choice(&nic, &config(7));
        assert!(finding.level == Level::Fault && finding.remedy.contains("set it to 0"), "{finding:?}");
        assert_eq!(choice(&with(&[]), &config(7)).level, Level::Fault);
    }

    #[test]
    fn infiniband_without_a_gid_waits_for_the_subnet_manager() {
        let nic = Nic { link_layer: Some("InfiniBand".into()), ..with(&[]) };
        assert!(choice(&nic, &Config::default()).remedy.contains("subnet manager"));
    }
}
