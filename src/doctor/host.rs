//! The kernel's memory: `/dev/shm`, huge pages, overcommitting, and whether processes may read each other.

use std::os::unix::fs::MetadataExt;

use super::files::{bytes, Files};
use super::finding::Finding;
use crate::config::Config;

/// Room in `/dev/shm` below which other engines' segments there have none. Chosen: what containers get by default.
const LEAST_SHM: u64 = 64 << 20;
/// `CAP_SYS_PTRACE`, with which a process may read others whatever Yama says, but for mode 3.
const SYS_PTRACE: u32 = 19;

/// What was read; `None`: not told.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Size of `/dev/shm` and what is free in it, bytes; `None`: not mounted.
    pub shm: Option<(u64, u64)>,
    /// Huge pages in all, free ones, and the size of each in bytes.
    pub huge: Option<(u64, u64, u64)>,
    /// `vm.overcommit_memory`
    pub overcommit: Option<u64>,
    /// `CommitLimit` and `Committed_AS`, bytes.
    pub committed: Option<(u64, u64)>,
    /// `kernel.yama.ptrace_scope`; `None`: no Yama.
    pub ptrace_scope: Option<u64>,
    pub may_ptrace: bool,
}

impl Host {
    pub(super) fn read(files: &Files) -> Self {
        let memory = |name: &str| files.member("proc/meminfo", name);
        let kib = |name: &str| Some(memory(name)? * 1024);
        let huge = || Some((memory("HugePages_Total")?, memory("HugePages_Free")?, kib("Hugepagesize")?));
        let committed = || Some((kib("CommitLimit")?, kib("Committed_AS")?));
        Host {
            shm: shm(files, kib("MemTotal")),
            huge: huge(),
            overcommit: files.number("proc/sys/vm/overcommit_memory"),
            committed: committed(),
            ptrace_scope: files.number("proc/sys/kernel/yama/ptrace_scope"),
            may_ptrace: files.has_capability(SYS_PTRACE),
        }
    }
}

/// The size as mounted, by default a half of the memory (tmpfs(5)); what is free is that without what the files in it hold.
fn shm(files: &Files, memory: Option<u64>) -> Option<(u64, u64)> {
    let mounts = files.text("proc/self/mounts")?;
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/dev/shm"))?;
    let size = line.split([' ', ',']).find_map(|option| option.strip_prefix("size="));
    let size = match size {
        Some(size) => size.strip_suffix('k')?.parse::<u64>().ok()?.checked_mul(1024)?,
        None => memory? / 2,
    };
    let names = files.names("dev/shm");
    let held = names.iter().filter_map(|name| files.path("dev/shm").join(name).symlink_metadata().ok());
    // A file says its size in sectors.
    let held: u64 = held.map(|file| file.blocks() * 512).sum();
    Some((size, size.saturating_sub(held)))
}

pub(super) fn findings(host: &Host, config: &Config) -> Vec<Finding> {
    let found = [Some(shared(host, config)), huge(host), overcommit(host), Some(reading(host, config))];
    found.into_iter().flatten().collect()
}

/// Only engines of others keep segments there; shared memory of this library is no file.
fn shared(host: &Host, config: &Config) -> Finding {
    let check = "/dev/shm";
    match host.shm {
        _ if !config.posix_shm => Finding::ok(check, "not used (MC_POSIX_SHM=0)"),
        None => Finding::warning(
            check,
            "not mounted as far as can be seen, so segments of Mooncake in it cannot be reached",
            "mount a tmpfs there (in a container --shm-size or --ipc=host), or set MC_POSIX_SHM=0",
        ),
        Some((size, free)) => {
            let seen = format!("{}, {} free", bytes(size), bytes(free));
            match free < LEAST_SHM {
                false => Finding::ok(check, seen),
                true => Finding::warning(
                    check,
                    seen,
                    "remove files of dead processes there, or give it more (--shm-size, mount -o remount,size=)",
                ),
            }
        }
    }
}

fn huge(host: &Host) -> Option<Finding> {
    let check = "huge pages";
    let (total, free, size) = host.huge?;
    Some(match (total, free) {
        (0, _) => Finding::ok(check, "none configured"),
        (_, 0) => Finding::warning(
            check,
            format!("all {total} of {} are in use", bytes(size)),
            "raise vm.nr_hugepages if a program that is yet to start, or MTE_SHARED_HUGE, needs some",
        ),
        _ => Finding::ok(check, format!("{free} of {total} free, {} each", bytes(size))),
    })
}

/// With 2 the kernel refuses mappings, threads and forks beyond a limit, however much memory is free.
fn overcommit(host: &Host) -> Option<Finding> {
    let check = "overcommit";
    let mode = host.overcommit?;
    if mode != 2 {
        return Some(Finding::ok(check, format!("vm.overcommit_memory={mode}")));
    }
    let use_of = match host.committed {
        Some((limit, used)) => format!(", {} of {} committed", bytes(used), bytes(limit)),
        None => String::new(),
    };
    Some(Finding::warning(
        check,
        format!("vm.overcommit_memory=2{use_of}: forks and large mappings may be refused"),
        "set vm.overcommit_memory to 0, or raise vm.overcommit_ratio",
    ))
}

/// Whether engines on this host may read each other's memory.
fn reading(host: &Host, config: &Config) -> Finding {
    let check = "reading other processes";
    let scope = match host.ptrace_scope {
        None => return Finding::ok(check, "allowed, the kernel has no Yama"),
        Some(0) => return Finding::ok(check, "allowed (kernel.yama.ptrace_scope=0)"),
        Some(scope @ (1 | 2)) if host.may_ptrace => {
            return Finding::ok(
                check,
                format!("allowed by CAP_SYS_PTRACE (kernel.yama.ptrace_scope={scope})"),
            )
        }
        Some(scope) => scope,
    };
    let seen = format!("refused (kernel.yama.ptrace_scope={scope}): engines on this host do not use shm");
    if !config.same_host {
        // Nobody has asked for it here, and other transports are used.
        return Finding::ok(check, format!("{seen}; MC_SAME_HOST is not set"));
    }
    let remedy = match scope {
        3 => "boot without kernel.yama.ptrace_scope=3, which cannot be lowered, or unset MC_SAME_HOST",
        _ => "set kernel.yama.ptrace_scope=0 or give the programs CAP_SYS_PTRACE; unset MC_SAME_HOST if neither is wanted",
    };
    Finding::warning(check, seen, remedy)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn little_room_for_shared_memory_is_a_warning() {
        let of = |shm| shared(&Host { shm, ..Host::default() }, &Config::default()).level;
        assert_eq!(of(None), Level::Warning);
        assert_eq!(of(Some((1 << 30, 1 << 20))), Level::Warning);
        assert_eq!(of(Some((1 << 30, 1 << 29))), Level::Ok);
        let off = Config { posix_shm: false, ..Config::default() };
        assert_eq!(shared(&Host::default(), &off).level, Level::Ok);
    }

    #[test]
    fn huge_pages_that_are_used_up_are_a_warning() {
        let of = |total, free| huge(&Host { huge: Some((total, free, 2 << 20)), ..Host::default() });
        assert_eq!(of(0, 0).map(|finding| finding.level), Some(Level::Ok));
        assert_eq!(of(8, 3).map(|finding| finding.level), Some(Level::Ok));
        assert_eq!(of(8, 0).map(|finding| finding.level), Some(Level::Warning));
        assert_eq!(huge(&Host::default()), None);
    }

    #[test]
    fn strict_overcommitting_is_a_warning() {
        let of = |mode| overcommit(&Host { overcommit: Some(mode), ..Host::default() }).unwrap().level;
        assert_eq!([of(0), of(1), of(2)], [Level::Ok, Level::Ok, Level::Warning]);
    }

    #[test]
    fn yama_matters_where_same_host_is_asked_for() {
        let asked = Config { same_host: true, ..Config::default() };
        for (scope, may_ptrace, level) in [
            (None, false, Level::Ok),
            (Some(0), false, Level::Ok),
            (Some(1), false, Level::Warning),
            (Some(2), true, Level::Ok),
            (Some(3), true, Level::Warning),
        ] {
            let host = Host { ptrace_scope: scope, may_ptrace, ..Host::default() };
            assert_eq!(reading(&host, &asked).level, level, "{host:?}");
            assert_eq!(reading(&host, &Config::default()).level, Level::Ok);
        }
    }
}
