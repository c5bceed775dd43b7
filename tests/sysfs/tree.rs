//! Builds a sysfs and a `/dev` from one of the texts in this folder, in a folder that goes with the value.
//!
//! `path = text` is a file, `path -> target` a symbolic link, `path/` a folder; all below the last `[folder]`. As in
//! the kernel, a folder with a `class` file is a PCI device with a link in `bus/pci/devices`, and the folders in
//! `infiniband` and `infiniband_verbs` have links in the folders of their class. Device files contain the access that
//! the process has.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use transfer_engine::topology::Root;

pub struct Tree(PathBuf);

impl Tree {
    pub fn build(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sysfs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tree = Tree(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::create_dir(&tree.0).unwrap();
        let mut folder = PathBuf::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(path) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                folder = path.into();
            } else if let Some((path, content)) = line.split_once(" = ") {
                tree.add(&folder.join(path), |path| fs::write(path, format!("{content}\n")));
            } else if let Some((path, target)) = line.split_once(" -> ") {
                tree.add(&folder.join(path), |path| symlink(target, path));
            } else {
                assert!(line.ends_with('/'), "not understood: {line}");
                tree.add(&folder.join(line), |path| fs::create_dir_all(path));
            }
        }
        tree
    }

    /// The tree as a place to look for devices.
    pub fn root(&self) -> Root {
        Root { sysfs: self.0.join("sys"), dev: self.0.join("dev"), check_device }
    }

    /// Adds the entry `path`, and the links to the devices on its way.
    fn add(&self, path: &Path, create: impl Fn(&Path) -> io::Result<()>) {
        fs::create_dir_all(self.0.join(path).parent().unwrap()).unwrap();
        create(&self.0.join(path)).unwrap();
        if !path.starts_with("sys/devices") {
            return;
        }
        if path.ends_with("class") {
            self.link("sys/bus/pci/devices", path.parent().unwrap());
        }
        for device in path.ancestors() {
            let class = device.parent().and_then(Path::file_name).unwrap_or_default();
            if class == "infiniband" || class == "infiniband_verbs" {
                self.link(&format!("sys/class/{}", class.to_str().unwrap()), device);
            }
        }
    }

    fn link(&self, folder: &str, device: &Path) {
        let link = self.0.join(folder).join(device.file_name().unwrap());
        if link.symlink_metadata().is_err() {
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            // Relative as in sysfs: one step up for each folder of the link's place.
            let up = "../".repeat(Path::new(folder).components().count());
            symlink(Path::new(&up).join(device), link).unwrap();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check_device(path: &Path) -> io::Result<()> {
    match fs::read_to_string(path)?.trim() {
        "rw" => Ok(()),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}
