//! RDMA devices: can they be used, and what would an engine make of them.

mod address;
mod library;
mod port;
mod seen;

use super::finding::Finding;
use crate::config::Config;

#[cfg(feature = "rdma")]
pub(super) use seen::Quality;
pub(super) use seen::{Gid, Nic, Nics, Verbs};

/// Every check of the NICs.
pub(super) fn findings(all: &Nics, config: &Config) -> Vec<Finding> {
    let mut findings = vec![list(all)];
    if all.nics.is_empty() {
        return findings;
    }
    findings.extend(library::library(&all.verbs));
    if matches!(all.verbs, Verbs::NotInThisBuild) {
        return findings;
    }
    findings.push(library::providers(all.provider_files));
    let some_active = all.nics.iter().any(Nic::is_active);
    for nic in &all.nics {
        findings.extend(library::device(nic, &all.verbs));
        findings.push(port::state(nic, some_active));
        // What a port without a link says of the rest is of no use.
        if nic.is_active() {
            findings.push(port::mtu(nic, port::active_mtu(nic, &all.verbs), config));
            findings.push(address::choice(nic, config));
        }
        findings.push(numa(nic, all.nodes));
    }
    findings.extend(port::rates(&all.nics));
    findings
}

fn list(all: &Nics) -> Finding {
    if !all.unknown.is_empty() {
        let seen =
            format!("MC_TE_FILTERS names {}, which this machine does not have", all.unknown.join(", "));
        return Finding::fault("nics", seen, "correct MC_TE_FILTERS, or unset it to use every NIC");
    }
    if all.nics.is_empty() {
        return Finding::ok("nics", "no RDMA device; TCP and shared memory are used");
    }
    let names: Vec<&str> = all.nics.iter().map(|nic| nic.name.as_str()).collect();
    let left_out = match all.left_out {
        0 => String::new(),
        count => format!("; {count} left out by MC_TE_FILTERS"),
    };
    Finding::ok("nics", format!("{}{left_out}", names.join(", ")))
}

/// Devices in software have no node, and where there is one node it is that.
fn numa(nic: &Nic, nodes: usize) -> Finding {
    let check = nic.check("NUMA node");
    match (nic.numa, nodes) {
        (Some(node), _) => Finding::ok(check, node.to_string()),
        (None, 0 | 1) => Finding::ok(check, "not told, and there is only one"),
        (None, _) => Finding::warning(
            check,
            format!("not told, and the machine has {nodes}: no processor prefers this NIC"),
            "name the NIC for each node in the file of MC_CUSTOM_TOPO_JSON, or have firmware or hypervisor tell the node",
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::Level;
    use super::seen::Quality;
    use super::*;

    pub(in super::super) fn nic() -> Nic {
        Nic {
            name: "mlx5_0".into(),
            port: 1,
            has_port: true,
            state: Some("4: ACTIVE".into()),
            physical: Some("5: LinkUp".into()),
            link_layer: Some("Ethernet".into()),
            rate: Some("400 Gb/sec (4X NDR)".into()),
            netdev: Some("eth0".into()),
            netdev_mtu: Some(9000),
            gids: vec![Gid {
                index: 3,
                text: "00:ff".into(),
                netdev: Some("eth0".into()),
                why: "routable, with a network device",
                quality: Quality::Good,
            }],
            numa: Some(0),
        }
    }

    pub(in super::super) fn nics(nics: Vec<Nic>) -> Nics {
        let opened = nics.iter().map(|nic| (nic.name.clone(), Ok(4096))).collect();
        let verbs = Verbs::Loaded(opened);
        Nics { nics, left_out: 0, unknown: Vec::new(), nodes: 2, provider_files: 3, verbs }
    }

    #[test]
    fn a_machine_as_it_should_be_has_no_finding() {
        let found = findings(&nics(vec![nic()]), &Config::default());
        assert!(found.iter().all(|finding| finding.level == Level::Ok), "{found:?}");
        assert!(found.len() >= 7, "{found:?}");
    }

    #[test]
    fn a_build_without_rdma_looks_at_no_port() {
        let down = Nic { state: None, ..nic() };
        let found = findings(&Nics { verbs: Verbs::NotInThisBuild, ..nics(vec![down]) }, &Config::default());
        assert_eq!(found.iter().map(|it| it.level).collect::<Vec<_>>(), [Level::Ok, Level::Warning]);
    }

    #[test]
    fn no_nic_is_said_and_no_fault() {
        let found = findings(&nics(Vec::new()), &Config::default());
        assert_eq!(found.len(), 1);
        assert!(found[0].level == Level::Ok && found[0].seen.contains("no RDMA device"));
    }

    #[test]
    fn a_filter_that_names_no_nic_is_a_fault() {
        let all = Nics { unknown: vec!["mlx5_9".into()], ..nics(vec![nic()]) };
        assert_eq!(list(&all).level, Level::Fault);
        assert!(list(&Nics { left_out: 2, ..nics(vec![nic()]) }).seen.contains("2 left out"));
    }

    #[test]
    fn an_unknown_node_matters_where_there_are_several() {
        let stray = Nic { numa: None, ..nic() };
        assert_eq!(numa(&stray, 2).level, Level::Warning);
        assert_eq!(numa(&stray, 1).level, Level::Ok);
        assert_eq!(numa(&nic(), 2).level, Level::Ok);
    }
}
