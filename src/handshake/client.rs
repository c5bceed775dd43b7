//! The handshake client: one connection, one request, one reply. Runs on the control thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{timeout_at, Instant};

use super::messages::{ConnectionMessage, Notification};
use super::wire::{self, Broken, ReadLimits};
use crate::cluster_key::stream::{check, claim, Refused};
use crate::cluster_key::{Keys, Label, Purpose, Session};
use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::host_port::HostPort;
use crate::json;
use crate::observe::durations::{self, Timed};
use crate::runtime::aside;
use crate::runtime::resolve::{resolve, Family};
use crate::runtime::sockets;
use crate::runtime::tracked::Tracked;
use crate::tls;
use crate::tls::stream::Line;
use crate::tls::{Port, Tls};

/// Settings of outgoing handshakes; holds no connection.
#[derive(Clone)]
pub struct Client {
    connect_timeout: Duration,
    exchange_timeout: Duration,
    /// Bytes.
    max_reply: usize,
    family: Family,
    /// What this side proves to know, and what a peer has to.
    keys: Option<Arc<Keys>>,
    /// How connections are made secure.
    tls: Option<Arc<Tls>>,
}

impl Client {
    /// A client with the time-outs and the address family of `config`.
    pub fn new(config: &Config) -> Self {
        Client {
            connect_timeout: config.connect_timeout,
            exchange_timeout: config.handshake_timeout,
            max_reply: config.metadata_max_bytes,
            family: Family::of(config),
            keys: Keys::of(config).map(Arc::new),
            tls: Tls::of(config),
        }
    }

    /// Sends `body` with type `kind` to `to` and returns the reply's JSON.
    ///
    /// Tries the addresses of the name one after the other until one accepts the connection. `ERR_DNS` if there is none,
    /// `ERR_SOCKET` if connection or frames fail or the whole takes longer than `MC_HANDSHAKE_TIMEOUT`,
    /// `ERR_MALFORMED_JSON` (and no further address) if the reply is no JSON.
    pub async fn exchange(&self, to: &HostPort, kind: u8, body: &Value) -> Result<Value> {
        let start = Instant::now();
        let peer = to.to_string();
        let answer = self.exchange_until(start + self.exchange_timeout, to, kind, body).await;
        durations::ended(Timed::Handshake, start.into_std(), answer.is_ok());
        answer.map_err(|e| e.context(format_args!("handshake with {peer}")).peer(peer.as_str()))
    }

    /// Fetches the peer's descriptor; JSON null if it has none yet. Errors as `exchange`.
    pub async fn metadata(&self, to: &HostPort, body: &Value) -> Result<Value> {
        self.exchange(to, wire::METADATA, body).await
    }

    /// Delivers `notification`. `ERR_METADATA` if the peer refuses it, `ERR_MEMORY` if it is too large to be copied, else
    /// errors as `exchange`.
    pub async fn notify(&self, to: &HostPort, notification: &Notification) -> Result<()> {
        let reply = self.exchange(to, wire::NOTIFY, &notification.encode()?).await?;
        let reply = Notification::decode(&reply)
            .map_err(|e| e.context(format_args!("reply of {to} to a notification")).peer(to.to_string()))?;
        if reply.message.is_empty() {
            let text =
                format!("{to} refused the notification; its queue may be full, is it being fetched there?");
            return Err(Error::new(Code::Metadata, text).transient(Class::Rejected).peer(to.to_string()));
        }
        Ok(())
    }

    /// Asks the peer to set an RDMA endpoint up. `ERR_REJECT_HANDSHAKE` if it answers JSON null; a reply that gives
    /// a reason for its refusal is returned like any other. Errors as `exchange`.
    pub async fn connection(&self, to: &HostPort, request: &ConnectionMessage) -> Result<ConnectionMessage> {
        let reply = self.exchange(to, wire::CONNECTION, &request.encode()?).await?;
        if reply.is_null() {
            let text = format!(
                "{to} refused the connection without a reason; it has no transport installed yet, or it is upstream \
                 0.3.11 or older and does not know the NIC '{}'",
                request.peer_nic_path
            );
            return Err(Error::new(Code::RejectHandshake, text).peer(to.to_string()));
        }
        ConnectionMessage::decode(&reply).map_err(|e| {
            e.context(format_args!("reply of {to} to a connection request")).peer(to.to_string())
        })
    }

    /// Succeeds if the peer answers at all. Errors as `exchange`.
    pub async fn probe(&self, to: &HostPort) -> Result<()> {
        let empty = Value::Object(serde_json::Map::new());
        self.exchange(to, wire::PROBE, &empty).await.map(drop)
    }

    async fn exchange_until(
        &self,
        deadline: Instant,
        to: &HostPort,
        kind: u8,
        body: &Value,
    ) -> Result<Value> {
        let addresses = timeout_at(deadline, resolve(&to.host, to.port, self.family))
            .await
            .unwrap_or_else(|_| Err(late(Code::Dns, "look up the host name")))?;
        let request = wire::encode(Some(kind), body)?;
        let mut failure = Error::new(Code::Dns, "no address");
        for address in addresses {
            // Only a failed connect moves on: a request that was sent may have been executed.
            match self.connect(deadline, address).await {
                Ok(stream) => {
                    let stream = self.secure(deadline, &to.host, address, stream).await?;
                    let (stream, request, session) =
                        self.introduce(deadline, &to.host, address, stream, request).await?;
                    return self.exchange_with(deadline, address, stream, kind, &request, session).await;
                }
                Err(e) if Instant::now() < deadline => failure = e,
                Err(e) => return Err(e),
            }
        }
        Err(failure)
    }

    async fn connect(&self, deadline: Instant, address: SocketAddr) -> Result<Tracked<TcpStream>> {
        let deadline = deadline.min(Instant::now() + self.connect_timeout);
        timeout_at(deadline, sockets::connect(address)).await.unwrap_or_else(|_| Err(timed_out())).map_err(
            |e| {
                let hint = match e.kind() {
                    io::ErrorKind::ConnectionRefused => {
                        "; nobody listens there: is the port right (getLocalIpAndPort), does the peer run?"
                    }
                    _ => "",
                };
                Error::io(Code::Socket, format!("connect to {address}{hint}"), &e)
            },
        )
    }

    /// Begins TLS, where it is used.
    async fn secure(
        &self,
        deadline: Instant,
        host: &str,
        address: SocketAddr,
        stream: Tracked<TcpStream>,
    ) -> Result<Line> {
        let Some(tls) = &self.tls else { return Ok(Line::plain(stream)) };
        let claimed = timeout_at(deadline, tls::stream::claim(tls, Port::Handshake, host, stream));
        match claimed.await.unwrap_or_else(|_| Err(timed_out().into())) {
            Ok(line) => Ok(line),
            // It has hung up, or is about to.
            Err(tls::stream::Refused::Distrusted(why)) if why.may_be_plain() && !tls.required => {
                Ok(Line::plain(self.connect(deadline, address).await?))
            }
            Err(tls::stream::Refused::Distrusted(why)) => Err(why.error(address)),
            Err(tls::stream::Refused::Io(error)) => {
                Err(Error::io(Code::Socket, format!("TLS with {address}"), &error))
            }
        }
    }

    /// Proves the cluster key, where there is one, and puts the proof before the request and its tag behind it.
    async fn introduce(
        &self,
        deadline: Instant,
        host: &str,
        address: SocketAddr,
        mut stream: Line,
        request: Vec<u8>,
    ) -> Result<(Line, Vec<u8>, Option<Session>)> {
        let Some(keys) = &self.keys else { return Ok((stream, request, None)) };
        let claimed = timeout_at(deadline, claim(keys, &mut stream, Purpose::Handshake, None));
        match claimed.await.unwrap_or_else(|_| Err(timed_out().into())) {
            Ok((proof, session)) => {
                let tag = session.tag(Label::Request, &[&request]);
                Ok((stream, [&proof[..], &request, &tag].concat(), Some(session)))
            }
            // It has hung up.
            Err(Refused::Distrusted(why)) if why.may_be_keyless() && !keys.required => {
                let again = self.connect(deadline, address).await?;
                Ok((self.secure(deadline, host, address, again).await?, request, None))
            }
            Err(Refused::Distrusted(why)) => Err(why.error(address)),
            Err(Refused::Io(error)) => {
                Err(broken(&error, format!("proof of the cluster key by {address}"), address))
            }
        }
    }

    async fn exchange_with(
        &self,
        deadline: Instant,
        address: SocketAddr,
        mut stream: Line,
        kind: u8,
        request: &[u8],
        session: Option<Session>,
    ) -> Result<Value> {
        let sent = async {
            stream.write_all(request).await?;
            stream.flush().await
        };
        timeout_at(deadline, sent)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(|e| refused(&e, format!("send to {address}"), address, request.len()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let limits = ReadLimits { max_length: self.max_reply, read_timeout: left, frame_timeout: left };
        let reply =
            wire::read(&mut stream, &limits).await.map_err(|why| no_reply(why, address, request.len()))?;
        if let Some(session) = session {
            let head = wire::head(reply.kind, reply.body.len());
            let frame: [&[u8]; 2] = [&head, &reply.body];
            let checked = check(&session, &mut stream, Label::Reply, &frame);
            timeout_at(deadline, checked).await.unwrap_or_else(|_| Err(timed_out().into())).map_err(
                |why| match why {
                    Refused::Distrusted(why) => why.error(address),
                    Refused::Io(error) => broken(&error, format!("reply from {address}"), address),
                },
            )?;
        }
        // Upstream serves one connection at a time and waits for us to close.
        drop(stream);
        if reply.kind != Some(kind) {
            let text = match reply.kind {
                Some(other) => format!("reply of type {other} to a request of type {kind} from {address}"),
                None => format!("reply without a type from {address}; is it a handshake port?"),
            };
            return Err(Error::new(Code::Socket, text).permanent(Class::Protocol));
        }
        let parsed = aside::run(reply.body.len(), move || json::parse(&reply.body)).await;
        parsed.map_err(|e| e.context(format_args!("reply from {address}")))
    }
}

fn no_reply(why: Broken, address: SocketAddr, request_len: usize) -> Error {
    let what = format!("reply from {address}");
    match why {
        Broken::Io(e) => refused(&e, what, address, request_len),
        Broken::Slow => late(Code::Socket, what),
        Broken::Memory => Error::out_of_memory("a handshake reply").context(what),
        Broken::Closed => Error::new(Code::Socket, format!("{what}: {why}; {}", refusal(request_len))),
        Broken::Truncated => Error::new(Code::Socket, format!("{what}: {why}; did the peer stop?")),
        Broken::Length(..) | Broken::Kind(_) => {
            let text =
                format!("{what}: {why}; is it a handshake port, and is MC_METADATA_MAX_BYTES large enough?");
            Error::new(Code::Socket, text).permanent(Class::Protocol)
        }
    }
}

/// A socket error; a reset after the connect means that the peer closed with our request unread.
fn refused(error: &io::Error, what: String, address: SocketAddr, request_len: usize) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Error::io(Code::Socket, format!("{what}: {}", refusal(request_len)), error)
        }
        _ => broken(error, what, address),
    }
}

/// A socket error, unless TLS says more: a peer tells a moment after the start that it does not take our certificate.
fn broken(error: &io::Error, what: String, address: SocketAddr) -> Error {
    match tls::Distrust::of(error) {
        Some(why) => why.error(address),
        None => Error::io(Code::Socket, what, error),
    }
}

fn refusal(request_len: usize) -> String {
    format!(
        "the peer closed on the request of {request_len} bytes: it stopped, or the request is over its \
         MC_HANDSHAKE_MAX_LENGTH, or it has too many clients"
    )
}

fn late(code: Code, what: impl std::fmt::Display) -> Error {
    Error::io(code, what, &timed_out())
}

/// With the errno, which a bare `ErrorKind::TimedOut` lacks.
fn timed_out() -> io::Error {
    io::Error::from_raw_os_error(libc::ETIMEDOUT)
}
