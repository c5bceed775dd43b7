//! Whether a path to a peer leads anywhere, tried with the opening of a TCP connection and no more: the peer's kernel answers that, however
//! busy the peer is. What else keeps a connection from being made says nothing about the path.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::connect::{from, no_answer};
use super::liveness;
use super::offer;
use super::path::Path;
use crate::error::{Code, Error, Result};
use crate::runtime::sockets;
use crate::transport::host::Route;

/// How long a peer's kernel may take to answer. Chosen: any network that a NIC is for is faster by far, and whatever is stuck on a
/// dead NIC waits for this.
const LIMIT: Duration = Duration::from_secs(1);

/// What came of a trial.
enum Outcome {
    Reachable,
    Silent,
    /// There is no way, as our kernel or a router says.
    NoWay(io::Error),
}

/// Whether the peer's data port can be reached by `path`: an error says why not.
pub(super) async fn try_out(route: &dyn Route, path: &Path) -> Result<()> {
    // A store that does not say where to connect has nothing to do with the path.
    let Ok(endpoint) = offer::endpoint(route).await else { return Ok(()) };
    let address = SocketAddr::new(path.remote, endpoint.port);
    let error = match reach(path.local, address, LIMIT).await {
        Outcome::Reachable => return Ok(()),
        Outcome::Silent => no_answer(Some(path), address, LIMIT),
        Outcome::NoWay(error) => {
            let text =
                format!("cannot reach data port {address}{}; check the NIC and its link", from(Some(path)));
            Error::io(Code::Socket, text, &error)
        }
    };
    Err(error.peer(&endpoint.peer))
}

async fn reach(local: IpAddr, address: SocketAddr, limit: Duration) -> Outcome {
    let deadline = Instant::now() + limit;
    match timeout(limit, sockets::connect_from(Some(local), address)).await {
        Ok(Ok(_)) => Outcome::Reachable,
        Ok(Err(error)) => judge(error),
        Err(_) if liveness::was_stopped(deadline) => Outcome::Reachable,
        Err(_) => Outcome::Silent,
    }
}

/// Whoever refuses or resets a connection has been reached, and a shortage here is our own.
fn judge(error: io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL) => {
            Outcome::NoWay(error)
        }
        Some(libc::ETIMEDOUT) => Outcome::Silent,
        _ => Outcome::Reachable,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::TcpListener;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    /// Chosen: short, because a case lasts so long.
    const SHORT: Duration = Duration::from_millis(20);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn only_a_missing_way_makes_a_path_unreachable() {
        for errno in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::ECONNREFUSED,
            libc::ECONNRESET,
            libc::EADDRINUSE,
        ] {
            assert!(matches!(judge(io::Error::from_raw_os_error(errno)), Outcome::Reachable), "{errno}");
        }
        for errno in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENETDOWN, libc::EADDRNOTAVAIL] {
            assert!(matches!(judge(io::Error::from_raw_os_error(errno)), Outcome::NoWay(_)), "{errno}");
        }
    }

    #[test]
    fn a_peer_that_does_not_serve_is_reached() {
        // Nobody accepts.
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(matches!(run(reach(LOOPBACK, address, LIMIT)), Outcome::Reachable));
        drop(listener);
        assert!(matches!(run(reach(LOOPBACK, address, LIMIT)), Outcome::Reachable), "it refuses");
        // For documentation (RFC 5737): no host has it.
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert!(matches!(run(reach(elsewhere, address, LIMIT)), Outcome::NoWay(_)));
    }

    #[test]
    fn a_path_without_an_answer_is_silent_unless_this_process_was_stopped() {
        // Its queue is full, so that the kernel drops what comes.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::new(LOOPBACK, 0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        run(async {
            let mut open = Vec::new();
            while let Ok(Ok(stream)) = timeout(SHORT, sockets::connect(address)).await {
                open.push(stream);
            }
            assert!(matches!(reach(LOOPBACK, address, SHORT).await, Outcome::Silent));
            let stopped = async {
                let began = Instant::now();
                while !liveness::was_stopped(began + SHORT + SHORT) {
                    std::thread::yield_now();
                }
            };
            let (outcome, ()) = tokio::join!(reach(LOOPBACK, address, SHORT), stopped);
            assert!(matches!(outcome, Outcome::Reachable));
        });
    }
}
