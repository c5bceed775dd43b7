//! libibverbs, its drivers, and whether a device can be opened.

use super::seen::{Nic, Verbs};
use crate::doctor::finding::Finding;

/// Whether libibverbs can be loaded; nothing where it was not asked. librdmacm is not needed: connections are made over the
/// handshake port.
pub(super) fn library(verbs: &Verbs) -> Option<Finding> {
    let check = "libibverbs";
    Some(match verbs {
        Verbs::NotAsked => return None,
        Verbs::NotInThisBuild => Finding::warning(
            check,
            "this build has no RDMA, so the NICs are not used",
            "use a build with the feature rdma",
        ),
        Verbs::Missing(why) => Finding::fault(
            check,
            why.clone(),
            "install libibverbs1 and ibverbs-providers (rdma-core on RPM systems)",
        ),
        Verbs::Hangs(seconds) => Finding::fault(
            check,
            format!("the driver did not answer within {seconds} s"),
            "look at dmesg for the device that hangs, and reset it or reboot",
        ),
        Verbs::Loaded(_) => Finding::ok(check, "loaded"),
    })
}

/// The files that tell libibverbs of its drivers. Drivers that are compiled into it need none.
pub(super) fn providers(files: usize) -> Finding {
    let check = "libibverbs drivers";
    match files {
        0 => Finding::warning(
            check,
            "no file *.driver in /etc/libibverbs.d",
            "install ibverbs-providers (rdma-core on RPM systems), in the container too",
        ),
        count => Finding::ok(check, format!("in /etc/libibverbs.d: {count}")),
    }
}

/// Whether libibverbs knows the device and can open it.
pub(super) fn device(nic: &Nic, verbs: &Verbs) -> Option<Finding> {
    let Verbs::Loaded(devices) = verbs else { return None };
    let check = nic.check("device");
    Some(match devices.iter().find(|(name, _)| *name == nic.name) {
        None => Finding::fault(
            check,
            "the kernel has it, and libibverbs does not list it",
            "load the module ib_uverbs, pass /dev/infiniband to the container, and install its driver (ibverbs-providers)",
        ),
        Some((_, Err(why))) => Finding::fault(
            check,
            why.clone(),
            "give this user the device files in /dev/infiniband, in a container with --device=/dev/infiniband",
        ),
        Some((_, Ok(_))) => Finding::ok(check, "can be opened"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::nics::tests::nic;

    #[test]
    fn a_library_that_cannot_be_used_is_a_fault() {
        for (verbs, level) in [
            (Verbs::NotAsked, None),
            (Verbs::NotInThisBuild, Some(Level::Warning)),
            (Verbs::Missing("no such file".into()), Some(Level::Fault)),
            (Verbs::Hangs(10), Some(Level::Fault)),
            (Verbs::Loaded(Vec::new()), Some(Level::Ok)),
        ] {
            assert_eq!(library(&verbs).map(|finding| finding.level), level, "{verbs:?}");
        }
    }

    #[test]
    fn missing_drivers_are_told() {
        assert_eq!((providers(0).level, providers(1).level), (Level::Warning, Level::Ok));
    }

    #[test]
    fn a_device_has_to_be_listed_and_to_open() {
        let loaded = |devices: &[(&str, Result<u32, String>)]| {
            Verbs::Loaded(devices.iter().map(|(name, mtu)| (name.to_string(), mtu.clone())).collect())
        };
        let level = |verbs| device(&nic(), &verbs).map(|finding| finding.level);
        assert_eq!(level(loaded(&[("mlx5_0", Ok(4096))])), Some(Level::Ok));
        assert_eq!(level(loaded(&[("mlx5_1", Ok(4096))])), Some(Level::Fault));
        assert_eq!(level(loaded(&[("mlx5_0", Err("EACCES".into()))])), Some(Level::Fault));
        assert_eq!(level(Verbs::NotAsked), None);
    }
}
