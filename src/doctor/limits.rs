//! The limits of a process that is started as this one was: pinned memory and descriptors.

use super::files::{bytes, Files};
use super::finding::Finding;
use crate::config::Config;

/// Pinned memory below which registering fails for any real buffer. Chosen: the kernel's default is 8 MiB, in older ones 64 KiB.
const LEAST_PINNED: u64 = 64 << 20;
/// Descriptors below which an engine with a few peers runs out. Chosen: two per TCP lane and peer, a few per NIC, and as many
/// again for the host program.
const LEAST_DESCRIPTORS: u64 = 256;
/// `CAP_IPC_LOCK`, with which the limit of pinned memory does not count.
const IPC_LOCK: u32 = 14;

/// Soft limits. `None`: there is no limit, or it is not told.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    pub pinned: Option<u64>,
    pub ignores_pinned: bool,
    pub descriptors: Option<u64>,
    pub descriptors_hard: Option<u64>,
}

impl Limits {
    pub(super) fn read(files: &Files) -> Self {
        let text = files.text("proc/self/limits").unwrap_or_default();
        let limit = |name: &str, column: usize| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(column)?.parse().ok()
        };
        Limits {
            pinned: limit("Max locked memory", 0),
            ignores_pinned: files.has_capability(IPC_LOCK),
            descriptors: limit("Max open files", 0),
            descriptors_hard: limit("Max open files", 1),
        }
    }
}

/// `pins`: there are NICs, for which memory is pinned.
pub(super) fn findings(limits: &Limits, pins: bool, config: &Config) -> Vec<Finding> {
    let memory = pins.then(|| pinned(limits));
    memory.into_iter().chain([descriptors(limits, config)]).collect()
}

fn pinned(limits: &Limits) -> Finding {
    let check = "pinned memory (ulimit -l)";
    let remedy =
        "raise ulimit -l (LimitMEMLOCK=infinity, --ulimit memlock=-1) above what is registered in all";
    match limits.pinned {
        None => Finding::ok(check, "unlimited"),
        Some(limit) if limits.ignores_pinned => {
            Finding::ok(check, format!("{}, which CAP_IPC_LOCK lifts", bytes(limit)))
        }
        Some(limit) if limit < LEAST_PINNED => Finding::fault(check, bytes(limit), remedy),
        Some(limit) => Finding::warning(check, bytes(limit), remedy),
    }
}

fn descriptors(limits: &Limits, config: &Config) -> Finding {
    let check = "descriptors (ulimit -n)";
    let Some(limit) = limits.descriptors else { return Finding::ok(check, "unlimited") };
    let hard = limits.descriptors_hard.map_or_else(|| "unlimited".into(), |hard| hard.to_string());
    let seen = format!("{limit}, at most {hard}");
    // As the engine shares them out.
    let enough =
        ((config.tcp_max_inbound as u64).div_ceil(3) * 8).max(config.handshake_max_clients as u64 * 8);
    let remedy = format!("raise ulimit -n (LimitNOFILE, --ulimit nofile) to {enough}");
    if limit < LEAST_DESCRIPTORS {
        return Finding::fault(check, seen, remedy);
    }
    let lowered = config.clone().leave_descriptors(usize::try_from(limit).unwrap_or(usize::MAX));
    match lowered {
        Some(lowered) => Finding::warning(check, lowered, remedy),
        None => Finding::ok(check, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn little_pinned_memory_is_a_fault_and_any_limit_a_warning() {
        for (pinned_limit, ignores_pinned, level) in [
            (None, false, Level::Ok),
            (Some(8 << 20), false, Level::Fault),
            (Some(8 << 20), true, Level::Ok),
            (Some(16 << 30), false, Level::Warning),
        ] {
            let limits = Limits { pinned: pinned_limit, ignores_pinned, ..Limits::default() };
            assert_eq!(pinned(&limits).level, level, "{limits:?}");
            assert_eq!(findings(&limits, false, &Config::default()).len(), 1);
        }
    }

    #[test]
    fn few_descriptors_are_a_fault_and_too_few_for_the_settings_a_warning() {
        for (limit, level) in [
            (Some(64), Level::Fault),
            (Some(1024), Level::Warning),
            (Some(10_928), Level::Ok),
            (Some(10_927), Level::Warning),
            (None, Level::Ok),
        ] {
            let limits = Limits { descriptors: limit, ..Limits::default() };
            let finding = descriptors(&limits, &Config::default());
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(level == Level::Ok || finding.remedy.contains("10928"), "{finding:?}");
        }
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let root = std::env::temp_dir().join(format!("mte-limits-{}", std::process::id()));
        std::fs::create_dir_all(root.join("proc/self")).unwrap();
        let line = |name: &str, soft: &str| format!("{name:<26}{soft:<21}{:<21}files\n", 524_288);
        let text = line("Max open files", "1024") + &line("Max locked memory", "unlimited");
        std::fs::write(root.join("proc/self/limits"), text).unwrap();
        std::fs::write(root.join("proc/self/status"), "Name:\tx\nCapEff:\t0000000000004000\n").unwrap();
        let limits = Limits::read(&Files::below(Some(root.clone())));
        std::fs::remove_dir_all(root).unwrap();
        assert_eq!((limits.pinned, limits.ignores_pinned), (None, true));
        assert_eq!((limits.descriptors, limits.descriptors_hard), (Some(1024), Some(524_288)));
    }
}
