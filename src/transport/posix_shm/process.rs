//! The peer's process, proven to be on this host: the handshake address is one of ours, nobody else listens there, and the process
//! has the very objects mapped where its descriptor says. Addresses and names alone prove nothing: another host or container may
//! have the same.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;

use super::listening;
use crate::error::Result;
use crate::runtime::interfaces;
use crate::runtime::tracked::Tracked;

/// A process of this host that listens where the peer does.
pub(super) struct Process {
    /// Its number here, and in the names of its objects.
    pub pid: u32,
    /// Its mappings. The kernel ties this to the address space as it was when it was opened: once the process has ended, or is
    /// another program, there is nothing to be read, also if its number is in use again.
    maps: Tracked<File>,
}

/// Why it was not proven, for a sentence.
pub(super) type Doubt = String;

impl Process {
    /// The process `pid`, if one of `addresses` is of this host and nobody else listens there. That it is the peer shows when its
    /// objects are looked at ([`Process::has_mapped`]). May take milliseconds.
    pub(super) fn prove(pid: u32, addresses: &[SocketAddr]) -> Result<Self, Doubt> {
        let maps = Tracked::open(|| File::open(maps_of(pid))).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                format!("no process {pid}, which its objects are named after, is here")
            }
            _ => format!("process {pid}, which its objects are named after, cannot be looked at: {e}"),
        })?;
        let process = Process { pid, maps };
        let mut doubt = "its handshake address has no host".to_string();
        for address in addresses {
            match process.is_at(*address) {
                Ok(()) if process.is_alive() => return Ok(process),
                Ok(()) => return Err(format!("process {pid} has ended meanwhile")),
                Err(why) => doubt = why,
            }
        }
        Err(doubt)
    }

    /// Mooncake 0.3.14 does not listen in this mode where it uses a store, so nobody may do so too.
    fn is_at(&self, address: SocketAddr) -> Result<(), Doubt> {
        let is_ours = interfaces::is_own(address.ip()).map_err(|error| error.to_string())?;
        if !is_ours {
            return Err(format!("its handshake address {address} is not one of this host"));
        }
        let mut sockets = listening::sockets_at(address)
            .map_err(|e| format!("the sockets of this host cannot be listed: {e}"))?;
        if sockets.is_empty() {
            return Ok(());
        }
        let pid = self.pid;
        let open = fs::read_dir(format!("/proc/{pid}/fd"))
            .map_err(|e| format!("the descriptors of process {pid} cannot be listed: {e}"))?;
        for entry in open.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse::<u64>().ok()) {
                sockets.retain(|socket| *socket != inode);
            }
        }
        match sockets.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "its handshake address {address} is not that of process {pid}, which its objects are named after"
            )),
        }
    }

    /// It runs, and is the same program. Takes about a microsecond: one line is read.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.maps.read_at(&mut [0], 0), Ok(1))
    }

    /// Whether it has the first `len` bytes of a file mapped at `addr`, shared and to be written; the file by device and inode. What it
    /// could not write itself it must not have written by us, who may be root.
    pub(super) fn has_mapped(&self, addr: u64, len: u64, file: (u64, u64)) -> io::Result<bool> {
        // By the number: it is the same process if that is alive afterwards.
        let maps = Tracked::open(|| File::open(maps_of(self.pid)))?;
        covers(BufReader::new(&*maps), addr, len, file).map(|covered| covered && self.is_alive())
    }
}

fn maps_of(pid: u32) -> String {
    format!("/proc/{pid}/maps")
}

/// Whether the mappings, which the kernel lists by address, have the range without a gap. One mapping may be several lines.
fn covers(maps: impl BufRead, addr: u64, len: u64, file: (u64, u64)) -> io::Result<bool> {
    let Some(end) = addr.checked_add(len) else { return Ok(false) };
    let mut reached = addr;
    for line in maps.split(b'\n') {
        let line = line?;
        // The path may be any bytes.
        let Some(line) = Line::parse(&String::from_utf8_lossy(&line)) else { continue };
        if line.end <= reached {
            continue;
        }
        let is_next = line.start <= reached && (line.start >= addr || reached == addr);
        let is_it =
            line.is_shared && line.file == file && line.start >= addr && line.offset == line.start - addr;
        if !is_next || !is_it {
            return Ok(false);
        }
        reached = line.end;
        if reached >= end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A line of `/proc/PID/maps` (proc(5)).
struct Line {
    start: u64,
    end: u64,
    /// And may be read and written.
    is_shared: bool,
    offset: u64,
    file: (u64, u64),
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut words = text.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let permissions = words.next()?;
        let is_shared = permissions.starts_with("rw") && permissions.ends_with('s');
        let offset = hex(words.next()?)?;
        let (major, minor) = words.next()?.split_once(':')?;
        let device =
            libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let inode = words.next()?.parse().ok()?;
        Some(Line { start: hex(start)?, end: hex(end)?, is_shared, offset, file: (device, inode) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::Command;

    #[test]
    fn a_range_is_covered_by_one_file_from_its_beginning_on() {
        let maps = "\
00400000-00401000 r-xp 00000000 fe:00 99 /bin/x
7f0000000000-7f0000100000 rw-s 00000000 00:1b 4 /dev/shm/mooncake_1_a
7f0000100000-7f0000200000 rwxs 00100000 00:1b 4 /dev/shm/mooncake_1_a
7f0000200000-7f0000300000 rw-s 00000000 00:1b 5 /dev/shm/mooncake_1_b
7f0000400000-7f0000500000 rw-p 00000000 00:1b 6 /dev/shm/mooncake_1_c (deleted)
7f0000600000-7f0000700000 rw-s 00001000 00:1b 7 /dev/shm/mooncake_1_d
7f0000800000-7f0000900000 r--s 00000000 00:1b 8 /dev/shm/mooncake_1_e
7f0000a00000-7f0000b00000 rw-s 00000000 00:1b 9 /dev/shm/mooncake_1_f
7f0000c00000-7f0000d00000 rw-s 00200000 00:1b 9 /dev/shm/mooncake_1_f
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
        let at = |addr: u64, len, inode| {
            covers(maps.as_bytes(), addr, len, (libc::makedev(0, 0x1b), inode)).unwrap()
        };
        const A: u64 = 0x7f00_0000_0000;
        assert!(at(A, 0x10_0000, 4) && at(A, 0x20_0000, 4) && at(A, 1, 4) && at(A + 0x20_0000, 1, 5));
        for (addr, len, inode, why) in [
            (A, 0x20_0001, 4, "goes on in another file"),
            (A, 1, 5, "another file"),
            (A + 0x1000, 1, 4, "not where the file begins"),
            (A + 0x10_0000, 1, 4, "not where the file begins, on a line of its own"),
            (A + 0x20_0000, 0x10_0001, 5, "ends before"),
            (A + 0x30_0000, 1, 5, "a gap"),
            (A + 0x40_0000, 1, 6, "private"),
            (A + 0x60_0000, 1, 7, "begins elsewhere in the file"),
            (A + 0x80_0000, 1, 8, "to be read only"),
            (A + 0xa0_0000, 0x30_0000, 9, "a gap between two parts of the file"),
            (u64::MAX, 2, 4, "wraps around"),
        ] {
            assert!(!at(addr, len, inode), "{why}");
        }
    }

    #[test]
    fn p27_only_a_process_at_an_own_address_where_nobody_else_listens_is_proven() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = std::process::id();
        assert!(Process::prove(own, &[address]).is_ok());
        let doubt = |pid, addresses: &[SocketAddr]| Process::prove(pid, addresses).err().unwrap();
        assert!(doubt(own, &[]).contains("no host"));
        let port = address.port();
        assert!(doubt(own, &[SocketAddr::from(([192, 0, 2, 1], port))]).contains("not one of this host"));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(Process::prove(own, &[nobody]).is_ok());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(doubt(child.id(), &[address]).contains("is not that of process"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(doubt(child.id(), &[address]).contains("no process"));
    }

    #[test]
    fn a_process_that_is_another_program_now_is_not_the_peer() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The child is itself a copy of this program for a moment.
        let is_shell = || fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap().trim() == "sh";
        while !is_shell() {
            std::thread::yield_now();
        }
        let process =
            Process { pid: child.id(), maps: Tracked::open(|| File::open(maps_of(child.id()))).unwrap() };
        assert!(process.is_alive());
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go on\n").unwrap();
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert!(child.try_wait().unwrap().is_none(), "it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_end_of_a_process_is_seen_also_when_nobody_has_waited_for_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process =
            Process { pid: child.id(), maps: Tracked::open(|| File::open(maps_of(child.id()))).unwrap() };
        assert!(process.is_alive());
        child.kill().unwrap();
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert!(child.try_wait().is_ok());
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
