//! The handshake daemon: serves every connection in a task of its own, so that a silent client delays nobody.
//! Runs on the control thread until its future is dropped, which ends the connections too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::messages::{probe_reply, ConnectionMessage, Notification};
use super::wire::{self, Frame, ReadLimits};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::json;
use crate::observe::log::RateLimit;
use crate::runtime::sockets::accept;
use crate::runtime::tracked::Tracked;
use crate::runtime::BoxFuture;

/// Wait before the next accept after one that failed for lack of resources. Chosen: a client hardly notices it, and ten
/// attempts a second cost nothing.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Longest wait for the next bytes of a client, and for the client to close; upstream's value.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a whole request or reply. Chosen: the default of `MC_HANDSHAKE_TIMEOUT`, after which a client of
/// this project has given up; a request of 1 MiB makes it at 18 KiB/s.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// What the engine answers. Called on the control thread, so nothing here may block.
pub trait Handler: Send + Sync + 'static {
    /// The local descriptor; `None` (JSON null) while there is none. `request` is whatever JSON the peer sent.
    fn metadata(&self, request: &Value) -> Option<Value>;

    /// Queues `notification`; false if the queue is full or the text too large.
    fn notify(&self, notification: Notification) -> bool;

    /// Sets an RDMA endpoint up; `None` (JSON null) before a transport is installed. The answer may be dropped at
    /// any point: when it is late, and when the engine stops.
    fn connection(&self, request: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>>;
}

/// What one client may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections served at once; more are closed.
    pub max_clients: usize,
    /// Length of a request and how long it may take.
    pub read: ReadLimits,
    /// Longest time until the engine has an answer.
    pub answer_timeout: Duration,
    /// Longest time to hand the reply to the kernel.
    pub write_timeout: Duration,
    /// Longest wait for the client to close after the reply.
    pub close_timeout: Duration,
}

impl Limits {
    /// The limits of `config`, with upstream's 5 s per read and for the close, and 60 s per frame.
    pub fn new(config: &Config) -> Self {
        Limits {
            max_clients: config.handshake_max_clients,
            read: ReadLimits {
                max_length: config.handshake_max_length,
                read_timeout: STEP_TIMEOUT,
                frame_timeout: FRAME_TIMEOUT,
            },
            answer_timeout: FRAME_TIMEOUT,
            write_timeout: FRAME_TIMEOUT,
            close_timeout: STEP_TIMEOUT,
        }
    }
}

/// Answers connections of `listener` for as long as the future is polled; it never completes.
pub async fn serve(listener: Tracked<TcpListener>, handler: Arc<dyn Handler>, limits: Limits) {
    let limits = Arc::new(limits);
    let mut clients = JoinSet::new();
    let log = RateLimit::default();
    loop {
        let accepted = tokio::select! {
            Some(ended) = clients.join_next() => {
                if let Err(e) = ended {
                    tracing::error!("handshake task failed: {e}");
                }
                continue;
            }
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((_, peer)) if clients.len() >= limits.max_clients => {
                if log.admit("handshake clients", "") {
                    let most = limits.max_clients;
                    tracing::warn!(
                        "handshake of {peer} refused: {most} are served already (MC_HANDSHAKE_MAX_CLIENTS)"
                    );
                }
            }
            Ok((stream, peer)) => {
                clients.spawn(client(stream, peer, handler.clone(), limits.clone()));
            }
            Err(e) if only_that_connection(&e) => {}
            Err(e) => {
                if log.admit("handshake accept", "") {
                    tracing::warn!(
                        "handshake port cannot accept: {e}; trying again (file descriptor limit?)"
                    );
                }
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// Whether an accept error concerns a connection that is gone already, not this process.
fn only_that_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn client(
    stream: Tracked<TcpStream>,
    peer: SocketAddr,
    handler: Arc<dyn Handler>,
    limits: Arc<Limits>,
) {
    if let Err(why) = exchange(stream, &*handler, &limits).await {
        tracing::debug!("handshake of {peer} closed: {why}");
    }
}

async fn exchange(mut stream: Tracked<TcpStream>, handler: &dyn Handler, limits: &Limits) -> Result<()> {
    let request = wire::read(&mut *stream, &limits.read)
        .await
        .map_err(|why| Error::new(Code::Socket, format!("request: {why}")))?;
    let answered = timeout(limits.answer_timeout, answer(handler, &request))
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Socket, "the engine has no answer in time")));
    let reply = Frame::of_json(request.kind, &answered?).encode();
    drop(request);
    timeout(limits.write_timeout, stream.write_all(&reply))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .and(stream.shutdown().await)
        .map_err(|e| Error::io(Code::Socket, "send reply", &e))?;
    drop(reply);
    // Closing with bytes of the client unread would reset the connection and may destroy the reply on its way.
    let mut rest = [0; 256];
    let closed = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    timeout(limits.close_timeout, closed)
        .await
        .map_err(|_| Error::new(Code::Socket, "client kept the connection open after the reply"))
}

/// The reply's JSON; an error closes the connection without a reply.
async fn answer(handler: &dyn Handler, request: &Frame) -> Result<Value> {
    let body = json::parse(&request.body)?;
    match request.kind {
        None | Some(wire::CONNECTION) => {
            let request = ConnectionMessage::decode(&body)?;
            Ok(handler.connection(request).await.map_or(Value::Null, |reply| reply.encode()))
        }
        Some(wire::METADATA) => Ok(handler.metadata(&body).unwrap_or(Value::Null)),
        Some(wire::NOTIFY) => Ok(Notification::reply(handler.notify(Notification::decode(&body)?))),
        Some(wire::PROBE) => Ok(probe_reply()),
        Some(other) => Err(Error::new(Code::Socket, format!("unknown message type {other}"))),
    }
}
