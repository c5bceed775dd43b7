//! Connections to the HTTP store: made when needed, kept while idle, closed in forked children.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{handshake, SendRequest};
use hyper::header::{HeaderValue, HOST};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::metadata::backend::{unreachable, with_causes};
use crate::metadata::tls::Tls;
use crate::runtime::resolve::{resolve, Family};
use crate::runtime::sockets::{connect, Stream};

/// Longest connect, per address; upstream's value.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// Idle connections kept. Chosen: as many as the descriptors that an engine reads at once in the background.
const MAX_IDLE: usize = 8;

/// A connection that can send.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Connections to one server.
pub(super) struct Connections {
    /// `host:port` as the URL has it.
    authority: HeaderValue,
    /// What stands before the query; the whole URL for a proxy.
    prefix: String,
    /// As `prefix`, without the path.
    root: String,
    /// The server, or the proxy.
    address: HostPort,
    tls: Option<Tls>,
    /// Guards the idle connections; never held across I/O.
    idle: Mutex<Vec<Sender>>,
}

impl Connections {
    /// Connections for the base URL; `ERR_INVALID_ARGUMENT` if it is none.
    pub(super) fn new(url: &str, config: &Config) -> Result<Self> {
        let uri = parse(url)?;
        let server = address(&uri, url)?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut made = Connections {
            authority: HeaderValue::from_str(authority).map_err(|e| Error::invalid(format!("{url}: {e}")))?,
            prefix: path.to_string(),
            root: String::new(),
            address: server.clone(),
            tls: None,
            idle: Mutex::default(),
        };
        if uri.scheme_str() == Some("https") {
            made.tls = Some(Tls::new(&server, url, config)?);
        }
        if let Some(proxy) = &config.metadata_http_proxy {
            if made.tls.is_some() {
                return Err(Error::invalid(
                    "MC_METADATA_HTTP_PROXY works with http:// only; unset it for https://",
                ));
            }
            made.root = format!("http://{authority}");
            made.prefix = format!("{}{path}", made.root);
            made.address = address(&parse(proxy)?, proxy)?;
        }
        Ok(made)
    }

    /// What is connected to, for messages.
    pub(super) fn peer(&self) -> String {
        self.address.to_string()
    }

    /// The request target for a query, which begins with `?`.
    pub(super) fn target(&self, query: &str) -> String {
        format!("{}{query}", self.prefix)
    }

    /// The request target for another path of the server.
    pub(super) fn other_target(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// Sends the request over an idle connection, or a new one if there is none or the server has closed it.
    pub(super) async fn exchange(
        &self,
        request: impl Fn() -> Result<Request<Full<Bytes>>>,
    ) -> Result<(Sender, Response<Incoming>)> {
        let request = || {
            request().map(|mut request| {
                request.headers_mut().insert(HOST, self.authority.clone());
                request
            })
        };
        let idle = self.idle.lock().pop();
        if let Some(mut sender) = idle.filter(|sender| !sender.is_closed()) {
            if let Ok(response) = sender.send_request(request()?).await {
                return Ok((sender, response));
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request()?).await;
        let response = response.map_err(|e| unreachable(format!("no answer: {}", with_causes(&e))))?;
        Ok((sender, response))
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> Result<Sender> {
        let stream = self.reach().await?;
        match &self.tls {
            None => start(stream).await,
            Some(tls) => start(tls.connect(stream, &self.address).await?).await,
        }
    }

    async fn reach(&self) -> Result<Stream> {
        let resolved = resolve(&self.address.host, self.address.port, Family::Any).await;
        let resolved = resolved.map_err(|e| unreachable(e.text().to_string()))?;
        let mut failed = unreachable(format!("{} has no address", self.address));
        for address in resolved {
            match timeout(CONNECT_LIMIT, connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(Stream(stream));
                }
                Ok(Err(error)) => failed = unreachable(format!("connect to {address}: {error}")),
                Err(_) => failed = unreachable(format!("connect to {address}: no answer")),
            }
        }
        Err(failed)
    }
}

async fn start(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender> {
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(with_causes(&e)))?;
    // Ends when the sender is dropped or the server closes; the request gets the error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn parse(url: &str) -> Result<Uri> {
    url.parse().map_err(|e| malformed(url, format!("'{url}' is no URL: {e}")))
}

/// The error for a URL; a text that repeats a part of it is left out where it may hold a password, wherever that is.
fn malformed(url: &str, text: String) -> Error {
    match url.contains('@') {
        true => Error::invalid("the URL of the store has a login, which is not supported; remove it"),
        false => Error::invalid(text),
    }
}

fn address(uri: &Uri, url: &str) -> Result<HostPort> {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if authority.contains('@') {
        return Err(malformed(url, String::new()));
    }
    if host.is_empty() {
        let text = format!("'{url}' has no host; it should be http://host:port/metadata");
        return Err(malformed(url, text));
    }
    let behind = authority.strip_prefix(uri.host().unwrap_or_default());
    let port = match behind.map(|text| text.strip_prefix(':').unwrap_or(text)) {
        Some("") => Some(usual),
        Some(digits) => digits.parse().ok().filter(|port| *port != 0),
        None => None,
    };
    let port =
        port.ok_or_else(|| malformed(url, format!("'{url}': '{authority}' is not host or host:port")))?;
    Ok(HostPort { host: host.to_string(), port })
}

#[cfg(test)]
mod random;
