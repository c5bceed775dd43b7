//! One cell.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use transfer_engine::engine::metrics::{self, Form};
use transfer_engine::error::Class;

use crate::cells::{Expected, Fault, Moment};
use crate::common::net::{Net, BOTH};
use crate::common::{in_child, in_simverbs};
use crate::flow::{End, Flow, Struck, MARK};
use crate::memory::Memory;
use crate::node::{Kind, Node, NICS, READ, STORELESS, WRITE};
use crate::pair::{Target, HALF};
use crate::peer::{free_ports, Peer, Seat};
use crate::store::Store;
use crate::table;

/// After the fault is over, transfers arrive within this time of trying.
const RECOVERS: Duration = Duration::from_secs(20);
/// Where a peer that is started anew has its memory again.
const AT: u64 = 0x2a00_0000_0000;

/// Runs a cell as the test `name`, in a process of its own.
pub fn test(kind: Kind, fault: Fault, moment: Moment, name: &str) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let registry = format!("te-matrix-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let control = std::env::temp_dir().join(&registry);
    let environment = [
        ("MC_METADATA_REVALIDATE_MS", "0"),
        ("SIMVERBS_DEVICES", "sim0,sim1"),
        ("SIMVERBS_GBPS", "10"),
        ("SIMVERBS_QUIET", "1"),
        ("SIMVERBS_RETRY_MS", "100"),
        ("SIMVERBS_SHM", registry.as_str()),
        ("SIMVERBS_CTL", control.to_str().unwrap()),
    ];
    let local = [("MC_TCP_BIND_ADDRESS", "127.0.0.1")];
    let parent = match kind {
        Kind::Rdma if std::env::var_os(NICS).is_none() => {
            in_simverbs(name, &[&environment[..], &local].concat())
        }
        Kind::Nics => in_child(name, &[&environment[..], &[BOTH]].concat()),
        _ => in_child(name, &[&environment[..], &local].concat()),
    };
    if parent {
        let _ = std::fs::remove_file(&control);
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(&registry) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        return;
    }
    let net = match kind {
        Kind::Nics => match Net::new(name) {
            Some(net) => Some(net),
            None => return,
        },
        _ => None,
    };
    Cell { kind, fault, moment, net }.run(name);
}

struct Cell {
    kind: Kind,
    fault: Fault,
    moment: Moment,
    net: Option<Net>,
}

impl Cell {
    fn run(&self, name: &str) {
        let store = (self.fault == Fault::Restarted).then(Store::start);
        let seat = match &store {
            Some(store) => {
                let ports = free_ports();
                let name = format!("127.0.0.1:{}", ports.0);
                Seat { name, store: store.url.clone(), at: AT, ports: Some(ports) }
            }
            None => Seat { name: "127.0.0.1".into(), store: STORELESS.into(), at: 0, ports: None },
        };
        let own = if store.is_some() { "here" } else { "127.0.0.1" };
        let here = Node::unregistered(self.kind, 0, &seat.store, own, Memory::new(None, 0));
        here.register().unwrap();
        let mut there = Peer::start(self.kind, &seat);
        there.register();
        let segment = here.engine.open_segment(there.name()).unwrap();
        let addr = there.addr();
        let end = self.strike(&here, &mut there, Target { here: &here, segment, addr });
        self.check_counts(&end);
        let recovered = self.recover(&here, &mut there, &seat, &end);
        let classes: Vec<String> = {
            let mut all: Vec<String> = end.errors().map(|error| format!("{:?}", error.kind())).collect();
            all.sort();
            all.dedup();
            all
        };
        println!(
            "\nCELL {name}: {} of {} tasks arrived, {} failed, refused: {}; {classes:?}; ended {:.2} s after the fault, back in {:.2} s",
            end.arrived,
            end.tasks,
            end.failed.len(),
            end.refused.is_some(),
            end.took.as_secs_f64(),
            recovered.as_secs_f64(),
        );
        end.errors().take(1).for_each(|error| println!("CELL {name}: {error}"));
        self.judge(&end, &classes);
    }

    /// Transfers, and the fault in the middle of them.
    fn strike(&self, here: &Node, there: &mut Peer, target: Target<'_>) -> End {
        let struck = Struck::default();
        // While its process is there.
        let view = there.view();
        let opcodes: &[i32] = match self.moment {
            Moment::Writing => &[WRITE],
            Moment::Reading => &[READ],
            Moment::Connecting | Moment::Idle => &[WRITE, READ],
        };
        if self.moment != Moment::Connecting {
            here.move_all(&[target.request(WRITE, 0, HALF), target.request(READ, 0, 100)]);
        }
        if self.moment == Moment::Idle {
            self.happen(here, there, &struck);
        }
        let (begun, begins) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let blind = self.fault == Fault::UnmappedHere;
        std::thread::scope(|scope| {
            let flow = Flow { target, peer: &view, opcodes, blind, struck: &struck };
            let flowing = scope.spawn(move || flow.run(&begun, &ended));
            match self.moment {
                Moment::Connecting => begins.recv().unwrap(),
                Moment::Writing | Moment::Reading => (0..3).for_each(|_| ends.recv().unwrap()),
                Moment::Idle => {}
            }
            if self.moment != Moment::Idle {
                self.happen(here, there, &struck);
            }
            flowing.join().unwrap()
        })
    }

    /// The metrics have counted what was seen, and nothing else: the process is this cell's.
    fn check_counts(&self, end: &End) {
        let text = metrics::gather(&[], Form::Text);
        let sum = |series: &str| -> usize {
            let lines = text.lines().filter(|line| line.starts_with(series));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
        };
        let before = if self.moment == Moment::Connecting { 0 } else { 2 };
        let requests = sum("mooncake_te_read_requests_total ") + sum("mooncake_te_write_requests_total ");
        assert_eq!(requests, before + end.tasks, "requests that have ended");
        for class in end.failed.iter().map(|error| error.kind()) {
            let name = format!("{class:?}").to_lowercase();
            let label = format!("class=\"{name}\"}}");
            let counted: usize = ["read", "write"]
                .iter()
                .map(|op| sum(&format!("mte_task_failures_total{{op=\"{op}\",{label}")))
                .sum();
            let seen = end.failed.iter().filter(|error| error.kind() == class).count();
            assert_eq!(counted, seen, "failures of the class {name}");
        }
        assert_eq!(sum("mte_task_failures_total{"), end.failed.len(), "failures of every class");
    }

    fn happen(&self, here: &Node, there: &mut Peer, struck: &Struck) {
        struck.began.set(Instant::now()).unwrap();
        match self.fault {
            Fault::Killed | Fault::Restarted => there.kill(),
            Fault::Stopped => there.signal(libc::SIGSTOP),
            Fault::Left => there.leave(),
            Fault::UnregisteredThere => there.unregister(),
            Fault::UnregisteredHere => here.unregister(),
            Fault::UnmappedHere => here.memory.take_away(),
            Fault::NicDown => self.set_nic("down"),
            Fault::Dropped => ["eth1", "eth2"].iter().for_each(|device| self.net().set("b", device, "down")),
        }
        struck.is_done.store(true, Relaxed);
    }

    fn net(&self) -> &Net {
        self.net.as_ref().unwrap()
    }

    fn set_nic(&self, state: &str) {
        if self.kind == Kind::Nics {
            return self.net().set("a", "eth1", state);
        }
        let file = std::env::var("SIMVERBS_CTL").unwrap();
        std::fs::write(format!("{file}.new"), format!("port sim0 {state}\n")).unwrap();
        std::fs::rename(format!("{file}.new"), file).unwrap();
    }

    /// Undoes the fault, and transfers until it works. How long that took.
    fn recover(&self, here: &Node, there: &mut Peer, seat: &Seat, end: &End) -> Duration {
        match self.fault {
            Fault::Killed | Fault::Left => {
                *there = Peer::start(self.kind, &Seat { at: 0, ports: None, ..seat.clone() });
                there.register();
            }
            Fault::Restarted => {
                *there = Peer::start(self.kind, seat);
                there.register();
            }
            Fault::Stopped => there.signal(libc::SIGCONT),
            Fault::UnregisteredThere => there.register(),
            Fault::UnregisteredHere => here.register().unwrap(),
            // The memory does not come back; other memory is registered.
            Fault::UnmappedHere => {}
            Fault::NicDown => self.set_nic("up"),
            Fault::Dropped => ["eth1", "eth2"].iter().for_each(|device| self.net().set("b", device, "up")),
        }
        let other = (self.fault == Fault::UnmappedHere).then(|| Memory::new(None, 0));
        let source = match &other {
            Some(memory) => {
                let len = crate::memory::LEN as u64;
                let range = transfer_engine::memory::Range { addr: memory.addr(), len };
                here.engine.register(&[range], "*", true).unwrap();
                memory.addr()
            }
            None => here.addr(),
        };
        let began = Instant::now();
        loop {
            // By name: another process may have another one.
            let outcome = here.engine.open_segment(there.name()).map(|segment| {
                let target = Target { here, segment, addr: there.addr() };
                // Behind what the flow has used.
                let request = target.request(WRITE, HALF - 4096, 4096);
                let source = source + (HALF - 4096) as u64;
                here.failure(transfer_engine::engine::submit::Request { source, ..request })
            });
            match outcome {
                Ok(None) => break,
                other => assert!(began.elapsed() < RECOVERS, "not reached again: {other:?}"),
            }
        }
        let took = began.elapsed();
        if self.fault != Fault::UnmappedHere {
            for at in &end.left {
                let local = here.bytes(*at, 128 << 10);
                assert!(
                    local.iter().all(|byte| byte & MARK != 0),
                    "a buffer at {at} was touched after its task had ended"
                );
            }
        }
        took
    }

    fn judge(&self, end: &End, classes: &[String]) {
        let limit = table::limit(self.kind, self.fault, self.moment);
        assert!(end.took < limit, "the last task ended {:?} after the fault", end.took);
        for error in end.errors() {
            assert!(error.kind() != Class::Internal && !error.text().is_empty(), "{error:?}");
        }
        let expected = table::expected(self.kind, self.fault, self.moment);
        let fits = match expected {
            Expected::GoesOn => classes.is_empty(),
            Expected::Fails(some) => {
                !classes.is_empty() && classes.iter().all(|class| some.contains(&class.as_str()))
            }
            Expected::May(some) => classes.iter().all(|class| some.contains(&class.as_str())),
        };
        assert!(fits, "{classes:?} instead of {expected:?}: {:?}", end.errors().next());
    }
}
