//! The handshake daemon: serves every connection in a task of its own, so that a silent client delays nobody.
//! Runs on the control thread until its future is dropped, which ends the connections too.
//!
//! The client closes first. Whoever closes a TCP connection first keeps its port in TIME_WAIT for a minute, in which
//! nobody could bind our port again; so a connection that we have to end is reset, which leaves nothing behind.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout, timeout_at, Instant};

use super::clients::{Clients, Stage};
use super::document::Document;
use super::messages::{probe_reply, ConnectionMessage, Notification};
use super::wire::{self, Frame, ReadLimits};
use crate::cluster_key::stream::{admit, check, Admitted, Refused};
use crate::cluster_key::{refusals, Distrust, Keys, Label, Purpose, Session, PROOF_LEN};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::json;
use crate::observe::log::RateLimit;
use crate::runtime::outstanding::unacknowledged;
use crate::runtime::sockets::accept;
use crate::runtime::tracked::Tracked;
use crate::runtime::{aside, descriptors, BoxFuture};
use crate::tls;
use crate::tls::stream::Line;
use crate::tls::{Port, Tls};

/// Wait before the next accept after one that failed for lack of resources. Chosen: a client hardly notices it, and ten
/// attempts a second cost nothing.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Longest wait for the first or the next bytes of a client, and for it to take bytes of the reply; upstream's value.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a whole request, but for the time that its bytes take at [`REQUEST_RATE`]. Chosen: a request of 1 MiB
/// makes it at 50 KB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Chosen: as `MC_TCP_MIN_RATE`, bytes per second.
const REQUEST_RATE: u64 = 1 << 20;

/// Longest time for the engine's answer, and for a whole reply. Chosen: the default of `MC_HANDSHAKE_TIMEOUT`, after
/// which a client of this project has given up.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait for the client to close after it has the reply. Chosen: upstream's clients and ours close at once, and a
/// packet that was lost is sent again within it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a reply that the kernel keeps for one client that does not read, half of what it makes of it. Chosen: 256
/// such clients hold 64 MiB; a reader that is 10 ms away gets 12 MB/s.
const SEND_BUFFER: usize = 128 << 10;

/// Bytes of a document that are copied behind the head of its frame, so that a short one goes out as one packet.
const FIRST_BYTES: usize = 16 << 10;

/// What the engine answers. Called on the control thread, so nothing here may block.
pub trait Handler: Send + Sync + 'static {
    /// The local descriptor; `None` (JSON null) while there is none. `request` is whatever JSON the peer sent.
    fn metadata(self: Arc<Self>, request: Value) -> BoxFuture<'static, Option<Arc<Document>>>;

    /// Queues `notification`; false if the queue is full or the text too large.
    fn notify(&self, notification: Notification) -> bool;

    /// Sets an RDMA endpoint up; `None` (JSON null) before a transport is installed. The answer may be dropped at
    /// any point: when it is late, and when the engine stops.
    fn connection(&self, request: ConnectionMessage) -> BoxFuture<'_, Option<ConnectionMessage>>;
}

/// What one client may cost.
#[derive(Clone)]
pub struct Limits {
    /// One of them has to be proved before a request is read.
    pub keys: Option<Arc<Keys>>,
    /// How connections are made secure.
    pub tls: Option<Arc<Tls>>,
    /// Connections served at once, half of them from one source; see [`Clients::make_room`] for what happens to more.
    pub max_clients: usize,
    /// Length of a request and how long it may take.
    pub read: ReadLimits,
    /// Longest time until the engine has an answer.
    pub answer_timeout: Duration,
    /// Longest time to hand the reply to the kernel.
    pub write_timeout: Duration,
    /// Longest wait for the client to close after it has the reply.
    pub close_timeout: Duration,
}

impl Limits {
    /// The limits of `config`.
    pub fn new(config: &Config) -> Self {
        let max_length = config.handshake_max_length;
        Limits {
            keys: Keys::of(config).map(Arc::new),
            tls: Tls::of(config),
            max_clients: config.handshake_max_clients,
            read: ReadLimits {
                max_length,
                read_timeout: STEP_TIMEOUT,
                frame_timeout: REQUEST_TIMEOUT + Duration::from_secs(max_length as u64 / REQUEST_RATE),
            },
            answer_timeout: REPLY_TIMEOUT,
            write_timeout: REPLY_TIMEOUT,
            close_timeout: CLOSE_TIMEOUT,
        }
    }
}

/// Answers connections of `listener` for as long as the future is polled; it never completes.
pub async fn serve(listener: Tracked<TcpListener>, handler: Arc<dyn Handler>, limits: Limits) {
    let limits = Arc::new(limits);
    let mut clients = Clients::new(limits.max_clients);
    let log = Arc::new(RateLimit::default());
    loop {
        let accepted = tokio::select! {
            Some(ended) = clients.ended() => {
                if let Some(error) = ended.err().filter(|error| !error.is_cancelled()) {
                    tracing::error!("handshake task failed: {error}");
                }
                continue;
            }
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let is_scarce =
                    descriptors::is_scarce(stream.as_raw_fd()) && clients.len() >= descriptors::FLOOR;
                // Closed by a reset, whenever it is dropped.
                let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                let made_room = clients.make_room(peer.ip()) && (!is_scarce || clients.close_one());
                if made_room {
                    let (handler, limits, log) = (handler.clone(), limits.clone(), log.clone());
                    let must_settle = is_scarce && clients.len() >= descriptors::FLOOR;
                    clients.add(peer.ip(), |stage| async move {
                        if let Some(stream) = settle(stream, must_settle).await {
                            client(stream, peer, stage, handler, limits, &log).await;
                        }
                    });
                } else if log.admit("handshake clients", "") {
                    let served = clients.len();
                    tracing::warn!(
                        "handshake of {peer} refused: {served} are served already (MC_HANDSHAKE_MAX_CLIENTS, ulimit -n)"
                    );
                }
            }
            Err(e) if only_that_connection(&e) => {}
            Err(e) => {
                if log.admit("handshake accept", "") {
                    tracing::warn!(
                        "handshake port cannot accept: {e}; trying again (file descriptor limit?)"
                    );
                }
                clients.close_one();
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// Takes the number of the connection that was closed for this one, where descriptors are scarce; `None` if the host took
/// it.
async fn settle(mut stream: Tracked<TcpStream>, must_settle: bool) -> Option<Tracked<TcpStream>> {
    if must_settle {
        // The other's task ends meanwhile.
        tokio::task::yield_now().await;
        let before = stream.as_raw_fd();
        stream.lower(|stream| TcpStream::from_std(stream.as_fd().try_clone_to_owned()?.into())).ok()?;
        if stream.as_raw_fd() > before {
            return None;
        }
    }
    Some(stream)
}

/// Whether an accept error concerns a connection that is gone already, not this process.
fn only_that_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn client(
    stream: Tracked<TcpStream>,
    peer: SocketAddr,
    stage: Stage,
    handler: Arc<dyn Handler>,
    limits: Arc<Limits>,
    log: &RateLimit,
) {
    if let Err(why) = exchange(stream, &stage, handler, &limits).await {
        if why.code() == Code::RejectHandshake && log.admit("distrusted", &peer.ip().to_string()) {
            tracing::warn!("handshake of {peer} refused: {why}");
        }
        tracing::debug!("handshake of {peer} closed: {why}");
    }
}

async fn exchange(
    stream: Tracked<TcpStream>,
    stage: &Stage,
    handler: Arc<dyn Handler>,
    limits: &Limits,
) -> Result<()> {
    let mut stream = secure(stream, limits).await?;
    let (ahead, session) = match enter(&mut stream, limits).await {
        Ok(Some(Admitted::Member(session))) => (Vec::new(), Some(*session)),
        Ok(Some(Admitted::Keyless(ahead))) => (ahead, None),
        Ok(None) => (Vec::new(), None),
        Err(why) => {
            if matches!(why, Refused::Distrusted(Distrust::OtherKey)) {
                // It was told so, which a reset could overtake.
                let _ = timeout(limits.write_timeout, part(stream, limits.close_timeout)).await;
            }
            return Err(refused(why));
        }
    };
    stage.reading();
    let request = wire::read(&mut (&ahead[..]).chain(&mut stream), &limits.read)
        .await
        .map_err(|why| Error::new(Code::Socket, format!("request: {why}")))?;
    if let Some(session) = &session {
        let head = wire::head(request.kind, request.body.len());
        let frame: [&[u8]; 2] = [&head, &request.body];
        let checked = check(session, &mut stream, Label::Request, &frame);
        let checked = timeout(limits.read.read_timeout, checked).await;
        checked.unwrap_or_else(|_| Err(late())).map_err(refused)?;
    }
    stage.answering();
    let kind = request.kind;
    let answered = timeout(limits.answer_timeout, answer(handler, request))
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Socket, "the engine has no answer in time")));
    let sent = timeout(limits.write_timeout, reply(&mut stream, kind, answered?, session));
    sent.await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|e| Error::io(Code::Socket, "send reply", &e))?;
    stage.closing();
    timeout(limits.write_timeout, part(stream, limits.close_timeout))
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Socket, "client takes the reply too slowly")))
}

/// Begins TLS, where it is used.
async fn secure(stream: Tracked<TcpStream>, limits: &Limits) -> Result<Line> {
    let Some(tls) = &limits.tls else { return Ok(Line::plain(stream)) };
    let _ = stream.set_nodelay(true);
    let admitted = timeout(limits.read.read_timeout, tls::stream::admit(tls, Port::Handshake, stream));
    match admitted.await {
        Ok(Ok(line)) => Ok(line),
        Ok(Err((tls::stream::Refused::Distrusted(why), stream))) => {
            if why != tls::Distrust::Plain {
                // It was told so, which a reset could overtake.
                let _ = timeout(limits.write_timeout, part(Line::plain(stream), limits.close_timeout)).await;
            }
            Err(why.error("the client"))
        }
        Ok(Err((tls::stream::Refused::Io(error), _))) => Err(Error::io(Code::Socket, "TLS", &error)),
        Err(_) => Err(Error::new(Code::Socket, "TLS takes too long")),
    }
}

/// Has the cluster key proved, where there is one.
async fn enter(stream: &mut Line, limits: &Limits) -> std::result::Result<Option<Admitted>, Refused> {
    let Some(keys) = &limits.keys else { return Ok(None) };
    // With a tag a reply is several packets, and the client acknowledges none of them for 40 ms.
    let _ = stream.socket().set_nodelay(true);
    let entered = timeout(limits.read.read_timeout, admit(keys, stream, Purpose::Handshake, None));
    entered.await.unwrap_or_else(|_| Err(late())).map(Some)
}

fn late() -> Refused {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// Counts a client that is not believed.
fn refused(why: Refused) -> Error {
    match why {
        Refused::Distrusted(why) => {
            refusals::note(Purpose::Handshake, why);
            why.error("the client")
        }
        Refused::Io(error) => Error::io(Code::Socket, "proof of the cluster key", &error),
    }
}

/// What is answered.
enum Answer {
    Value(Value),
    Document(Arc<Document>),
}

async fn reply(
    stream: &mut Line,
    kind: Option<u8>,
    answer: Answer,
    session: Option<Session>,
) -> io::Result<()> {
    let document = match answer {
        Answer::Value(value) => {
            let mut frame = wire::encode(kind, &value).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let tag = session.map(|session| session.tag(Label::Reply, &[&frame]));
            frame.extend(tag.into_iter().flatten());
            return send(stream, &frame).await;
        }
        Answer::Document(document) => document,
    };
    let mut begin = wire::head(kind, document.text().len());
    let tag = match session {
        Some(session) => Some(tag_of(session, begin.clone(), document.clone()).await?),
        None => None,
    };
    let text = document.text();
    let _ = SockRef::from(stream.socket()).set_send_buffer_size(SEND_BUFFER);
    let (first, rest) = text.split_at(text.len().min(FIRST_BYTES));
    begin.extend_from_slice(first);
    let mut tag = tag.as_ref().map_or(&[][..], |tag| tag);
    if rest.is_empty() {
        begin.extend_from_slice(std::mem::take(&mut tag));
    }
    let all = async {
        send(stream, &begin).await?;
        send(stream, rest).await?;
        send(stream, tag).await
    };
    tokio::select! {
        sent = all => sent,
        () = document.withdrawn() => Err(io::Error::other("the descriptor was replaced many times meanwhile")),
    }
}

/// The tag of a reply with a document, which may be long.
async fn tag_of(session: Session, head: Vec<u8>, document: Arc<Document>) -> io::Result<[u8; PROOF_LEN]> {
    let bytes = document.text().len();
    let tagged = move || Ok(session.tag(Label::Reply, &[&head, document.text()]));
    aside::run(bytes, tagged).await.map_err(io::Error::other)
}

/// Hands all bytes to the kernel; an error when the client takes none for a while.
async fn send(stream: &mut Line, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let step = timeout(STEP_TIMEOUT, stream.write(bytes)).await;
        match step.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => bytes = &bytes[sent..],
        }
    }
    // With TLS a part of it may still be here.
    let flushed = timeout(STEP_TIMEOUT, stream.flush()).await;
    flushed.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Waits until the client has the reply and closes. An error if it does not, and then the connection is reset.
async fn part(mut stream: Line, close_timeout: Duration) -> Result<()> {
    let mut rest = [0; 256];
    let mut deadline = Instant::now() + close_timeout;
    let mut missing = usize::MAX;
    loop {
        match timeout_at(deadline, stream.read(&mut rest)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break,
            // A reset now would destroy what of the reply is still on its way.
            Err(_) => match unacknowledged(stream.socket().as_raw_fd()) {
                left if left == 0 || left >= missing => {
                    return Err(Error::new(Code::Socket, "client kept the connection open after the reply"))
                }
                left => (missing, deadline) = (left, Instant::now() + close_timeout),
            },
        }
    }
    // It may have closed one direction only, and still read the reply.
    let _ = SockRef::from(stream.socket()).set_linger(None);
    Ok(())
}

/// The reply; an error closes the connection without one.
async fn answer(handler: Arc<dyn Handler>, request: Frame) -> Result<Answer> {
    let Frame { kind, body } = request;
    let parsed = |body: Vec<u8>| aside::run(body.len(), move || json::parse(&body));
    match kind {
        None | Some(wire::CONNECTION) => {
            let request = ConnectionMessage::decode(&parsed(body).await?)?;
            let reply = handler.connection(request).await.map(|reply| reply.encode()).transpose()?;
            Ok(Answer::Value(reply.unwrap_or(Value::Null)))
        }
        Some(wire::METADATA) => {
            let document = handler.metadata(parsed(body).await?).await;
            Ok(document.map_or(Answer::Value(Value::Null), Answer::Document))
        }
        Some(wire::NOTIFY) => {
            let accepted = match parsed(body).await.and_then(|body| Notification::decode(&body)) {
                Ok(notification) => handler.notify(notification),
                // For the sender it is the same as a queue that is full.
                Err(error) if error.code() == Code::Memory => false,
                Err(error) => return Err(error),
            };
            Ok(Answer::Value(Notification::reply(accepted)))
        }
        Some(wire::PROBE) => {
            // Nothing of it is used, but what is no JSON is not answered.
            parsed(body).await?;
            Ok(Answer::Value(probe_reply()))
        }
        Some(other) => Err(Error::new(Code::Socket, format!("unknown message type {other}"))),
    }
}
