//! A port's link, its rate and its MTU.

use super::seen::{Nic, Verbs};
use crate::config::Config;
use crate::doctor::finding::Finding;

/// What a packet of RoCE v2 has beside its payload at the most: GRH 40, UDP 8, BTH 12, XRC 4, atomic 28, ICRC 4 (InfiniBand
/// Architecture Specification 1.4, chapters 5 and 9, and annex A17). The kernel subtracts as much.
const ROCE_HEADERS: u64 = 96;

/// The link. A port that is down is a fault only where no other one works: hosts have ports that nobody uses.
pub(super) fn state(nic: &Nic, some_active: bool) -> Finding {
    let check = nic.check(&format!("port {}", nic.port));
    if !nic.has_port {
        return Finding::fault(check, "there is no such port", "set MC_IB_PORT to a port that the NIC has");
    }
    let word = |text: &Option<String>| match text {
        // The kernel writes number and name.
        Some(text) => text.rsplit(": ").next().unwrap_or_default().to_string(),
        None => "unknown".into(),
    };
    let (state, physical, layer) = (word(&nic.state), word(&nic.physical), word(&nic.link_layer));
    let rate = nic.rate.clone().unwrap_or_else(|| "unknown rate".into());
    let seen = format!("{state}, {physical}, {layer}, {rate}");
    let remedy =
        match (state.as_str(), physical.as_str()) {
            ("ACTIVE", _) => return Finding::ok(check, seen),
            ("INIT" | "ARMED", _) if !nic.is_ethernet() => {
                "start the subnet manager (opensm, or the switch's), which has not configured the port"
                    .to_string()
            }
            (_, "Disabled") => match &nic.netdev {
                Some(netdev) => format!("switch the port on: ip link set {netdev} up"),
                None => "switch the port on: ip link set up for Ethernet, ibportstate enable for InfiniBand"
                    .into(),
            },
            _ => "check cable, transceiver and switch port, and whether the network device is up (ip link)"
                .into(),
        };
    if some_active {
        let remedy = format!("{remedy}, or leave the NIC out with MC_TE_FILTERS");
        return Finding::warning(check, seen, remedy);
    }
    Finding::fault(check, seen, remedy)
}

/// The active MTU: what the driver says, else what fits into the network device's.
pub(super) fn active_mtu(nic: &Nic, verbs: &Verbs) -> Option<u64> {
    let told = match verbs {
        Verbs::Loaded(devices) => devices.iter().find_map(|(name, mtu)| match mtu {
            Ok(mtu) if *name == nic.name && *mtu != 0 => Some(u64::from(*mtu)),
            _ => None,
        }),
        _ => None,
    };
    told.or_else(|| nic.netdev_mtu.filter(|_| nic.is_ethernet()).map(fitting))
}

/// The largest MTU of RDMA whose packets fit into those of a network device.
fn fitting(netdev_mtu: u64) -> u64 {
    [4096, 2048, 1024, 512].into_iter().find(|mtu| mtu + ROCE_HEADERS <= netdev_mtu).unwrap_or(256)
}

/// Whether the MTU is the one that is wanted.
pub(super) fn mtu(nic: &Nic, active: Option<u64>, config: &Config) -> Finding {
    let check = nic.check("MTU");
    let wanted = u64::from(config.mtu);
    let netdev = match (&nic.netdev, nic.netdev_mtu) {
        (Some(name), Some(mtu)) => format!(", {mtu} of {name}"),
        _ => String::new(),
    };
    let Some(active) = active else {
        return Finding::ok(check, format!("not told{netdev}"));
    };
    let seen = format!("{active} active, {wanted} wanted (MC_MTU){netdev}");
    if active >= wanted {
        return Finding::ok(check, seen);
    }
    let remedy = match &nic.netdev {
        Some(netdev) if nic.is_ethernet() => format!(
            "raise the MTU to {} at least, here (ip link set {netdev} mtu 9000) and at switches and peers",
            wanted + ROCE_HEADERS
        ),
        _ => "raise the MTU of the partition at the subnet manager".into(),
    };
    Finding::warning(check, seen, remedy)
}

/// A port that is slower than the others, which all carry the same share of small transfers.
pub(super) fn rates(nics: &[Nic]) -> Option<Finding> {
    let giga = |nic: &Nic| nic.rate.as_ref()?.split_whitespace().next()?.parse::<f64>().ok();
    let active: Vec<(&Nic, f64)> =
        nics.iter().filter(|nic| nic.is_active()).filter_map(|nic| Some((nic, giga(nic)?))).collect();
    let most = active.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let slow: Vec<String> = active
        .iter()
        .filter(|(_, rate)| *rate < most)
        .map(|(nic, rate)| format!("{} has {rate} Gb/s", nic.name))
        .collect();
    (!slow.is_empty()).then(|| {
        Finding::warning(
            "nic rates",
            format!("{}, the fastest {most} Gb/s", slow.join(", ")),
            "check cable, switch port and PCIe slot of the slower ones, or leave them out with MC_TE_FILTERS",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::nics::tests::nic;

    #[test]
    fn a_port_without_a_link_is_a_fault_unless_another_one_works() {
        let of = |state: &str, physical: &str, layer: &str| Nic {
            state: Some(state.into()),
            physical: Some(physical.into()),
            link_layer: Some(layer.into()),
            ..nic()
        };
        for (nic, some_active, level, remedy) in [
            (nic(), true, Level::Ok, ""),
            (of("1: DOWN", "3: Disabled", "Ethernet"), false, Level::Fault, "ip link set eth0 up"),
            (of("1: DOWN", "2: Polling", "InfiniBand"), false, Level::Fault, "cable"),
            (of("2: INIT", "5: LinkUp", "InfiniBand"), false, Level::Fault, "subnet manager"),
            (of("1: DOWN", "2: Polling", "Ethernet"), true, Level::Warning, "MC_TE_FILTERS"),
            (Nic { has_port: false, ..nic() }, true, Level::Fault, "MC_IB_PORT"),
            (Nic { state: None, ..nic() }, false, Level::Fault, "cable"),
        ] {
            let finding = state(&nic, some_active);
            assert!(finding.level == level && finding.remedy.contains(remedy), "{finding:?}");
        }
    }

    #[test]
    fn an_mtu_below_the_wanted_one_is_a_warning() {
        let config = Config::default();
        let small = Nic { netdev_mtu: Some(1500), ..nic() };
        let finding = mtu(&small, active_mtu(&small, &Verbs::NotAsked), &config);
        assert!(finding.level == Level::Warning && finding.remedy.contains("4192"), "{finding:?}");
        assert!(finding.seen.contains("1024 active"), "{finding:?}");
        let small = Config { mtu: 1024, ..Config::default() };
        assert_eq!(mtu(&nic(), Some(1024), &small).level, Level::Ok);
        assert_eq!(mtu(&nic(), None, &config).level, Level::Ok);
        let told = Verbs::Loaded(vec![("mlx5_0".into(), Ok(2048))]);
        assert_eq!(active_mtu(&nic(), &told), Some(2048));
    }

    #[test]
    fn the_mtu_that_fits_is_what_headers_leave() {
        for (netdev, expected) in [(9000, 4096), (4192, 4096), (4191, 2048), (1500, 1024), (576, 256)] {
            assert_eq!(fitting(netdev), expected);
        }
    }

    #[test]
    fn a_port_slower_than_the_others_is_named() {
        let slow = Nic { name: "mlx5_1".into(), rate: Some("100 Gb/sec (4X EDR)".into()), ..nic() };
        assert!(rates(&[nic(), slow.clone()]).is_some_and(|finding| finding.seen.contains("mlx5_1 has 100")));
        assert_eq!(rates(&[nic(), Nic { state: Some("1: DOWN".into()), ..slow }]), None);
        assert_eq!(rates(&[]), None);
    }
}
