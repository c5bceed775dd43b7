//! Whether NICs can reach memory of GPUs: the modules that let them register it by its address.

use super::files::Files;
use super::finding::Finding;
use super::nics::Nics;

/// Any of them will do: NVIDIA's, its predecessor, and the one of older kernels.
const PEER_MODULES: [&str; 3] = ["nvidia_peermem", "nv_peer_mem", "ib_peer_mem"];

/// What the kernel has of GPUs.
#[derive(Clone, Debug, Default)]
pub(super) struct Modules {
    /// NVIDIA's driver runs.
    pub has_driver: bool,
    /// Names of the kernel's modules; `None`: not told.
    pub loaded: Option<Vec<String>>,
    /// The driver is the one with open sources, which can export dma-bufs.
    pub is_open: bool,
}

impl Modules {
    pub(super) fn read(files: &Files) -> Self {
        let first_word = |line: &str| line.split_whitespace().next().map(String::from);
        let version = files.text("proc/driver/nvidia/version").unwrap_or_default();
        Modules {
            has_driver: files.exists("proc/driver/nvidia"),
            loaded: files.text("proc/modules").map(|text| text.lines().filter_map(first_word).collect()),
            is_open: version.contains("Open Kernel Module"),
        }
    }
}

/// Nothing where there is no GPU, or no NIC that could want its memory.
pub(super) fn findings(modules: &Modules, nics: &Nics) -> Vec<Finding> {
    let check = "GPU peer memory";
    if !modules.has_driver || nics.nics.is_empty() {
        return Vec::new();
    }
    let Some(loaded) = &modules.loaded else {
        return vec![Finding::ok(check, "the list of modules cannot be read here")];
    };
    if let Some(found) = PEER_MODULES.iter().find(|name| loaded.iter().any(|module| module == *name)) {
        return vec![Finding::ok(check, format!("{found} is loaded"))];
    }
    let dma_buf = match modules.is_open {
        true => "; the driver exports dma-bufs, but memory is registered by its address here",
        false => "",
    };
    vec![Finding::warning(
        check,
        format!("the GPU driver runs without {}{dma_buf}", PEER_MODULES[0]),
        "load it (modprobe nvidia-peermem) on the host if GPU memory is to be registered",
    )]
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::nics::tests::{nic, nics};
    use super::*;

    #[test]
    fn a_gpu_without_peer_memory_is_a_warning_where_there_are_nics() {
        let with = |modules: &[&str]| Modules {
            has_driver: true,
            loaded: Some(modules.iter().map(|name| name.to_string()).collect()),
            is_open: true,
        };
        let all = nics(vec![nic()]);
        let found = findings(&with(&["nvidia"]), &all);
        assert!(found[0].level == Level::Warning && found[0].seen.contains("dma-buf"), "{found:?}");
        for module in PEER_MODULES {
            assert_eq!(findings(&with(&["nvidia", module]), &all)[0].level, Level::Ok);
        }
        assert_eq!(findings(&Modules { loaded: None, ..with(&[]) }, &all)[0].level, Level::Ok);
        assert!(findings(&Modules::default(), &all).is_empty());
        assert!(findings(&with(&[]), &nics(Vec::new())).is_empty());
    }
}
