//! Files of the machine, below `/` or below a folder that stands for it. Whatever cannot be read is unknown.

use std::fs;
use std::path::{Path, PathBuf};

use crate::topology::Root;

/// The machine's files. Paths are given without the first `/`.
pub(super) struct Files {
    top: PathBuf,
}

impl Files {
    pub(super) fn below(root: Option<PathBuf>) -> Self {
        Files { top: root.unwrap_or_else(|| "/".into()) }
    }

    /// They are this machine's own, not recorded ones.
    pub(super) fn is_machine(&self) -> bool {
        self.top == Path::new("/")
    }

    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.top.join(path)
    }

    /// The text of a file, without the blanks around it.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_string())
    }

    /// The number that a file consists of, or begins with.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.split_whitespace().next()?.parse().ok()
    }

    /// The number in a line `name: 12 kB` of a file, in its own unit.
    pub(super) fn member(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.text(path)?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse().ok()
    }

    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// Sorted names in a folder; none if it cannot be read.
    pub(super) fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Whether this process has a capability (its number in capabilities(7)).
    pub(super) fn has_capability(&self, number: u32) -> bool {
        let status = self.text("proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> number & 1 == 1)
    }

    /// The machine for what reads its devices.
    pub(super) fn devices(&self) -> Root {
        Root { sysfs: self.path("sys"), dev: self.path("dev"), ..Root::default() }
    }
}

/// Bytes, in the largest unit that leaves a whole number, or nearly so.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit =
        units.iter().find(|(unit, _)| count >= unit * 10 || count >= *unit && count.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{count} bytes"), |(unit, name)| format!("{} {name}", count / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit_that_fits() {
        for (count, text) in [
            (0, "0 bytes"),
            (4096, "4 KiB"),
            (8 << 20, "8 MiB"),
            ((20 << 30) + 5, "20 GiB"),
            (1500, "1500 bytes"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
