//! The wrappers of libibverbs, against the simulated one of `tests/simverbs`: queue pairs of two devices, in one
//! process, whose memory and completions are looked at.
//!
//! libibverbs is found by dlopen, so each test runs in a process of its own with another `LD_LIBRARY_PATH`.

#![cfg(feature = "rdma")]
#![allow(unsafe_code)]

mod common;

use std::os::fd::RawFd;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{in_library_path, in_simverbs, make, succeed};
use transfer_engine::error::{Class, Code};
use transfer_engine::memory::PeerAccess;
use transfer_engine::transport::rdma::verbs::{
    device_names, load, wc, wc_status_text, Access, AsyncEvent, Caps, Chain, Channel, Context, Cq, GidEntry,
    GidKind, Mr, Path, Pd, PortState, PostError, Qp, Wc, Wr,
};

/// Far longer than anything here takes.
const FOREVER: Duration = Duration::from_secs(20);
const REMOTE: Access = Access { remote: PeerAccess::BOTH, relaxed_ordering: false };
/// RoCE v2 in simverbs.
const GID_INDEX: u8 = 3;

/// A device with a queue pair of its own completion queue.
struct Nic {
    qp: Qp,
    cq: Arc<Cq>,
    channel: Arc<Channel>,
    pd: Arc<Pd>,
    context: Arc<Context>,
}

impl Nic {
    fn open(name: &str) -> Self {
        let context = Context::open(name).unwrap();
        let channel = Channel::create(&context).unwrap();
        let cq = Cq::create(&context, 64, &channel, 5).unwrap();
        let pd = Pd::alloc(&context).unwrap();
        let qp = Qp::create(&pd, &cq, &Caps { max_wr: 16, max_sge: 1, max_inline: 0 }).unwrap();
        Nic { qp, cq, channel, pd, context }
    }

    fn path_to(&self, other: &Nic) -> Path {
        Path {
            port: 1,
            mtu: 4096,
            gid: other.context.gid(1, GID_INDEX.into()).unwrap().unwrap().gid,
            sgid_index: GID_INDEX,
            hop_limit: 16,
            traffic_class: 0,
            service_level: 0,
            lid: other.context.port(1).unwrap().lid,
            qp_number: other.qp.number(),
            rd_atomic: 16,
        }
    }

    fn connect(&self, other: &Nic) {
        self.qp.init(1, 0).unwrap();
        self.qp.receive_ready(&self.path_to(other)).unwrap();
        self.qp.send_ready(16).unwrap();
    }

    /// A region over `buffer`, which the caller keeps.
    fn register(&self, buffer: &mut [u8]) -> Mr {
        register(&self.pd, buffer.as_mut_ptr() as u64, buffer.len() as u64, REMOTE).unwrap()
    }

    /// Waits for `count` completions.
    fn completions(&self, count: usize) -> Vec<Wc> {
        let mut found = Vec::new();
        let mut some = [Wc::default(); 8];
        let begun = Instant::now();
        while found.len() < count {
            assert!(begun.elapsed() < FOREVER, "{} of {count} completions", found.len());
            let polled = self.cq.poll(&mut some).unwrap();
            found.extend_from_slice(&some[..polled]);
            std::thread::yield_now();
        }
        assert_eq!(self.cq.poll(&mut some).unwrap(), 0, "more than {count} completions");
        found
    }
}

/// `sim0` and `sim1`, connected.
fn pair() -> (Nic, Nic) {
    let (a, b) = (Nic::open("sim0"), Nic::open("sim1"));
    a.connect(&b);
    b.connect(&a);
    (a, b)
}

fn register(pd: &Arc<Pd>, addr: u64, len: u64, access: Access) -> transfer_engine::error::Result<Mr> {
    // SAFETY: the tests keep their buffers, and access to other addresses is simulated by system calls.
    unsafe { Mr::register(pd, addr, len, access) }
}

fn status(completion: &Wc) -> (u64, u32) {
    (completion.wr_id, completion.status)
}

fn becomes_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live struct, as is said.
    unsafe { libc::poll(&mut poll, 1, FOREVER.as_millis() as i32) == 1 }
}

fn is_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live struct, as is said.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

fn scratch(name: &str) -> PathBuf {
    FilePath::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// As `in_simverbs`, with a control file.
fn in_controlled(name: &str) -> bool {
    let file = scratch(&format!("verbs-{name}.ctl"));
    if std::env::var_os("SIMVERBS_CTL").is_none() {
        std::fs::write(&file, "").unwrap();
    }
    in_simverbs(name, &[("SIMVERBS_DEVICES", "sim0,sim1"), ("SIMVERBS_CTL", file.to_str().unwrap())])
}

/// Replaces the lines of this process's control file.
fn control(lines: &str) {
    let file = PathBuf::from(std::env::var_os("SIMVERBS_CTL").unwrap());
    let new = file.with_extension("new");
    std::fs::write(&new, lines).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn devices_are_listed_and_an_unknown_one_is_not_found() {
    let name = "devices_are_listed_and_an_unknown_one_is_not_found";
    if in_simverbs(name, &[("SIMVERBS_DEVICES", "sim0,nic_7")]) {
        return;
    }
    load().unwrap();
    assert_eq!(device_names().unwrap(), ["sim0", "nic_7"]);
    assert_eq!(Context::open("nic_7").unwrap().name(), "nic_7");
    let error = Context::open("mlx5_9").unwrap_err();
    assert_eq!((error.code(), error.kind()), (Code::DeviceNotFound, Class::Device));
    assert_eq!(error.text(), "there is no RDMA device 'mlx5_9'; this host has sim0, nic_7");
}

#[test]
fn an_ethernet_port_and_its_gids_are_described() {
    if in_simverbs("an_ethernet_port_and_its_gids_are_described", &[("SIMVERBS_GBPS", "400")]) {
        return;
    }
    let context = Context::open("sim0").unwrap();
    let port = context.port(1).unwrap();
    assert_eq!((port.state, port.active_mtu, port.lid), (PortState::Active, 4096, 0));
    assert_eq!((port.is_infiniband, port.bits_per_second, port.gid_table_len), (false, 400_000_000_000, 6));
    let error = context.port(2).unwrap_err();
    assert_eq!((error.code(), error.errno()), (Code::Context, libc::EINVAL));
    assert!(error.text().starts_with("cannot query port 2 of RDMA device sim0: "), "{error}");

    let gids: Vec<GidEntry> = (0..4).map(|index| context.gid(1, index).unwrap().unwrap()).collect();
    let kinds: Vec<GidKind> = gids.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [GidKind::RoceV1, GidKind::RoceV2, GidKind::RoceV1, GidKind::RoceV2]);
    assert!(gids[3].gid.starts_with(&[0; 10]) && gids[3].gid[10..12] == [255, 255], "{:?}", gids[3]);
    assert_eq!(context.gid(1, 6).unwrap(), None);
    assert_eq!(context.gid(2, 0).unwrap_err().errno(), libc::EINVAL);

    let limits = context.attributes().unwrap();
    assert_eq!((limits.ports, limits.max_qp_rd_atom, limits.max_qp_init_rd_atom), (1, 16, 16));
    assert_eq!((limits.max_qp_wr, limits.max_mr_size), (32768, 1 << 47));
    assert!(limits.max_qp > 0 && limits.max_sge > 0 && limits.max_cq > 0 && limits.max_cqe > 0);
    assert!(limits.max_mr > 0);
}

#[test]
fn an_infiniband_port_has_a_lid() {
    if in_simverbs("an_infiniband_port_has_a_lid", &[("SIMVERBS_LINK_LAYER", "ib")]) {
        return;
    }
    let context = Context::open("sim0").unwrap();
    let port = context.port(1).unwrap();
    assert!(port.is_infiniband && port.lid != 0);
    assert_eq!(context.gid(1, 0).unwrap().unwrap().kind, GidKind::InfiniBand);
}

#[test]
fn p32_a_refused_registration_says_where_and_why() {
    if in_controlled("p32_a_refused_registration_says_where_and_why") {
        return;
    }
    let nic = Nic::open("sim0");
    let mut buffer = vec![0u8; 8192];
    let first = nic.register(&mut buffer);
    let second = nic.register(&mut buffer);
    assert_ne!(first.rkey(), second.rkey());

    // The first page is never mapped.
    let error = register(&nic.pd, 0x100, 64, REMOTE).unwrap_err();
    assert_eq!((error.code(), error.errno()), (Code::Context, libc::EFAULT));
    for part in ["cannot register 64 bytes at 0x100 with RDMA device sim0", "not all of it is mapped"] {
        assert!(error.text().contains(part), "{error}");
    }

    control("fail reg_mr 1 ENOMEM");
    let addr = buffer.as_ptr() as u64;
    let error = register(&nic.pd, addr, 64, REMOTE).unwrap_err();
    assert_eq!((error.code(), error.errno(), error.kind()), (Code::Context, libc::ENOMEM, Class::Resource));
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: written to a live struct.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    let limit = match limit.rlim_cur {
        libc::RLIM_INFINITY => "now unlimited".into(),
        bytes => format!("now {} KiB", bytes / 1024),
    };
    for part in ["RLIMIT_MEMLOCK", "ulimit -l", &limit] {
        assert!(error.text().contains(part), "{error}");
    }
    register(&nic.pd, addr, 64, REMOTE).unwrap();
}

#[test]
fn a_driver_without_relaxed_ordering_gets_strict_ordering() {
    if in_controlled("a_driver_without_relaxed_ordering_gets_strict_ordering") {
        return;
    }
    let nic = Nic::open("sim0");
    let buffer = [0u8; 64];
    let addr = buffer.as_ptr() as u64;
    for errno in ["EINVAL", "EOPNOTSUPP"] {
        control(&format!("fail reg_mr 1 {errno}"));
        register(&nic.pd, addr, 64, Access { remote: PeerAccess::BOTH, relaxed_ordering: true }).unwrap();
        control(&format!("fail reg_mr 1 {errno} # again"));
        register(&nic.pd, addr, 64, REMOTE).unwrap_err();
    }
    // Something else is not tried again.
    control("fail reg_mr 1 EIO");
    register(&nic.pd, addr, 64, Access { remote: PeerAccess::BOTH, relaxed_ordering: true }).unwrap_err();
}

#[test]
fn a_dma_buf_that_cannot_be_registered_is_not_implemented() {
    if in_simverbs("a_dma_buf_that_cannot_be_registered_is_not_implemented", &[]) {
        return;
    }
    let nic = Nic::open("sim0");
    // SAFETY: refused by the simulation, which has no dma-bufs.
    let error = unsafe { Mr::register_dmabuf(&nic.pd, 0, 0, 4096, 0x1000, REMOTE) }.unwrap_err();
    assert_eq!(error.code(), Code::NotImplemented);
    assert!(error.text().contains("RDMA device sim0") && error.text().contains("PEERMEM"), "{error}");
}

#[test]
fn a_chain_writes_and_reads_with_one_completion() {
    if in_simverbs("a_chain_writes_and_reads_with_one_completion", &[("SIMVERBS_DEVICES", "sim0,sim1")]) {
        return;
    }
    const PIECES: usize = 9;
    const PIECE: usize = 1000;
    let (a, b) = pair();
    let mut source: Vec<u8> = (0..PIECES * PIECE).map(|at| (at * 7 % 251) as u8).collect();
    let mut target = vec![0u8; source.len()];
    let mut back = vec![0u8; source.len()];
    let (from, to, into) = (a.register(&mut source), b.register(&mut target), a.register(&mut back));
    let mut chain = Chain::new();
    for (write, local, mr) in [(true, source.as_ptr(), &from), (false, back.as_ptr(), &into)] {
        for piece in 0..PIECES {
            let at = (piece * PIECE) as u64;
            chain.push(&Wr {
                id: 100 + piece as u64,
                write,
                local: local as u64 + at,
                len: PIECE as u32,
                lkey: mr.lkey(),
                remote: target.as_ptr() as u64 + at,
                rkey: to.rkey(),
                signaled: piece == PIECES - 1,
            });
        }
        a.qp.post(&mut chain).unwrap();
        assert!(chain.is_empty());
        let completions = a.completions(1);
        assert_eq!(status(&completions[0]), (108, wc::SUCCESS));
        assert_eq!(completions[0].qp_num, a.qp.number());
    }
    assert!(source == target && source == back);
    a.qp.post(&mut chain).unwrap();
    assert_eq!(a.cq.poll(&mut []).unwrap(), 0);
}

#[test]
fn an_armed_queue_tells_its_channel_once() {
    if in_simverbs("an_armed_queue_tells_its_channel_once", &[("SIMVERBS_DEVICES", "sim0,sim1")]) {
        return;
    }
    let (a, b) = pair();
    let (mut source, mut target) = ([1u8; 64], [0u8; 64]);
    let (from, to) = (a.register(&mut source), b.register(&mut target));
    let mut chain = Chain::new();
    let mut post = || {
        chain.push(&Wr {
            id: 1,
            write: true,
            local: source.as_ptr() as u64,
            len: 64,
            lkey: from.lkey(),
            remote: target.as_ptr() as u64,
            rkey: to.rkey(),
            signaled: true,
        });
        a.qp.post(&mut chain).unwrap();
    };
    assert_eq!(a.channel.drain().unwrap(), 0);
    a.cq.arm().unwrap();
    post();
    assert!(becomes_readable(a.channel.fd()));
    assert_eq!(a.channel.drain().unwrap(), 1);
    assert_eq!(a.channel.drain().unwrap(), 0);
    a.completions(1);
    // Not armed again.
    post();
    a.completions(1);
    assert!(!is_readable(a.channel.fd()));
}

#[test]
fn a_full_queue_tells_how_much_of_a_chain_it_took() {
    if in_simverbs("a_full_queue_tells_how_much_of_a_chain_it_took", &[("SIMVERBS_DEVICES", "sim0,sim1")]) {
        return;
    }
    let (a, b) = pair();
    let (mut source, mut target) = ([1u8; 64], [0u8; 64]);
    let (from, to) = (a.register(&mut source), b.register(&mut target));
    let room = a.qp.caps().max_wr as usize;
    assert!((16..Chain::CAPACITY).contains(&room));
    let mut chain = Chain::new();
    for id in 0..room as u64 + 3 {
        chain.push(&Wr {
            id,
            write: true,
            local: source.as_ptr() as u64,
            len: 8,
            lkey: from.lkey(),
            remote: target.as_ptr() as u64,
            rkey: to.rkey(),
            signaled: true,
        });
    }
    let refused = a.qp.post(&mut chain).unwrap_err();
    assert_eq!(refused, PostError { posted: room, errno: libc::ENOMEM });
    assert!(refused.to_string().starts_with("ibv_post_send took 16 work requests, then: "), "{refused}");
    assert!(chain.is_empty());
    let ids: Vec<u64> = a.completions(room).iter().map(|completion| completion.wr_id).collect();
    assert_eq!(ids, (0..room as u64).collect::<Vec<_>>());
}

#[test]
fn a_wrong_key_fails_its_request_and_flushes_the_rest() {
    let name = "a_wrong_key_fails_its_request_and_flushes_the_rest";
    if in_simverbs(name, &[("SIMVERBS_DEVICES", "sim0,sim1")]) {
        return;
    }
    let (a, b) = pair();
    let (mut source, mut target) = ([1u8; 64], [0u8; 64]);
    let (from, to) = (a.register(&mut source), b.register(&mut target));
    let mut chain = Chain::new();
    for (id, rkey) in [(1, to.rkey()), (2, to.rkey() ^ 0x5555), (3, to.rkey())] {
        chain.push(&Wr {
            id,
            write: true,
            local: source.as_ptr() as u64,
            len: 64,
            lkey: from.lkey(),
            remote: target.as_ptr() as u64,
            rkey,
            signaled: false,
        });
    }
    a.qp.post(&mut chain).unwrap();
    // Failures complete although they were not signaled.
    let found: Vec<_> = a.completions(2).iter().map(status).collect();
    assert_eq!(found, [(2, wc::REM_ACCESS_ERR), (3, wc::WR_FLUSH_ERR)]);
    assert!(wc_status_text(found[0].1).starts_with("REM_ACCESS_ERR (10): "));
    // The other side hears of it.
    b.cq.poll(&mut [Wc::default()]).unwrap();
    assert!(becomes_readable(b.context.async_fd()));
    let event = b.context.next_event().unwrap().unwrap();
    assert!(
        matches!(event, AsyncEvent::QpOther { qp_number, .. } if qp_number == b.qp.number()),
        "{event:?}"
    );
    assert_eq!(event.name(), format!("QP_ACCESS_ERR of queue pair {:#x}", b.qp.number()));
}

#[test]
fn a_queue_pair_in_error_flushes_what_is_under_way() {
    let name = "a_queue_pair_in_error_flushes_what_is_under_way";
    // No completion would come within the test.
    if in_simverbs(name, &[("SIMVERBS_DEVICES", "sim0,sim1"), ("SIMVERBS_LAT_US", "60000000")]) {
        return;
    }
    let (a, b) = pair();
    let (mut source, mut target) = ([1u8; 64], [0u8; 64]);
    let (from, to) = (a.register(&mut source), b.register(&mut target));
    let mut chain = Chain::new();
    for id in [1, 2] {
        chain.push(&Wr {
            id,
            write: id == 1,
            local: source.as_ptr() as u64,
            len: 64,
            lkey: from.lkey(),
            remote: target.as_ptr() as u64,
            rkey: to.rkey(),
            signaled: true,
        });
    }
    a.qp.post(&mut chain).unwrap();
    assert_eq!(a.cq.poll(&mut [Wc::default()]).unwrap(), 0);
    a.qp.error().unwrap();
    let found: Vec<_> = a.completions(2).iter().map(status).collect();
    assert_eq!(found, [(1, wc::WR_FLUSH_ERR), (2, wc::WR_FLUSH_ERR)]);
}

#[test]
fn a_refused_step_names_states_and_attributes() {
    if in_simverbs("a_refused_step_names_states_and_attributes", &[("SIMVERBS_DEVICES", "sim0,sim1")]) {
        return;
    }
    let (a, b) = (Nic::open("sim0"), Nic::open("sim1"));
    let path = a.path_to(&b);
    let qp = &a.qp;
    let check = |refused: transfer_engine::error::Result<()>, parts: &[&str]| {
        let error = refused.unwrap_err();
        assert_eq!((error.code(), error.errno()), (Code::Endpoint, libc::EINVAL), "{error}");
        let number = format!("queue pair {:#x} of sim0", qp.number());
        for part in parts.iter().chain(&[number.as_str()]) {
            assert!(error.text().contains(part), "no '{part}' in: {error}");
        }
    };
    let number = format!("dest_qp_num {:#x}", b.qp.number());
    check(
        qp.receive_ready(&path),
        &["from INIT to RTR", "it is in RESET", "path_mtu 4096", "sgid_index 3", "::ffff:", &number],
    );
    check(qp.init(1, 7), &["from RESET to INIT", "pkey_index 7", "port_num 1"]);
    qp.init(1, 0).unwrap();
    check(qp.receive_ready(&Path { sgid_index: 200, ..path }), &["do the GID", "sgid_index 200"]);
    let unknown = qp.receive_ready(&Path { mtu: 1500, ..path }).unwrap_err();
    assert_eq!((unknown.code(), unknown.errno()), (Code::Endpoint, 0));
    assert!(unknown.text().contains("path_mtu 1500"), "{unknown}");
    check(qp.send_ready(1), &["from RTR to RTS", "it is in INIT", "retry_cnt 7"]);
    qp.receive_ready(&path).unwrap();
    check(qp.send_ready(17), &["max_rd_atomic 17", "an attribute does not suit the device"]);
    qp.send_ready(16).unwrap();
}

#[test]
fn a_refused_queue_pair_names_its_sizes_and_the_errno() {
    if in_controlled("a_refused_queue_pair_names_its_sizes_and_the_errno") {
        return;
    }
    let nic = Nic::open("sim0");
    control("fail create_qp 1 ENOMEM");
    let caps = Caps { max_wr: 16, max_sge: 1, max_inline: 0 };
    let error = Qp::create(&nic.pd, &nic.cq, &caps).unwrap_err();
    assert_eq!((error.code(), error.errno()), (Code::Endpoint, libc::ENOMEM));
    assert!(error.text().contains("sim0 (max_send_wr 16, max_send_sge 1, max_inline_data 0)"), "{error}");
    Qp::create(&nic.pd, &nic.cq, &caps).unwrap();
    let error = Qp::create(&nic.pd, &nic.cq, &Caps { max_wr: 1 << 30, ..caps }).unwrap_err();
    assert_eq!((error.code(), error.errno()), (Code::Endpoint, libc::EINVAL));
    // What does not belong together is refused before the driver sees it.
    let other = Nic::open("sim1");
    assert_eq!(Qp::create(&nic.pd, &other.cq, &caps).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(Cq::create(&nic.context, 8, &other.channel, 0).unwrap_err().code(), Code::InvalidArgument);
    let error = Cq::create(&nic.context, u32::MAX, &nic.channel, 0).unwrap_err();
    assert_eq!((error.code(), error.errno()), (Code::Context, libc::EINVAL));
}

#[test]
fn events_of_a_port_and_a_device_arrive_without_blocking() {
    if in_controlled("events_of_a_port_and_a_device_arrive_without_blocking") {
        return;
    }
    let context = Context::open("sim0").unwrap();
    assert_eq!(context.next_event().unwrap(), None);
    for (lines, expected, state) in [
        ("port sim0 down", AsyncEvent::PortError(1), PortState::Down),
        ("port sim0 up", AsyncEvent::PortActive(1), PortState::Active),
        ("event sim0 GID_CHANGE", AsyncEvent::GidChange(1), PortState::Active),
        ("event sim0 LID_CHANGE", AsyncEvent::LidChange(1), PortState::Active),
        ("event sim0 DEVICE_FATAL", AsyncEvent::DeviceFatal, PortState::Active),
        ("event sim0 CLIENT_REREGISTER", AsyncEvent::Other(17), PortState::Active),
    ] {
        control(lines);
        assert!(becomes_readable(context.async_fd()), "{lines}");
        assert_eq!(context.next_event().unwrap(), Some(expected));
        assert_eq!(context.next_event().unwrap(), None);
        assert_eq!(context.port(1).unwrap().state, state);
    }
}

#[test]
fn an_overrun_queue_is_reported_with_its_queue_pair() {
    let name = "an_overrun_queue_is_reported_with_its_queue_pair";
    if in_simverbs(name, &[("SIMVERBS_DEVICES", "sim0,sim1"), ("SIMVERBS_LAT_US", "0")]) {
        return;
    }
    let (mut a, b) = (Nic::open("sim0"), Nic::open("sim1"));
    a.cq = Cq::create(&a.context, 4, &a.channel, 0).unwrap();
    a.qp = Qp::create(&a.pd, &a.cq, &Caps { max_wr: 16, max_sge: 1, max_inline: 0 }).unwrap();
    a.connect(&b);
    b.connect(&a);
    let (mut source, mut target) = ([1u8; 64], [0u8; 64]);
    let (from, to) = (a.register(&mut source), b.register(&mut target));
    let mut chain = Chain::new();
    for id in 0..8 {
        chain.push(&Wr {
            id,
            write: true,
            local: source.as_ptr() as u64,
            len: 64,
            lkey: from.lkey(),
            remote: target.as_ptr() as u64,
            rkey: to.rkey(),
            signaled: true,
        });
    }
    a.qp.post(&mut chain).unwrap();
    let mut events = Vec::new();
    let begun = Instant::now();
    while events.len() < 2 {
        assert!(begun.elapsed() < FOREVER, "{events:?}");
        a.cq.poll(&mut [Wc::default()]).unwrap();
        events.extend(a.context.next_event().unwrap());
    }
    assert_eq!(events, [AsyncEvent::QpFatal { qp_number: a.qp.number() }, AsyncEvent::CqError]);
    // Acknowledged: neither would return before.
    drop(a);
}

#[test]
fn whatever_is_dropped_first_all_is_released() {
    if in_simverbs("whatever_is_dropped_first_all_is_released", &[("SIMVERBS_DEVICES", "sim0,sim1")]) {
        return;
    }
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
    let subscriber = subscriber.with_writer(move || Sink(sink.clone())).finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!("it listens");
        let mut buffer = [0u8; 64];
        let (nic, peer) = pair();
        let mr = nic.register(&mut buffer);
        let Nic { qp, cq, channel, pd, context } = nic;
        drop(context);
        drop(channel);
        drop(pd);
        drop(cq);
        drop(qp);
        // The only one that holds the domain and the device by now.
        drop(mr);
        drop(peer);
    });
    let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(lines.contains("it listens") && !lines.contains("left behind"), "{lines}");
}

#[test]
fn an_older_library_is_used_without_its_missing_functions() {
    const NEWER: [&str; 3] = ["_ibv_query_gid_ex;", "ibv_reg_mr_iova2;", "ibv_reg_dmabuf_mr;"];
    let older = || {
        let map =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simverbs/simverbs.map"));
        let mut map = map.unwrap();
        for symbol in NEWER {
            assert!(map.contains(&format!(" {symbol}")));
            // A version must not be empty.
            map = map.replace(&format!(" {symbol}"), &format!(" no_{symbol}"));
        }
        let file = scratch("older.map");
        std::fs::write(&file, map).unwrap();
        make("tests/simverbs", "simverbs-older", &[format!("MAP={}", file.display())])
    };
    if in_library_path("an_older_library_is_used_without_its_missing_functions", older, &[]) {
        return;
    }
    let nic = Nic::open("sim0");
    // There is no folder in sysfs for the simulated device, which would tell more.
    let entry = nic.context.gid(1, 3).unwrap().unwrap();
    assert_eq!((entry.kind, &entry.gid[10..12]), (GidKind::Other(u32::MAX), &[255, 255][..]));
    assert_eq!(nic.context.gid(1, 6).unwrap(), None);
    let buffer = [0u8; 64];
    let access = Access { remote: PeerAccess::BOTH, relaxed_ordering: true };
    register(&nic.pd, buffer.as_ptr() as u64, 64, access).unwrap();
    // SAFETY: refused before anything is looked at.
    let error = unsafe { Mr::register_dmabuf(&nic.pd, 0, 0, 4096, 0x1000, REMOTE) }.unwrap_err();
    assert_eq!(error.code(), Code::NotImplemented);
    assert!(error.text().contains("older than rdma-core 34"), "{error}");
}

#[test]
fn a_host_without_libibverbs_is_told_what_to_install() {
    // In place of none at all, which a test cannot arrange on a host that has one.
    let damaged = || {
        let folder = scratch("no-libibverbs");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libibverbs.so.1"), "").unwrap();
        folder
    };
    if in_library_path("a_host_without_libibverbs_is_told_what_to_install", damaged, &[]) {
        return;
    }
    for error in [load().unwrap_err(), device_names().unwrap_err(), Context::open("sim0").unwrap_err()] {
        assert_eq!((error.code(), error.code() as i32), (Code::DeviceNotFound, -6));
        for part in
            ["cannot load libibverbs.so.1", "no-libibverbs", "file too short", "libibverbs1", "rdma-core"]
        {
            assert!(error.text().contains(part), "no '{part}' in: {error}");
        }
    }
}

#[test]
fn a_library_without_a_needed_function_is_refused() {
    let empty = || {
        let folder = scratch("empty-libibverbs");
        std::fs::create_dir_all(&folder).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-o"]).arg(folder.join("libibverbs.so.1"));
        succeed("an empty library", gcc.args(["-x", "c", "/dev/null"]));
        folder
    };
    if in_library_path("a_library_without_a_needed_function_is_refused", empty, &[]) {
        return;
    }
    let error = load().unwrap_err();
    assert_eq!(error.code(), Code::DeviceNotFound);
    assert!(error.text().contains("no function ibv_fork_init"), "{error}");
}

#[test]
fn the_systems_own_library_is_understood() {
    if let Err(error) = load() {
        assert!(error.text().starts_with("cannot load libibverbs.so.1"), "{error}");
        println!("SKIP the_systems_own_library_is_understood: {error}");
        return;
    }
    // A host without RDMA has none, which is no error.
    for name in device_names().unwrap() {
        assert!(!name.is_empty());
    }
}

#[test]
fn a_program_that_uses_all_this_does_not_need_libibverbs() {
    let mut readelf = Command::new("readelf");
    let output = readelf.args(["-d", "-W"]).arg(std::env::current_exe().unwrap()).output().unwrap();
    let dynamic = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.iter().any(|line| line.contains("libc.so")), "readelf is not understood: {dynamic}");
    assert!(!needed.iter().any(|line| line.contains("ibverbs") || line.contains("rdmacm")), "{needed:?}");
}
