//! Which sockets of this host listen at an address, as the kernel lists them in `/proc/net` (proc(5)).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel's tables; IPv6 may be absent.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// The state of a socket that listens, from include/net/tcp_states.h.
const LISTEN: &str = "0A";

/// The inodes of all sockets that may be given a connection to `address`.
pub(super) fn sockets_at(address: SocketAddr) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for table in TABLES {
        match File::open(table) {
            Ok(file) => find(BufReader::new(file), address, &mut found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The kernel lists what listens first, so a table with very many connections is not read to its end.
fn find(table: impl BufRead, address: SocketAddr, found: &mut Vec<u64>) -> io::Result<()> {
    for line in table.lines().skip(1) {
        let line = line?;
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next(), words.nth(1));
        if state != Some(LISTEN) {
            break;
        }
        // After the state: queues, timer, retransmissions, user, time-out.
        let inode = words.nth(5).and_then(|word| word.parse::<u64>().ok());
        if local.and_then(socket_address).is_some_and(|local| takes(local, address)) {
            found.extend(inode);
        }
    }
    Ok(())
}

/// Whether a socket that listens at `local` may be given a connection to `address`.
fn takes(local: SocketAddr, address: SocketAddr) -> bool {
    let (own, asked) = (local.ip().to_canonical(), address.ip().to_canonical());
    local.port() == address.port()
        && (own == asked || own.is_unspecified() && (asked.is_ipv4() || own.is_ipv6()))
}

/// An address as the tables have it: words of 32 bits in this machine's order, and the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    fn inode(listener: &TcpListener) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let link = link.to_string_lossy().into_owned();
        link.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn the_kernel_names_the_socket_that_listens() {
        for (bound, asked) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("0.0.0.0", "127.9.9.9"),
            ("[::1]", "::1"),
            ("[::]", "127.0.0.1"),
            ("[::]", "::1"),
        ] {
            let Ok(listener) = TcpListener::bind(format!("{bound}:0")) else {
                println!("SKIP {bound}: not on this host");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            assert_eq!(sockets_at(asked).unwrap(), [inode(&listener)], "{bound} for {asked}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for other in [("127.0.0.2", port), ("::1", port), ("127.0.0.1", port ^ 1)] {
            let other = SocketAddr::new(other.0.parse().unwrap(), other.1);
            assert!(!sockets_at(other).unwrap().contains(&inode(&listener)), "{other}");
        }
    }
}
