//! The HTTP metadata store: `GET`, `PUT` and `DELETE` of `/metadata?key=<key>`, in memory. Answers like upstream's
//! servers; in addition keys expire if whoever writes them asks for it, and a file keeps them over a restart.

mod table;

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::timeout;
use transfer_engine::EXPIRE_HEADER;

use table::{Table, Wrote};

/// Longest time for the head of a request; hyper's default.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Longest time for its body. Chosen: the largest value by default, 128 MiB, makes it at 2.2 MB/s.
const BODY_LIMIT: Duration = Duration::from_secs(60);

/// How it is started.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// File that keeps the keys over a restart
    #[arg(long)]
    file: Option<PathBuf>,
    /// Largest value accepted, bytes
    #[arg(long, default_value_t = 128 << 20)]
    max_value: usize,
}

/// Serves until the process ends. Prints `LISTENING host:port` once it does.
pub(crate) fn run(arguments: Arguments) -> std::io::Result<()> {
    let table = Arc::new(Mutex::new(Table::open(arguments.file)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await?;
        println!("LISTENING {}", listener.local_addr()?);
        std::io::stdout().flush()?;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: those in use come back.
                    eprintln!("mte: accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let table = table.clone();
            let answer = service_fn(move |request| answer(request, table.clone(), arguments.max_value));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .serve_connection(TokioIo::new(stream), answer);
            // A client's failure is the client's business.
            tokio::spawn(async move { drop(connection.await) });
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    table: Arc<Mutex<Table>>,
    max_value: usize,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(serve(request, &table, max_value).await.unwrap_or_else(|refusal| refusal))
}

type Answer = Response<Full<Bytes>>;

async fn serve(request: Request<Incoming>, table: &Mutex<Table>, max_value: usize) -> Result<Answer, Answer> {
    if request.uri().path() != "/metadata" {
        return Err(plain(StatusCode::NOT_FOUND, "no such path; the store is at /metadata"));
    }
    let key = key_of(request.uri().query().unwrap_or_default())
        .filter(|key| !key.is_empty())
        .ok_or_else(|| plain(StatusCode::BAD_REQUEST, "the query has no key"))?;
    match *request.method() {
        Method::GET => match table.lock().get(&key) {
            Some(value) => Ok(Response::new(Full::new(value))),
            None => Err(plain(StatusCode::NOT_FOUND, "metadata not found")),
        },
        Method::PUT => {
            let life =
                request.headers().get(EXPIRE_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = timeout(BODY_LIMIT, Limited::new(request.into_body(), max_value).collect()).await;
            let value = body
                .map_err(|_| plain(StatusCode::REQUEST_TIMEOUT, "the value took too long"))?
                .map_err(|_| plain(StatusCode::PAYLOAD_TOO_LARGE, "the value is too large, or broke off"))?
                .to_bytes();
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

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}

/// The member `key` of a query, decoded; `None` if it is missing or not UTF-8.
fn key_of(query: &str) -> Option<String> {
    let text = query.split('&').find_map(|member| member.strip_prefix("key="))?;
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
            assert_eq!(key_of(query).as_deref(), key, "{query}");
        }
    }
}
