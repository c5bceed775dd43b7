//! Setting up a data connection: descriptor, address, connect, socket options, and the proof that the peer is the process
//! that the descriptor speaks of. Runs on the control plane.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fence::Mark;
use super::offer;
use super::path::Path;
use super::pipeline::Terms;
use super::rail::Rail;
use super::shared::{set_options, stays_here, Endpoint, Shared};
use super::sock::Socket;
use super::wire::{Header, HEADER_LEN, INCARNATION_LEN, OK_FRAME, REJECTED_FRAME, STATUS_LEN};
use crate::cluster_key::stream::{claim, Refused};
use crate::cluster_key::{Purpose, PROOF_LEN};
use crate::error::{Class, Code, Error, Result};
use crate::runtime::resolve::{resolve, Family};
use crate::runtime::sockets;
use crate::runtime::tracked::Tracked;
use crate::tls;
use crate::tls::stream::Line;
use crate::tls::Port;
use crate::transport::host::Route;
use crate::transport::incarnation;
use crate::transport::slice::Op;

/// A connection ready for requests.
pub(super) struct Connection {
    /// Non-blocking, with its options set.
    pub socket: Socket,
    /// Its framing, and what may be sent on it.
    pub terms: Terms,
    /// By which the peer can be asked to close its end; `None` if it has no way to know it.
    pub mark: Option<Mark>,
    /// It does not leave this host.
    pub within_host: bool,
    /// What it goes over, if the peer has several addresses.
    pub rail: Option<Arc<Rail>>,
}

/// How long a peer may take to accept and to prove a connection, and to tell its descriptor once it has not: at the most,
/// if `MC_HANDSHAKE_CONNECT_TIMEOUT` is not shorter. Chosen: a peer that is stopped or gone is known in less than five
/// seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const SILENT_PEER_LIMIT: Duration = Duration::from_secs(1);
/// The same for one of several addresses of the peer. Chosen: one lost packet is sent again by then, and where all NICs of
/// a peer are dead there is still time for the address that everybody knows.
const RAIL_LIMIT: Duration = Duration::from_secs(2);
/// How long the descriptor is read again before an attempt, after a connection was lost. Chosen: a store or a peer that works
/// tells it in milliseconds; with the limit above, an attempt to a stopped peer ends within five seconds.
const REREAD_LIMIT: Duration = Duration::from_millis(1500);

/// How many times `MC_HANDSHAKE_CONNECT_TIMEOUT` setting up a connection may take in all. Chosen: reading the descriptor,
/// connecting and the proof may take it once each; a second address or attempt has what the first left of it.
const STEPS: u32 = 3;

/// As [`try_connect`], but never longer than [`STEPS`] allow, name look-ups included.
pub(super) async fn connect(
    shared: &Shared,
    route: &dyn Route,
    reread: bool,
    rail: Option<&Arc<Rail>>,
) -> Result<Connection> {
    let limit = STEPS * shared.config.connect_timeout;
    let attempt = async {
        let path = rail.and_then(|rail| rail.path.as_ref());
        let connection = try_connect(shared, route, reread, path).await?;
        if rail.is_some() && path.is_none() {
            let what = "its usual address, because none of its NICs' answered";
            let endpoint = offer::endpoint(route).await?;
            shared.note_fallback(&shared.stats.fallback_one_address, what, &endpoint)?;
        }
        Ok(Connection { rail: rail.cloned(), ..connection })
    };
    timeout(limit, attempt).await.unwrap_or_else(|_| {
        let text = format!("no connection within {} s; check the peer, the route and DNS", limit.as_secs());
        Err(Error::new(Code::Socket, text).transient(Class::Timeout).peer(route.peer()))
    })
}

/// Connects to where `route` points. The descriptor is read again before the attempt with `reread`, else after a failed
/// one, because a peer that restarted has another port.
async fn try_connect(
    shared: &Shared,
    route: &dyn Route,
    reread: bool,
    path: Option<&Path>,
) -> Result<Connection> {
    if reread {
        // Whether that succeeds does not matter: a store that is down must not stop transfers to known peers.
        refresh(shared, route, REREAD_LIMIT).await;
    }
    let endpoint = offer::endpoint(route).await?;
    let failed = match attempt(shared, &endpoint, path).await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    // Whoever did not answer on one port seldom does on the other.
    let silent = failed.kind() == Class::Timeout;
    let limit = if silent { SILENT_PEER_LIMIT } else { shared.config.connect_timeout };
    if reread || !refresh(shared, route, limit).await {
        return Err(failed);
    }
    let fresh = offer::endpoint(route).await?;
    if fresh == endpoint {
        return Err(failed);
    }
    attempt(shared, &fresh, path).await
}

/// Reads the descriptor again; `false` if that failed or took too long.
async fn refresh(shared: &Shared, route: &dyn Route, limit: Duration) -> bool {
    match timeout(limit.min(shared.config.connect_timeout), route.refresh()).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::debug!("descriptor of {} not read again: {error}", route.peer()),
        Err(_) => tracing::debug!("descriptor of {} not read again in time", route.peer()),
    }
    false
}

async fn attempt(shared: &Shared, endpoint: &Endpoint, path: Option<&Path>) -> Result<Connection> {
    let config = &shared.config;
    let v2 = endpoint.proto_version >= 2 && !config.tcp_force_v1;
    let reusable = endpoint.proto_version >= 2 && config.tcp_pool;
    if !v2 {
        let what = "v1 framing, whose WRITE completes before it is applied";
        shared.note_fallback(&shared.stats.fallback_v1, what, endpoint)?;
    }
    // A pool that the caller switched off is no fall-back.
    if !reusable && config.tcp_pool {
        let what = "a connection per request";
        shared.note_fallback(&shared.stats.fallback_one_shot, what, endpoint)?;
    }
    let mut last = None;
    let addresses = match path {
        Some(path) => vec![SocketAddr::new(path.remote, endpoint.port)],
        None => resolve(&endpoint.host, endpoint.port, Family::Any).await?,
    };
    let limit = config.connect_timeout.min(if path.is_some() { RAIL_LIMIT } else { ANSWER_LIMIT });
    for address in addresses {
        match timeout(limit, sockets::connect_from(path.map(|path| path.local), address)).await {
            Ok(Ok(stream)) => {
                let line = secure(shared, endpoint, path, limit, stream).await?;
                let (line, proof) = introduce(shared, endpoint, path, limit, line).await?;
                return prepare(shared, endpoint, line, proof, v2, reusable).await;
            }
            Ok(Err(error)) => {
                let hint = match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => "; raise the limit of open files (ulimit -n)",
                    Some(libc::EADDRNOTAVAIL) if path.is_some() => {
                        "; the address is not this host's any more, or no local port is free"
                    }
                    Some(libc::EADDRNOTAVAIL) => "; no local port is free",
                    Some(libc::ECONNREFUSED) => "; nobody listens there, the peer is gone or restarted",
                    _ => "",
                };
                last = Some(Error::io(
                    Code::Socket,
                    format!("cannot connect to data port {address}{}{hint}", from(path)),
                    &error,
                ));
            }
            Err(_) => last = Some(no_answer(path, address, limit)),
        }
    }
    let none = || Error::new(Code::Dns, format!("'{}' has no address", endpoint.host));
    Err(last.unwrap_or_else(none).peer(&endpoint.peer))
}

/// Begins TLS, where it is used.
async fn secure(
    shared: &Shared,
    endpoint: &Endpoint,
    path: Option<&Path>,
    limit: Duration,
    stream: Tracked<TcpStream>,
) -> Result<Line> {
    let Some(tls) = &shared.tls else { return Ok(Line::plain(stream)) };
    let failed = |error: &io::Error| {
        Error::io(Code::Socket, "TLS fails on a data connection", error).peer(&endpoint.peer)
    };
    let address = stream.peer_addr().map_err(|e| failed(&e))?;
    let claimed = timeout(limit, tls::stream::claim(tls, Port::Data, &endpoint.host, stream));
    match claimed.await {
        Ok(Ok(line)) => Ok(line),
        // It has hung up, or is about to.
        Ok(Err(tls::stream::Refused::Distrusted(why))) if why.may_be_plain() && !tls.required => {
            Ok(Line::plain(again(path, limit, address).await.map_err(|e| failed(&e))?))
        }
        Ok(Err(tls::stream::Refused::Distrusted(why))) => Err(why.error(&endpoint.peer).peer(&endpoint.peer)),
        Ok(Err(tls::stream::Refused::Io(error))) => Err(failed(&error)),
        Err(_) => Err(no_answer(path, address, limit).peer(&endpoint.peer)),
    }
}

/// Another connection to `address`, whose peer has hung up on the first one.
async fn again(path: Option<&Path>, limit: Duration, address: SocketAddr) -> io::Result<Tracked<TcpStream>> {
    let again = sockets::connect_from(path.map(|path| path.local), address);
    timeout(limit, again).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Has the peer prove the cluster key, where there is one. Returns what has to be sent before the first request.
async fn introduce(
    shared: &Shared,
    endpoint: &Endpoint,
    path: Option<&Path>,
    limit: Duration,
    mut line: Line,
) -> Result<(Line, Option<[u8; PROOF_LEN]>)> {
    let Some(keys) = &shared.keys else { return Ok((line, None)) };
    let failed = |error: &io::Error| {
        Error::io(Code::Socket, "no proof of the cluster key on a data connection", error)
            .peer(&endpoint.peer)
    };
    let address = line.socket().peer_addr().map_err(|e| failed(&e))?;
    let claimed = timeout(limit, claim(keys, &mut line, Purpose::Data, Some(address)));
    match claimed.await.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::ETIMEDOUT).into())) {
        Ok((proof, _)) => Ok((line, Some(proof))),
        // It has hung up.
        Err(Refused::Distrusted(why)) if why.may_be_keyless() && !keys.required => {
            let stream = again(path, limit, address).await.map_err(|e| failed(&e))?;
            Ok((secure(shared, endpoint, path, limit, stream).await?, None))
        }
        Err(Refused::Distrusted(why)) => Err(why.error(&endpoint.peer).peer(&endpoint.peer)),
        Err(Refused::Io(error)) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {
            Err(no_answer(path, address, limit).peer(&endpoint.peer))
        }
        Err(Refused::Io(error)) => Err(distrust(&error, endpoint).unwrap_or_else(|| failed(&error))),
    }
}

async fn prepare(
    shared: &Shared,
    endpoint: &Endpoint,
    mut line: Line,
    proof: Option<[u8; PROOF_LEN]>,
    v2: bool,
    reusable: bool,
) -> Result<Connection> {
    let limit = shared.config.connect_timeout.min(shared.config.tcp_status_timeout).min(ANSWER_LIMIT);
    let failed = |error: &std::io::Error| {
        Error::io(Code::Socket, "cannot prepare a data connection", error).peer(&endpoint.peer)
    };
    line.socket().set_nodelay(true).map_err(|e| failed(&e))?;
    if let Some(proof) = proof {
        let sent = async {
            line.write_all(&proof).await?;
            line.flush().await
        };
        sent.await.map_err(|e| failed(&e))?;
    }
    let mut mark = None;
    if let (true, Some((incarnation, cell))) = (v2 && reusable, endpoint.incarnation) {
        let drawn = Mark::draw(incarnation)?;
        timeout(limit, prove(&mut line, &drawn, cell, endpoint)).await.unwrap_or_else(|_| {
            Err(Error::new(Code::Socket, format!("no answer on the data port within {} s", limit.as_secs()))
                .transient(Class::Timeout)
                .peer(&endpoint.peer))
        })?;
        mark = Some(drawn);
    }
    let (stream, tls) = line.into_parts();
    let stream = stream.map(TcpStream::into_std).map_err(|e| failed(&e))?;
    set_options(&stream, &shared.config, &shared.log);
    let within_host = stays_here(&stream);
    let socket = Socket::new(stream, tls).map_err(|e| failed(&e))?;
    shared.stats.lanes_opened.fetch_add(1, Relaxed);
    let incarnation = endpoint.incarnation.map_or(0, |(id, _)| incarnation::key(&id));
    Ok(Connection { socket, terms: Terms { v2, reusable, incarnation }, mark, within_host, rail: None })
}

/// Reads the 16-byte cell that holds the peer's incarnation id, and compares it with the descriptor's. The request tells the
/// peer the connection's mark.
async fn prove(stream: &mut Line, mark: &Mark, cell: u64, endpoint: &Endpoint) -> Result<()> {
    let header = Header { size: INCARNATION_LEN as u64, addr: cell, op: Op::Read, v2: true };
    let mut reply = [0; STATUS_LEN + INCARNATION_LEN];
    let exchange = async {
        let bytes: [u8; HEADER_LEN] = header.encode_marked(mark.number);
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.read_exact(&mut reply).await
    };
    let outcome = exchange.await;
    if reply[..STATUS_LEN] != REJECTED_FRAME {
        if let Err(error) = outcome {
            if let Some(why) = distrust(&error, endpoint) {
                return Err(why);
            }
            let what = "the peer closed a new data connection; it may be stopping, or have too many (MC_TCP_MAX_INBOUND)";
            return Err(Error::io(Code::Socket, what, &error).peer(&endpoint.peer));
        }
        if reply[..STATUS_LEN] == OK_FRAME && reply[STATUS_LEN..] == mark.incarnation {
            return Ok(());
        }
    }
    let text = "another process listens on the peer's data port: the peer restarted; submit again";
    Err(Error::new(Code::Socket, text).transient(Class::Metadata).peer(&endpoint.peer))
}

/// What TLS says about a failure: a peer tells a moment after the start that it does not take our certificate.
fn distrust(error: &io::Error, endpoint: &Endpoint) -> Option<Error> {
    tls::Distrust::of(error).map(|why| why.error(&endpoint.peer).peer(&endpoint.peer))
}

/// Where an attempt began, for messages.
pub(super) fn from(path: Option<&Path>) -> String {
    path.map(|path| format!(" from {} ({})", path.local, path.device)).unwrap_or_default()
}

pub(super) fn no_answer(path: Option<&Path>, address: SocketAddr, limit: Duration) -> Error {
    let from = from(path);
    let text = format!(
        "no answer from data port {address}{from} within {} s; is the peer stopped? check the route and firewalls \
         (MC_HANDSHAKE_CONNECT_TIMEOUT)",
        limit.as_secs()
    );
    Error::new(Code::Socket, text).transient(Class::Timeout)
}
