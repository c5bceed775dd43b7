//! Reads what is to be known of the NICs: sysfs, and on the real machine libibverbs, which opens each device once.

use std::path::PathBuf;
#[cfg(feature = "rdma")]
use std::{sync::mpsc, time::Duration};

use super::files::Files;
#[cfg(feature = "rdma")]
use super::nics::Quality;
use super::nics::{Gid, Nic, Nics, Verbs};
use crate::config::Config;
use crate::topology;

/// How long libibverbs and the drivers may take for all devices. Chosen: opening one takes milliseconds, and one that does not
/// come back is a finding too.
#[cfg(feature = "rdma")]
const DRIVER_LIMIT: Duration = Duration::from_secs(10);

/// The NICs that discovery may use, and the machine around them. `ask_drivers`: libibverbs is asked too.
pub(super) fn read(files: &Files, config: &Config, ask_drivers: bool) -> Nics {
    let filter = config.nic_filters.as_deref().unwrap_or_default();
    let filter = topology::Filter::parse("MC_TE_FILTERS", filter).names;
    let present = files.names("sys/class/infiniband");
    let unknown = filter.iter().filter(|name| !present.contains(name)).cloned().collect();
    let wanted = |name: &&String| filter.is_empty() || filter.contains(name);
    let names: Vec<String> = present.iter().filter(wanted).cloned().collect();
    let nodes = files.names("sys/devices/system/node");
    let is_node = |name: &&String| name.strip_prefix("node").is_some_and(|id| id.parse::<u32>().is_ok());
    let drivers = files.names("etc/libibverbs.d");
    Nics {
        nics: names.iter().map(|name| nic(files, name, config)).collect(),
        left_out: present.len() - names.len(),
        unknown,
        nodes: nodes.iter().filter(is_node).count(),
        provider_files: drivers.iter().filter(|name| name.ends_with(".driver")).count(),
        verbs: verbs(names, config.ib_port, ask_drivers),
    }
}

fn nic(files: &Files, name: &str, config: &Config) -> Nic {
    let folder = PathBuf::from("sys/class/infiniband").join(name);
    let port = folder.join(format!("ports/{}", config.ib_port));
    let line = |file: &str| files.text(port.join(file));
    let link_layer = line("link_layer");
    let is_infiniband = link_layer.as_deref() != Some("Ethernet");
    let gids = gids(files.path(&port), is_infiniband);
    // The network device of the port; of a GID first, because a device may have several ports.
    let netdev = gids.iter().find_map(|gid| gid.netdev.clone());
    let netdev = netdev.or_else(|| files.names(folder.join("device/net")).into_iter().next());
    Nic {
        name: name.to_string(),
        port: config.ib_port,
        has_port: files.exists(&port),
        state: line("state"),
        physical: line("phys_state"),
        link_layer,
        rate: line("rate"),
        netdev_mtu: netdev.as_ref().and_then(|netdev| files.number(format!("sys/class/net/{netdev}/mtu"))),
        netdev,
        gids,
        numa: topology::Nic::read(&files.devices(), name).numa,
    }
}

#[cfg(feature = "rdma")]
fn gids(port: PathBuf, is_infiniband: bool) -> Vec<Gid> {
    let entries = crate::transport::rdma::gid_table::read(&port, is_infiniband);
    let gid = |entry: crate::transport::rdma::gid_table::Entry| Gid {
        why: entry.why(),
        quality: match (entry.is_unroutable(), entry.is_confined()) {
            (true, _) => Quality::Unroutable,
            (_, true) => Quality::Confined,
            _ => Quality::Good,
        },
        index: entry.index,
        text: entry.gid,
        netdev: entry.netdev,
    };
    entries.into_iter().map(gid).collect()
}

#[cfg(not(feature = "rdma"))]
fn gids(_: PathBuf, _: bool) -> Vec<Gid> {
    Vec::new()
}

/// Asks the library and the drivers on a thread of its own: one that hangs there hangs alone, and ends with the process.
#[cfg(feature = "rdma")]
fn verbs(names: Vec<String>, port: u8, ask: bool) -> Verbs {
    if !ask || names.is_empty() {
        return Verbs::NotAsked;
    }
    use crate::transport::rdma::verbs::{device_names, Context};
    let (done, result) = mpsc::channel();
    let look_at_all = move || {
        let listed = match device_names() {
            Ok(listed) => listed,
            Err(error) => return drop(done.send(Verbs::Missing(error.to_string()))),
        };
        let look = |name: &String| {
            let mtu = Context::open(name).and_then(|context| context.port(port)).map(|port| port.active_mtu);
            (name.clone(), mtu.map_err(|error| error.to_string()))
        };
        let opened = listed.iter().filter(|name| names.contains(name)).map(look).collect();
        drop(done.send(Verbs::Loaded(opened)));
    };
    match crate::runtime::thread::spawn("mte-doctor", look_at_all, || ()) {
        Ok(_) => result.recv_timeout(DRIVER_LIMIT).unwrap_or(Verbs::Hangs(DRIVER_LIMIT.as_secs())),
        Err(error) => Verbs::Missing(error.to_string()),
    }
}

#[cfg(not(feature = "rdma"))]
fn verbs(_: Vec<String>, _: u8, _: bool) -> Verbs {
    Verbs::NotInThisBuild
}
