//! A peer that can be lost: an engine in a process of its own, or, where a transport does not leave the process, an
//! engine beside the one that submits.

// Each binary uses a part of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::memory::Memory;
use crate::node::{Kind, Node};

/// What the process is to be: kind, connection string, name, address of its memory.
const PLAN: &str = "TRANSFER_ENGINE_TEST_PEER";
/// In front of what it prints for its parent, which gets the test harness's lines as well.
const SAYS: &str = "PEER ";
/// Number of its simulated NIC, and of the contents of its memory.
const NIC: u8 = 1;

/// Where a peer is.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its name, which peers with a store may give themselves.
    pub name: String,
    /// Connection string.
    pub store: String,
    /// Address of its memory; 0: anywhere.
    pub at: u64,
    /// Handshake and data port; `None`: any.
    pub ports: Option<(u16, u16)>,
}

pub enum Peer {
    Process(Process),
    Engine(Node),
}

pub struct Process {
    child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    name: String,
    addr: u64,
}

impl Peer {
    /// Its memory is not registered.
    pub fn start(kind: Kind, seat: &Seat) -> Self {
        if kind == Kind::Echo {
            let memory = Memory::new(Some(seat.at).filter(|at| *at != 0), NIC);
            return Peer::Engine(Node::unregistered(kind, NIC, &seat.store, &seat.name, memory));
        }
        Peer::Process(Process::start(kind, seat))
    }

    pub fn name(&self) -> &str {
        match self {
            Peer::Process(process) => &process.name,
            Peer::Engine(node) => node.name(),
        }
    }

    pub fn addr(&self) -> u64 {
        match self {
            Peer::Process(process) => process.addr,
            Peer::Engine(node) => node.addr(),
        }
    }

    pub fn register(&mut self) {
        match self {
            Peer::Process(process) => process.obey("register"),
            Peer::Engine(node) => node.register().unwrap(),
        }
    }

    pub fn unregister(&mut self) {
        match self {
            Peer::Process(process) => process.obey("unregister"),
            Peer::Engine(node) => node.unregister(),
        }
    }

    /// Destroys its engine; a process and its memory stay.
    pub fn leave(&mut self) {
        match self {
            Peer::Process(process) => process.obey("leave"),
            Peer::Engine(node) => node.engine.destroy(),
        }
    }

    /// Sends a signal to its process.
    #[allow(unsafe_code)]
    pub fn signal(&self, signal: i32) {
        if let Peer::Process(process) = self {
            // SAFETY: no memory arguments; the child was not waited for, so the number is still its own.
            assert_eq!(unsafe { libc::kill(process.child.id() as i32, signal) }, 0);
        }
    }

    /// A look at its memory for as long as its process is there.
    pub fn view(&self) -> View {
        match self {
            Peer::Process(process) => View { memory: process.memory(), addr: process.addr },
            Peer::Engine(_) => panic!("its memory is this process's"),
        }
    }

    /// Its memory at `offset`, as it is now.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        match self {
            Peer::Process(process) => {
                let mut bytes = vec![0; len];
                process.memory().read_exact_at(&mut bytes, process.addr + offset as u64).unwrap();
                bytes
            }
            Peer::Engine(node) => node.bytes(offset, len),
        }
    }

    /// Ends it as abruptly as its kind allows. The memory of an engine of this process stays.
    pub fn kill(&mut self) {
        match self {
            Peer::Process(process) => process.kill(),
            Peer::Engine(node) => node.engine.destroy(),
        }
    }
}

/// The memory of a peer's process, for any thread.
pub struct View {
    memory: File,
    addr: u64,
}

impl View {
    /// As [`Peer::bytes`]; `None` once the process is gone.
    pub fn bytes(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, self.addr + offset as u64).ok().map(|()| bytes)
    }
}

impl Process {
    fn start(kind: Kind, seat: &Seat) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "peer::serves_until_its_parent_ends", "--ignored", "--nocapture"]);
        command.env(PLAN, format!("{kind:?} {} {} {}", seat.store, seat.name, seat.at));
        if let Some((_, data)) = seat.ports {
            let data = data.to_string();
            command.env("MC_LEGACY_RPC_PORT_BINDING", "1");
            command.env("MC_MIN_RPC_PORT", &data).env("MC_MAX_RPC_PORT", &data);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Process { child, commands, lines, name: String::new(), addr: 0 };
        let ready = process.says();
        let (name, addr) = ready.split_once(' ').unwrap();
        process.name = name.into();
        process.addr = addr.parse().unwrap();
        process
    }

    /// Has it do something, and waits until that is done.
    fn obey(&mut self, command: &str) {
        self.commands.write_all(format!("{command}\n").as_bytes()).unwrap();
        assert_eq!(self.says(), "done");
    }

    /// The next that it says to its parent.
    fn says(&mut self) -> String {
        let line = self.lines.find_map(|line| line.unwrap().strip_prefix(SAYS).map(str::to_string));
        line.expect("the peer's process ended; its reason is above")
    }

    fn memory(&self) -> File {
        File::open(format!("/proc/{}/mem", self.child.id())).unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "a peer's process, which cases start and kill"]
fn serves_until_its_parent_ends() {
    let Ok(plan) = std::env::var(PLAN) else { return };
    let [kind, store, name, at] = plan.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let kind = Kind::ALL.into_iter().find(|one| format!("{one:?}") == kind).unwrap();
    let at = Some(at.parse().unwrap()).filter(|at| *at != 0);
    let node = Node::unregistered(kind, NIC, store, name, Memory::new(at, NIC));
    // The harness may have begun a line.
    println!("\n{SAYS}{} {}", node.name(), node.addr());
    for command in std::io::stdin().lines() {
        match command.unwrap().as_str() {
            "register" => node.register().unwrap(),
            "unregister" => node.unregister(),
            "leave" => node.engine.destroy(),
            other => panic!("'{other}' is no command"),
        }
        println!("\n{SAYS}done");
    }
}

/// Two ports that nobody has, below those that the kernel gives to connections and outside the engines' own range.
pub fn free_ports() -> (u16, u16) {
    let first = 20_000 + (std::process::id() % 4_000) as u16 * 2;
    let mut free = (first..30_000).filter(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
    (free.next().unwrap(), free.next().unwrap())
}
