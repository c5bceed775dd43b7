//! NICs, GPUs and NUMA nodes as sysfs shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where the system is read. A recorded tree stands in for it in tests.
#[derive(Clone, Debug)]
pub struct Root {
    /// Usually `/sys`.
    pub sysfs: PathBuf,
    /// Usually `/dev`.
    pub dev: PathBuf,
    /// Whether the device file at a path can be used; a recorded tree cannot have device files.
    pub check_device: fn(&Path) -> io::Result<()>,
}

impl Default for Root {
    fn default() -> Self {
        Root { sysfs: "/sys".into(), dev: "/dev".into(), check_device: check_character_device }
    }
}

/// An RDMA device.
///
/// Virtual functions are devices like any other: a container or guest may have nothing else, and on a host that does
/// not use them their ports are down. A bond of two ports is one device (`mlx5_bond_0`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Device name, for example `mlx5_0`.
    pub name: String,
    /// PCI address, for example `0000:17:00.0`; "" for a device in software.
    pub pci: String,
    /// Canonical sysfs folder of the PCI device; empty for a device in software.
    pub pci_path: PathBuf,
    /// NUMA node; unknown for devices in software, and in guests that are not told.
    pub numa: Option<u32>,
}

/// A GPU, under the name that callers give to its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpu {
    pub location: String,
    pub pci_path: PathBuf,
    pub numa: Option<u32>,
}

impl Nic {
    /// What sysfs tells of the device called `name`; nothing but the name if there is none.
    pub fn read(root: &Root, name: &str) -> Self {
        let mut nic = Nic { name: name.to_string(), ..Nic::default() };
        // The PCI device is two levels above, or more for a sub-function, which is a child of its own.
        let folder = root.sysfs.join("class/infiniband").join(name);
        let Ok(folder) = fs::canonicalize(folder) else { return nic };
        if let Some(pci) = folder.ancestors().skip(1).find(|folder| is_pci_address(&base_name(folder))) {
            nic.pci = base_name(pci);
            nic.pci_path = pci.to_path_buf();
            nic.numa = numa_node(pci);
        }
        nic
    }
}

impl Root {
    /// Every RDMA device, by name.
    pub(super) fn nics(&self) -> Vec<Nic> {
        entries(&self.sysfs.join("class/infiniband")).iter().map(|name| Nic::read(self, name)).collect()
    }

    /// The device file of each RDMA device that has one, by the device's name.
    pub(super) fn device_files(&self) -> BTreeMap<String, PathBuf> {
        let class = self.sysfs.join("class/infiniband_verbs");
        let files = entries(&class).into_iter().filter_map(|file| {
            let nic = text(&class.join(&file).join("ibdev"))?;
            Some((nic, self.dev.join("infiniband").join(file)))
        });
        files.collect()
    }

    /// Numbers of the NUMA nodes that have a folder.
    pub(super) fn numa_nodes(&self) -> BTreeSet<u32> {
        let folder = self.numa_folder();
        let number = |name: &String| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            folder.join(name).is_dir().then_some(number)
        };
        entries(&folder).iter().filter_map(number).collect()
    }

    /// Where the folders of NUMA nodes are.
    pub(super) fn numa_folder(&self) -> PathBuf {
        self.sysfs.join("devices/system/node")
    }

    /// GPUs in PCI order, numbered per vendor.
    ///
    /// A GPU runtime may number them differently: `CUDA_VISIBLE_DEVICES` and its like, a container that is given only
    /// some of them, and boards of unequal speed without `CUDA_DEVICE_ORDER=PCI_BUS_ID` are not visible here.
    pub(super) fn gpus(&self) -> Vec<Gpu> {
        let folder = self.sysfs.join("bus/pci/devices");
        let mut addresses = entries(&folder);
        // Domains may have more than four digits.
        addresses.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        let mut counts = BTreeMap::<&str, usize>::new();
        let gpus = addresses.iter().filter_map(|address| {
            let path = fs::canonicalize(folder.join(address)).ok()?;
            let vendor = gpu_vendor(&text(&path.join("vendor"))?, &text(&path.join("class"))?)?;
            // Handed to a guest, hence not visible to a GPU runtime here.
            if fs::read_link(path.join("driver")).is_ok_and(|driver| base_name(&driver) == "vfio-pci") {
                return None;
            }
            let count = counts.entry(vendor).or_default();
            let location = format!("{vendor}:{count}");
            *count += 1;
            Some(Gpu { location, numa: numa_node(&path), pci_path: path })
        });
        gpus.collect()
    }
}

/// The location prefix of a display controller or accelerator by PCI vendor and class.
fn gpu_vendor(vendor: &str, class: &str) -> Option<&'static str> {
    match (vendor, class.get(..6)?) {
        ("0x10de", "0x0300" | "0x0302") => Some("cuda"),
        // Instinct boards call themselves other display controllers or processing accelerators.
        ("0x1002", "0x0300" | "0x0302" | "0x0380" | "0x1200") => Some("hip"),
        _ => None,
    }
}

/// Opened, because permission bits do not tell of a container's device rules.
fn check_character_device(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.file_type().is_char_device() {
        return Err(io::Error::other("not a character device"));
    }
    OpenOptions::new().read(true).write(true).open(path).map(|_| ())
}

/// Sorted names in a folder; none if it cannot be read.
fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// The kernel writes -1 for a device that belongs to no known node.
fn numa_node(pci: &Path) -> Option<u32> {
    text(&pci.join("numa_node"))?.parse().ok()
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `<domain>:<bus>:<device>.<function>`, all in hexadecimal digits.
fn is_pci_address(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 4 && parts.iter().all(digits) && name.matches(':').count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_readable_and_writable_character_device_passes() {
        check_character_device(Path::new("/dev/null")).unwrap();
        for (path, why) in
            [("/dev/no-such-device", "No such"), ("/etc/passwd", "not a char"), ("/", "not a char")]
        {
            let error = check_character_device(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn pci_addresses_are_told_from_other_folders() {
        for name in ["0000:17:00.0", "10000:e1:00.7"] {
            assert!(is_pci_address(name), "{name}");
        }
        for name in
            ["", "virtual", "pci0000:17", "0000:17:00", "virtio0", "mlx5_core.sf.4", "a.b.c.d", "0:0::.0"]
        {
            assert!(!is_pci_address(name), "{name}");
        }
    }
}
