//! The matrix of this machine: which NICs work, and which of them are near which processors and GPUs.

use std::path::Path;

use super::devices::Gpu;
pub use super::devices::{Nic, Root};
use super::matrix::{Matrix, Row};
use super::pages;
use crate::error::{Code, Error, Result};

/// What discovery found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// One row per NUMA node and GPU.
    pub matrix: Matrix,
    /// The NICs in it, by name; the tests look at them.
    #[cfg_attr(not(feature = "internals"), allow(dead_code))]
    pub nics: Vec<Nic>,
    /// NICs that were left out and why, and what else a user may wonder about: a sentence each, for the log.
    pub notes: Vec<String>,
}

/// The only NICs that are wanted; all, if it names none.
#[derive(Clone, Debug)]
pub struct Filter {
    /// What it comes from, for messages.
    pub origin: &'static str,
    /// Names of NICs.
    pub names: Vec<String>,
}

impl Filter {
    /// Reads a list of names of NICs, separated by commas.
    pub fn parse(origin: &'static str, text: &str) -> Self {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from);
        Filter { origin, names: names.collect() }
    }

    fn admits(&self, name: &String) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }
}

/// Looks for NICs: those that every one of `filters` admits, whose device file can be used, and that `usable`
/// accepts. `usable` says whether some port is active and has a GID; it is asked last, because it opens the device.
///
/// Blocks on sysfs and on `usable`. No NIC is not an error: the rows are empty then. `ERR_NUMA` if sysfs has no NUMA
/// nodes and the kernel refuses `get_mempolicy`; `Matrix::single` still serves then.
pub fn survey(root: &Root, usable: &dyn Fn(&str) -> bool, filters: &[Filter]) -> Result<Survey> {
    let nodes: Vec<u32> = root.numa_nodes().into_iter().collect();
    if nodes.is_empty() {
        require_numa(root)?;
    }
    let mut notes = Vec::new();
    let nics = working_nics(root, usable, filters, &mut notes);
    let mut rows = cpu_rows(&nodes, &nics, &mut notes);
    rows.extend(root.gpus().iter().map(|gpu| gpu_row(gpu, &nics)));
    Ok(Survey { matrix: Matrix::from_rows(rows), nics, notes })
}

fn require_numa(root: &Root) -> Result<()> {
    pages::policy().map_err(|e| {
        let what = format!(
            "find NUMA nodes: {} has no node<N> folder, and get_mempolicy is refused; mount sysfs or allow the \
             system call, or name the NICs yourself (MC_CUSTOM_TOPO_JSON, args[0] of installTransport)",
            root.numa_folder().display()
        );
        Error::io(Code::Numa, what, &e)
    })
}

fn working_nics(
    root: &Root,
    usable: &dyn Fn(&str) -> bool,
    filters: &[Filter],
    notes: &mut Vec<String>,
) -> Vec<Nic> {
    let files = root.device_files();
    let mut nics = root.nics();
    for Filter { origin, names } in filters {
        for name in names.iter().filter(|name| nics.iter().all(|nic| nic.name != **name)) {
            notes.push(format!("{origin} names {name}, which is not an RDMA device of this system"));
        }
    }
    let obstacle = |name: &String| {
        if let Some(filter) = filters.iter().find(|filter| !filter.admits(name)) {
            return Some(format!("{} does not name it", filter.origin));
        }
        let Some(file) = files.get(name) else {
            return Some("it has no uverbs device; is the module ib_uverbs loaded?".to_string());
        };
        if let Err(e) = (root.check_device)(file) {
            return Some(format!("{} cannot be used: {e}; is it passed to this container?", file.display()));
        }
        (!usable(name)).then(|| "none of its ports is active with a GID".to_string())
    };
    nics.retain(|nic| match obstacle(&nic.name) {
        Some(why) => {
            notes.push(format!("RDMA device {} is left out: {why}", nic.name));
            false
        }
        None => true,
    });
    nics
}

/// A NIC is preferred by its own node and available to the others. Where nothing is known of any NIC and there is
/// only one node, they must all belong to it.
fn cpu_rows(nodes: &[u32], nics: &[Nic], notes: &mut Vec<String>) -> Vec<Row> {
    if nodes.is_empty() {
        notes.push("sysfs shows no NUMA nodes: every NIC is taken to be near every processor (cpu:0)".into());
        return Matrix::single(&names(nics.iter())).rows().to_vec();
    }
    let one_place = nodes.len() == 1 && nics.iter().all(|nic| nic.numa.is_none());
    for nic in nics.iter().filter(|nic| nic.numa.is_none() && !one_place) {
        notes.push(format!("NUMA node of RDMA device {} is unknown: no processor prefers it", nic.name));
    }
    let row = |node: &u32| split(format!("cpu:{node}"), nics, |nic| one_place || nic.numa == Some(*node));
    nodes.iter().map(row).collect()
}

/// Preferred are the nearest on the bus, among those of the GPU's node, or among all if that node has none or is
/// unknown.
fn gpu_row(gpu: &Gpu, nics: &[Nic]) -> Row {
    let same_node = |nic: &Nic| gpu.numa.is_some() && nic.numa == gpu.numa;
    let any_node = !nics.iter().any(same_node);
    let candidate = |nic: &Nic| any_node || same_node(nic);
    let nearest = nics.iter().filter(|nic| candidate(nic)).map(|nic| distance(gpu, nic)).min();
    split(gpu.location.clone(), nics, |nic| candidate(nic) && Some(distance(gpu, nic)) == nearest)
}

/// Bridges between two devices: slashes in both paths behind the characters that they share. Devices in software are
/// farther than any other.
fn distance(gpu: &Gpu, nic: &Nic) -> usize {
    if nic.pci.is_empty() {
        return usize::MAX;
    }
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let (gpu, nic) = (bytes(&gpu.pci_path), bytes(&nic.pci_path));
    let shared = gpu.iter().zip(&nic).take_while(|(a, b)| a == b).count();
    gpu.iter().skip(shared).chain(nic.iter().skip(shared)).filter(|byte| **byte == b'/').count()
}

fn split(location: String, nics: &[Nic], is_preferred: impl Fn(&Nic) -> bool) -> Row {
    let (preferred, available): (Vec<_>, Vec<_>) = nics.iter().partition(|nic| is_preferred(nic));
    Row { location, preferred: names(preferred.into_iter()), available: names(available.into_iter()) }
}

fn names<'a>(nics: impl Iterator<Item = &'a Nic>) -> Vec<String> {
    nics.map(|nic| nic.name.clone()).collect()
}
