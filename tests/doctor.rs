//! `mte doctor` as an operator runs it: on recorded machines, with settings that are wrong, and beside stores.

#[cfg(feature = "rdma")]
mod common;
#[allow(dead_code)]
#[path = "stores/servers.rs"]
mod servers;
#[allow(dead_code)]
#[path = "sysfs/tree.rs"]
mod tree;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use servers::{Kind, Server};
use tree::Tree;

/// Far longer than any run takes, and shorter than any run without a deadline.
const SOON: Duration = Duration::from_secs(30);

/// What every machine here has: nothing to complain of.
const SOUND: &str = "
[proc/self]
limits = Max open files            1048576              1048576              files
status = CapEff:\t0000000000000000
mounts = tmpfs /dev/shm tmpfs rw,size=1048576k 0 0
[proc/sys]
vm/overcommit_memory = 0
kernel/yama/ptrace_scope = 0
net/ipv4/ip_local_port_range = 32768 60999
net/core/rmem_max = 212992
net/core/wmem_max = 212992
[etc/libibverbs.d]
mlx5.driver = driver mlx5
";

/// A NIC with one port, in the state `state`, and a GID of IPv4.
#[cfg(feature = "rdma")]
fn nic(state: &str, physical: &str) -> String {
    format!(
        "
[sys/devices/pci0000:16/0000:16:02.0/0000:17:00.0]
class = 0x020000
vendor = 0x15b3
numa_node = 0
net/eth7/mtu = 9000
infiniband/mlx5_0/ports/1/state = {state}
infiniband/mlx5_0/ports/1/phys_state = {physical}
infiniband/mlx5_0/ports/1/link_layer = Ethernet
infiniband/mlx5_0/ports/1/rate = 400 Gb/sec (4X NDR)
infiniband/mlx5_0/ports/1/gids/0 = fe80:0000:0000:0000:0000:00ff:fe00:0001
infiniband/mlx5_0/ports/1/gids/1 = 0000:0000:0000:0000:0000:ffff:c0a8:0102
infiniband/mlx5_0/ports/1/gids/2 = 0000:0000:0000:0000:0000:0000:0000:0000
infiniband/mlx5_0/ports/1/gid_attrs/types/0 = RoCE v2
infiniband/mlx5_0/ports/1/gid_attrs/types/1 = RoCE v2
infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0 = eth7
infiniband/mlx5_0/ports/1/gid_attrs/ndevs/1 = eth7
infiniband/mlx5_0/device -> ../..
infiniband_verbs/uverbs0/ibdev = mlx5_0
[sys]
class/net/eth7/mtu = 9000
devices/system/node/node0/
devices/system/node/node1/
"
    )
}

/// A run of the program, which ends soon.
fn run(root: Option<&Path>, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mte"));
    command.arg("doctor").args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.to_ascii_uppercase().starts_with("MC_")) {
        command.env_remove(name);
    }
    if let Some(root) = root {
        command.arg("--root").arg(root);
    }
    let begun = Instant::now();
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(begun.elapsed() < SOON, "{arguments:?} took {:?}", begun.elapsed());
    output
}

/// The report as JSON, whose counts are those of its lines.
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let findings = report["findings"].as_array().unwrap();
    let count = |level: &str| findings.iter().filter(|finding| finding["level"] == level).count();
    assert_eq!(report["faults"], count("fault"), "{text}");
    assert_eq!(report["warnings"], count("warning"), "{text}");
    for finding in findings {
        let remedy = finding["remedy"].as_str().unwrap();
        assert_eq!(remedy.is_empty(), finding["level"] == "ok", "{finding}");
    }
    let expected = match (count("fault"), count("warning")) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 1,
    };
    assert_eq!(output.status.code(), Some(expected), "{text}");
    report
}

/// The lines about `check`.
fn about<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

fn machine(nics: &str) -> Tree {
    Tree::build(&format!("{SOUND}{nics}"))
}

/// The folder that stands for `/`.
fn top(machine: &Tree) -> PathBuf {
    machine.root().sysfs.parent().unwrap().into()
}

#[test]
fn a_machine_without_a_fault_ends_with_zero() {
    let machine = machine("");
    let output = run(Some(&top(&machine)), &[], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("no RDMA device"), "{text}");
    assert!(text.lines().last().unwrap().ends_with("checks: 0 faults, 0 warnings"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours, although this is no terminal: {text}");
    assert!(output.stderr.is_empty());
}

#[test]
fn where_engines_listen_is_told() {
    let machine = machine("");
    let top = top(&machine);
    for (root, address, level, word) in [
        (Some(&*top), None, "ok", "all of this host"),
        (Some(&*top), Some("127.0.0.2"), "ok", "127.0.0.2 only"),
        (Some(&*top), Some("eth0"), "fault", "not an IP address"),
        // A documentation address, which this machine does not have.
        (None, Some("192.0.2.1"), "fault", "not an address of this host"),
    ] {
        let setting: Vec<_> = address.map(|address| ("MC_BIND_ADDRESS", address)).into_iter().collect();
        let report = report(&run(root, &["--json"], &setting));
        let [finding] = about(&report, "listen address")[..] else { panic!("{report:#}") };
        assert_eq!(finding["level"], level, "{finding}");
        assert!(finding["seen"].as_str().unwrap().contains(word), "{finding}");
    }
}

#[cfg(feature = "rdma")]
#[test]
fn a_nic_that_works_is_described() {
    let machine = machine(&nic("4: ACTIVE", "5: LinkUp"));
    let report = report(&run(Some(&top(&machine)), &["--json"], &[]));
    assert_eq!((&report["faults"], &report["warnings"]), (&0.into(), &0.into()), "{report:#}");
    let gid = about(&report, "nic mlx5_0 GID")[0]["seen"].as_str().unwrap();
    assert!(
        gid.starts_with("index 1 of eth7: ::ffff:192.168.1.2, ") && gid.contains("best of 2; routable"),
        "{gid}"
    );
    assert_eq!(about(&report, "nic mlx5_0 NUMA node")[0]["seen"], "0");
}

#[cfg(feature = "rdma")]
#[test]
fn a_port_that_is_down_is_a_fault() {
    let machine = machine(&nic("1: DOWN", "3: Disabled"));
    let output = run(Some(&top(&machine)), &["--json"], &[]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1));
    let port = about(&report, "nic mlx5_0 port 1")[0];
    assert_eq!(port["level"], "fault", "{report:#}");
    assert!(port["remedy"].as_str().unwrap().contains("ip link set eth7 up"), "{port}");
}

/// The simulated libibverbs has the devices that a variable names, and a recorded sysfs may have others.
#[cfg(feature = "rdma")]
#[test]
fn a_nic_that_libibverbs_does_not_list_is_a_fault() {
    let machine = machine(&nic("4: ACTIVE", "5: LinkUp"));
    let folder = common::simverbs();
    for (devices, level) in [("mlx5_0,mlx5_1", "ok"), ("mlx5_1", "fault")] {
        let registry = format!("doctor-{}-{level}", std::process::id());
        let environment = [
            ("LD_LIBRARY_PATH", folder.to_str().unwrap()),
            ("SIMVERBS_DEVICES", devices),
            ("SIMVERBS_QUIET", "1"),
            ("SIMVERBS_SHM", &registry),
        ];
        let report = report(&run(Some(&top(&machine)), &["--json", "--drivers"], &environment));
        assert_eq!(about(&report, "libibverbs")[0]["level"], "ok", "{report:#}");
        assert_eq!(about(&report, "nic mlx5_0 device")[0]["level"], level, "{report:#}");
        for file in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with(&registry) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

#[test]
fn a_misspelt_setting_is_a_warning_that_names_the_right_one() {
    let machine = machine("");
    let settings = [("MC_TCP_THREDS", "4"), ("MC_IB_PORT", "zero"), ("MC_USE_TENT", "1")];
    let output = run(Some(&top(&machine)), &["--json"], &settings);
    assert_eq!(output.status.code(), Some(3));
    let report = report(&output);
    let found = about(&report, "settings");
    assert_eq!(found.len(), 3, "{report:#}");
    assert!(found.iter().any(|it| it["remedy"].as_str().unwrap().contains("MC_TCP_THREADS")), "{report:#}");
}

#[test]
fn a_store_where_nobody_listens_is_a_fault_and_ends_soon() {
    let machine = machine("");
    // Bound and given back, so nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for url in [format!("http://127.0.0.1:{port}/metadata"), format!("redis://127.0.0.1:{port}")] {
        let output = run(Some(&top(&machine)), &["--json", "--metadata", &url], &[]);
        let report = report(&output);
        assert_eq!(about(&report, "store")[0]["level"], "fault", "{report:#}");
    }
}

#[test]
fn a_store_that_never_answers_is_a_fault_when_its_time_is_over() {
    let machine = machine("");
    // Connections are accepted by the kernel, and read by nobody.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metadata", silent.local_addr().unwrap());
    let short = [("MC_METADATA_TIMEOUT_MS", "500")];
    let report = report(&run(Some(&top(&machine)), &["--json", "--metadata", &url], &short));
    assert_eq!(about(&report, "store")[0]["level"], "fault", "{report:#}");
}

#[test]
fn a_store_that_works_is_read_and_written_only_when_asked_to() {
    let machine = machine("");
    let store = Server::start(Kind::Mte);
    let url = store.url();
    for write in [&[][..], &["--write"]] {
        let arguments = [&["--json", "--metadata", &url][..], write].concat();
        let report = report(&run(Some(&top(&machine)), &arguments, &[]));
        assert_eq!(report["faults"], 0, "{report:#}");
        assert!(about(&report, "store")[0]["seen"].as_str().unwrap().starts_with("a read took"));
        assert_eq!(about(&report, "store clock")[0]["level"], "ok", "{report:#}");
        assert_eq!(about(&report, "store writes").len(), write.len(), "{report:#}");
    }
}

#[test]
fn this_machine_can_be_looked_at() {
    let begun = run(None, &["--json"], &[]);
    report(&begun);
}

#[test]
fn wrong_arguments_end_with_two() {
    for arguments in [&["--nothing"][..], &["--write"], &["--metadata"]] {
        let output = run(None, arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}
