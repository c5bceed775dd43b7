//! A small HTTP server on a thread of its own (`mte-metrics`) that only answers `GET`. What a stranger can ask for is bounded:
//! so many connections at once, one request each, within a deadline.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{watch, Semaphore};
use tokio::time::{interval_at, timeout, Instant};

use super::page;
use crate::error::{Code, Error, Result};
use crate::runtime::sockets::{accept, Stream};
use crate::runtime::thread;
use crate::runtime::tracked::Tracked;

/// Connections at once; more wait in the listener's backlog. Chosen: scrapers are few.
const CONNECTIONS: usize = 16;
/// For the head of a request. Chosen: it is one packet, and whoever says nothing must not hold a place for long.
const HEAD_LIMIT: Duration = Duration::from_secs(1);
/// For a whole connection. Chosen: longer than the 10 s after which Prometheus gives up by default.
const LIMIT: Duration = Duration::from_secs(15);
/// Pause after an accept that failed. Chosen: descriptors come back slowly.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a port that was taken is tried again. Chosen: it costs two system calls, and whoever had it is mostly a process that
/// this one follows.
const AGAIN: Duration = Duration::from_secs(1);

/// Where an endpoint listens.
pub enum Place {
    /// It does not.
    Nowhere,
    /// From the beginning.
    Here(Tracked<TcpListener>),
    /// At this address, once it can be had; then the function is told.
    Later(SocketAddr, fn(SocketAddr)),
}

/// Listens at `address`.
pub fn listen(address: SocketAddr) -> io::Result<Tracked<TcpListener>> {
    let listener = Tracked::open(|| TcpListener::bind(address))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What a page says.
pub struct Answer {
    /// 200, or else 503.
    pub ok: bool,
    /// Of the body.
    pub content_type: &'static str,
    /// All of it.
    pub body: String,
    /// Of a page for people: what its style and script are marked with.
    pub nonce: Option<String>,
}

impl Answer {
    /// Data that is there.
    pub fn data(content_type: &'static str, body: String) -> Self {
        Answer { ok: true, content_type, body, nonce: None }
    }
}

/// What is at a path; `None`: 404.
type Pages = Box<dyn Fn(&str) -> Option<Answer> + Send>;

/// Serves until it is dropped.
pub struct Endpoint {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Serves `pages` at `place` to whoever calls it by an address or by one of `names`, and calls `tick` once per `interval`.
    pub fn start(
        place: Place,
        names: Vec<String>,
        interval: Duration,
        tick: Box<dyn Fn() + Send>,
        pages: Pages,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| Error::io(Code::Socket, "no thread for metrics", &error))?;
        let body = move || {
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async {
                let mut stopped = stopped;
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => {}
                    () = ticks(interval, tick) => {}
                    () = serve(place, (names, pages).into()) => {}
                }
            });
        };
        Ok(Endpoint { stop, thread: Some(thread::spawn("mte-metrics", body, || ())?) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // Pages destroy no engine, but the host's logger, which gets a line from this very thread, might.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

async fn ticks(interval: Duration, tick: Box<dyn Fn() + Send>) {
    let mut clock = interval_at(Instant::now() + interval, interval);
    loop {
        clock.tick().await;
        tick();
    }
}

async fn serve(place: Place, served: Rc<(Vec<String>, Pages)>) {
    let listener = match place {
        Place::Nowhere => return std::future::pending().await,
        Place::Here(listener) => listener,
        Place::Later(address, had) => {
            let listener = later(address).await;
            had(address);
            listener
        }
    };
    let listener = match listener.map(tokio::net::TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("metrics are not served: {error}");
            return std::future::pending().await;
        }
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = accept(&listener).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let served = served.clone();
        tokio::task::spawn_local(async move {
            let answer = service_fn(|request| {
                let (names, pages) = &*served;
                let response = respond(&request, names, pages);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(Stream(stream)), answer);
            // A reader's failure is the reader's business.
            let _ = timeout(LIMIT, connection).await;
            drop(place);
        });
    }
}

/// The listener at `address`, once it can be had.
async fn later(address: SocketAddr) -> Tracked<TcpListener> {
    loop {
        tokio::time::sleep(AGAIN).await;
        if let Ok(listener) = listen(address) {
            return listener;
        }
    }
}

fn respond(request: &Request<Incoming>, names: &[String], pages: &Pages) -> Response<Full<Bytes>> {
    let plain = |status, text: &str| {
        let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
        *response.status_mut() = status;
        page::protect(&mut response, None);
        response
    };
    if !page::is_addressed(request.headers(), names) {
        let text = format!("{}, or name it in MC_TE_METRIC_HTTP_NAMES\n", page::NOT_ADDRESSED);
        return plain(StatusCode::FORBIDDEN, &text);
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let Some(answer) = pages(request.uri().path()) else {
        let text =
            "no such page; there are /, /status.json, /metrics, /metrics/json, /metrics/summary, /links and /health\n";
        return plain(StatusCode::NOT_FOUND, text);
    };
    let status = if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = plain(status, &answer.body);
    page::protect(&mut response, answer.nonce.as_deref());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    response
}
