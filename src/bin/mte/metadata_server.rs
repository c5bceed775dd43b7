//! The HTTP metadata store: `GET`, `PUT` and `DELETE` of `/metadata?key=<key>`, in memory, and `/health`. Answers like upstream's
//! servers; in addition keys expire if whoever writes them asks for it, a file keeps them over a restart, and a page at `/` shows
//! them to people.

mod budget;
mod clients;
mod facts;
mod journal;
mod pages;
mod status;
mod table;

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{HeaderValue, AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use transfer_engine::{descriptor_limit, http_token, EXPIRE_HEADER, KEYS_PATH};

use budget::Share;
use clients::{Activity, Clients};
use pages::Pages;
use table::{Table, Wrote};

/// Longest time for the head of a request; hyper's default.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Longest time for its body. Chosen: the largest value by default, 128 MiB, makes it at 2.2 MB/s.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// How often the connections are looked through for answers that nobody reads. Chosen: often beside [`BODY_LIMIT`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after an accept that failed although nothing could be closed. Chosen: a client hardly notices it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A failure to accept is printed once in this time. Chosen: as the library's log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Descriptors kept for the file, the listener and the standard streams, with some to spare.
const OWN_DESCRIPTORS: usize = 32;

/// How it is started.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// File that keeps the keys over a restart
    #[arg(long)]
    file: Option<PathBuf>,
    /// Largest value accepted, bytes; a larger one is answered 413
    #[arg(long, default_value_t = 128 << 20)]
    max_value: usize,
    /// Memory for all keys and values, bytes; a value beyond it is answered 507
    #[arg(long, default_value_t = 1 << 30)]
    max_total: usize,
    /// Token that every request has to bring (`Authorization: Bearer TOKEN`). Others see it in the list of processes, so
    /// rather set MC_METADATA_HTTP_TOKEN, which is used if this is not given
    #[arg(long)]
    token: Option<String>,
    /// Connections at once, or fewer where the limit of descriptors is low; then the one that has been idle longest goes
    #[arg(long, default_value_t = 1024)]
    max_connections: usize,
    /// Name by which the status page may be called, besides addresses, localhost and this host's own name; if it is given, requests for
    /// keys have to use one of these too. May be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
}

/// Serves until the process ends. Prints `LISTENING host:port` once it does.
pub(crate) fn run(arguments: Arguments) -> std::io::Result<()> {
    let table = Arc::new(Mutex::new(Table::open(arguments.file, arguments.max_total)?));
    let is_set = std::env::var_os("MC_METADATA_HTTP_TOKEN").is_some();
    let token = arguments.token.or_else(|| is_set.then(|| http_token().unwrap_or_default()));
    let carried =
        |token: &String| token.trim() == token && token.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if token.as_ref().is_some_and(|token| token.is_empty() || !carried(token)) {
        // An empty one most likely comes from a variable that is not set: to serve everybody then is not what was meant.
        let text = "the token is empty, or a header cannot carry it: use visible characters of ASCII";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    let most = arguments.max_connections.min(descriptor_limit().saturating_sub(OWN_DESCRIPTORS));
    let limits = status::Limits {
        max_value: arguments.max_value,
        connections: most,
        is_open: token.is_none() && !arguments.listen.ip().is_loopback(),
    };
    let pages = Pages::new(limits, arguments.host);
    let store = Arc::new(Store { table, max_value: arguments.max_value, token, pages });
    if store.token.is_none() && !arguments.listen.ip().is_loopback() {
        // Not refused: networks that are closed to strangers run without.
        eprintln!(
            "mte: whoever reaches {} may read and change every key; set MC_METADATA_HTTP_TOKEN",
            arguments.listen
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await?;
        println!("LISTENING {}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let mut clients = Clients::new(most);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut printed: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = sweep.tick() => {
                    clients.close_late();
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    let activity = Activity::new();
                    let task = tokio::spawn(serve(stream, store.clone(), activity.clone()));
                    clients.add(peer.ip(), activity, task.abort_handle());
                }
                Err(error) => {
                    // Out of descriptors, most likely.
                    if printed.is_none_or(|then| then.elapsed() >= LOG_INTERVAL) {
                        eprintln!("mte: accept: {error}");
                        printed = Some(Instant::now());
                    }
                    clients.close_one();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// What is served, and to whom.
struct Store {
    table: Arc<Mutex<Table>>,
    max_value: usize,
    /// What requests have to bring.
    token: Option<String>,
    /// What people look at.
    pages: Pages,
}

impl Store {
    /// Compares as long as the token is, wherever the first difference is.
    fn admits(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = request.headers().get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        // The name of the scheme ignores case (RFC 9110, section 11.1).
        let (scheme, given) = given.split_at_checked(7).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return false;
        }
        let differs = |(at, byte): (usize, u8)| given.get(at).map_or(1, |other| other ^ byte);
        given.len() == token.len()
            && token.bytes().enumerate().map(differs).fold(0, |all, one| all | one) == 0
    }
}

/// Serves one connection to its end. A client's failure is the client's business.
async fn serve(stream: TcpStream, store: Arc<Store>, activity: Activity) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| {
        let (store, activity) = (store.clone(), activity.clone());
        async move {
            activity.serving();
            let answered = answer(request, &store).await.unwrap_or_else(|refusal| refusal);
            Ok::<_, Infallible>(answered.map(|body| Full::new(activity.answering(body))))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), answer);
    drop(connection.await);
}

type Answer = Response<Bytes>;

async fn answer(request: Request<Incoming>, store: &Store) -> Result<Answer, Answer> {
    let Store { table, max_value, pages, .. } = store;
    if request.uri().path() == "/health" {
        // For probes, which have no token. It takes the lock that every request takes: if that is stuck, so is this.
        drop(table.lock());
        return Ok(plain(StatusCode::OK, "ok\n"));
    }
    if !pages.is_addressed(&request) {
        drain(request).await;
        return Err(pages::not_addressed());
    }
    let is_admitted = store.admits(&request);
    // The page itself says nothing to whoever has no token, but asks for it.
    if request.uri().path() == "/" && matches!(*request.method(), Method::GET | Method::HEAD) {
        return pages.page(if is_admitted { Some(table) } else { None }).await;
    }
    if !is_admitted {
        drain(request).await;
        let mut answer = plain(StatusCode::UNAUTHORIZED, "unauthorized: bring the server's token");
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Err(answer);
    }
    if request.uri().path() == "/status.json" && *request.method() == Method::GET {
        return pages.data(table).await;
    }
    if request.uri().path() == KEYS_PATH && *request.method() == Method::GET {
        return Ok(pages::keys(table, &member(request.uri().query(), "prefix").unwrap_or_default()));
    }
    if request.uri().path() != "/metadata" {
        let text = "no such path; the store is at /metadata, a page about it at /, its keys at /keys, and /health is for probes";
        return Err(plain(StatusCode::NOT_FOUND, text));
    }
    let key = member(request.uri().query(), "key")
        .filter(|key| !key.is_empty())
        .ok_or_else(|| plain(StatusCode::BAD_REQUEST, "the query has no key"))?;
    match *request.method() {
        Method::GET => match table.lock().get(&key) {
            Some(value) => Ok(Response::new(value)),
            None => Err(plain(StatusCode::NOT_FOUND, "metadata not found")),
        },
        Method::PUT => {
            let life =
                request.headers().get(EXPIRE_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
            let value = timeout(BODY_LIMIT, receive(request.into_body(), &key, table, *max_value)).await;
            let value = value.unwrap_or(Err(TOO_SLOW)).map_err(|(status, text)| plain(status, text))?;
            let mut answer = match table.lock().put(&key, value, life.map(Duration::from_secs)) {
                Ok(Wrote::Done) => plain(StatusCode::OK, "metadata updated"),
                Ok(Wrote::Exists) => plain(StatusCode::BAD_REQUEST, "the key exists with another value"),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("not kept: {error}")),
            };
            if let Some(seconds) = life {
                answer.headers_mut().insert(EXPIRE_HEADER, HeaderValue::from(seconds));
            }
            Ok(answer)
        }
        Method::DELETE => match table.lock().remove(&key) {
            Ok(true) => Ok(plain(StatusCode::OK, "metadata deleted")),
            Ok(false) => Err(plain(StatusCode::NOT_FOUND, "metadata not found")),
            Err(error) => Err(plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("not kept: {error}"))),
        },
        _ => Err(plain(StatusCode::METHOD_NOT_ALLOWED, "use GET, PUT or DELETE")),
    }
}

/// Reads what comes with a request that is refused: closing before that would reset the connection under the answer.
async fn drain(request: Request<Incoming>) {
    let read = async {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    };
    let _ = timeout(BODY_LIMIT, read).await;
}

/// Why a value is not taken.
type Refusal = (StatusCode, &'static str);

const TOO_SLOW: Refusal = (StatusCode::REQUEST_TIMEOUT, "the value took too long");
const TOO_LARGE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "the value is too large (--max-value)");
const FULL: Refusal = (StatusCode::INSUFFICIENT_STORAGE, "the store is full (--max-total)");

/// Takes the value for `key` from a body, within the limits for one value and for all.
async fn receive(
    mut body: Incoming,
    key: &str,
    table: &Mutex<Table>,
    max_value: usize,
) -> Result<Bytes, Refusal> {
    let mut value = Vec::new();
    let mut begun: Result<Share, Refusal> = if body.size_hint().lower() > max_value as u64 {
        Err(TOO_LARGE)
    } else {
        table.lock().share(key).ok_or(FULL)
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the value broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        // A body that is refused is read to its end: closing before that would reset the connection under the answer.
        let Ok(share) = &mut begun else { continue };
        if data.len() > max_value - value.len() {
            begun = Err(TOO_LARGE);
        } else if !table.lock().grow(share, data.len()) || value.try_reserve(data.len()).is_err() {
            begun = Err(FULL);
        } else {
            value.extend_from_slice(&data);
            continue;
        }
        value = Vec::new();
    }
    value.shrink_to_fit();
    begun.map(|share| share.hold(value))
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Bytes::copy_from_slice(text.as_bytes()));
    *answer.status_mut() = status;
    answer
}

/// A member of a query, decoded; `None` if it is missing or not UTF-8.
fn member(query: Option<&str>, name: &str) -> Option<String> {
    let text = query?.split('&').find_map(|member| member.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let escaped = || u8::from_str_radix(std::str::from_utf8(behind.get(..2)?).ok()?, 16).ok();
        match byte {
            b'%' => match escaped() {
                Some(value) => {
                    bytes.push(value);
                    rest = &behind[2..];
                }
                None => bytes.push(b'%'),
            },
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded() {
        for (query, key) in [
            ("key=a", Some("a")),
            ("x=1&key=mooncake%2Fram%2Fh%3A1", Some("mooncake/ram/h:1")),
            ("key=a+b%20c%zz%4", Some("a b c%zz%4")),
            ("key=%ff", None),
            ("keys=a", None),
            ("", None),
        ] {
            assert_eq!(member(Some(query), "key").as_deref(), key, "{query}");
        }
    }
}
