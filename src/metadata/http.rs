//! The HTTP store: `GET`, `PUT` and `DELETE` of `<base>?key=<key>`, as upstream's three servers answer them. There is
//! no compare-and-set, so ownership is best effort.

mod connection;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderValue, ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE};
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;

use super::backend::{cannot_list, late, refused, too_large, unreachable, Backend, Entry, Put, Version};
use super::http_date;
use super::keyed::Keyed;
use super::keys::percent_encoded;
use super::store::{Own, Store};
use crate::config::{Config, Secret};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;
use connection::Connections;

/// Longest time for one request, upstream's value.
const REQUEST_LIMIT: Duration = Duration::from_secs(3);
/// How long a key counts as this engine's own, without another reading, after it was seen to be. Chosen: half a second,
/// because whoever takes a name over first waits a second for its owner, so nobody else can have it yet.
const TRUST: Duration = Duration::from_millis(500);
/// Header that asks for expiry after so many seconds; a server that can do it sends the header back.
pub const EXPIRE_HEADER: &str = "mte-expire-seconds";
/// Path of the keys that our server has, with `?prefix=`; Mooncake's servers have none.
pub const KEYS_PATH: &str = "/keys";
/// Largest value that upstream's server takes (observed), for a text.
const USUAL_LIMIT: &str = "the wheel's server takes 1048576 bytes";

/// Opens `http://…` or `https://…`.
pub(super) fn open(connection: &str, config: &Config, own: Own) -> Result<Arc<dyn Store>> {
    let backend = Http {
        base: connection.to_string(),
        connections: Connections::new(connection, config)?,
        authorization: authorization(config)?,
        limit: REQUEST_LIMIT.min(config.metadata_timeout),
        most_bytes: config.metadata_max_bytes,
        ttl_secs: config.metadata_ttl.as_secs(),
        expires: AtomicBool::new(false),
        clock_secs: AtomicU64::new(0),
        verified: Mutex::default(),
    };
    Ok(Arc::new(Keyed::new(Arc::new(backend), 1, config, own)))
}

/// What proves to the server that we may use it.
fn authorization(config: &Config) -> Result<Option<HeaderValue>> {
    let Some(Secret(token)) = &config.metadata_http_token else { return Ok(None) };
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    // Not repeated: it is a secret.
    let mut value = value.map_err(|_| {
        Error::invalid(
            "MC_METADATA_HTTP_TOKEN has characters that a header cannot hold, such as a line break",
        )
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

struct Http {
    base: String,
    connections: Connections,
    authorization: Option<HeaderValue>,
    limit: Duration,
    /// Bytes of one answer.
    most_bytes: usize,
    ttl_secs: u64,
    /// The server lets keys expire when it is asked to.
    expires: AtomicBool,
    /// Its clock at the last answer, seconds since 1970; 0: it does not tell.
    clock_secs: AtomicU64,
    /// When each own key was last seen to be ours.
    verified: Mutex<HashMap<String, Instant>>,
}

impl Http {
    async fn send(&self, method: Method, key: &str, body: Option<Arc<[u8]>>) -> Result<(StatusCode, Bytes)> {
        let target = self.connections.target(&format!("?key={}", percent_encoded(key)));
        self.send_to(target, method, body).await
    }

    async fn send_to(
        &self,
        target: String,
        method: Method,
        body: Option<Arc<[u8]>>,
    ) -> Result<(StatusCode, Bytes)> {
        let exchange = tokio::time::timeout(self.limit, self.exchange(method.clone(), target, body));
        let outcome = exchange.await.unwrap_or_else(|_| Err(late(self.limit)));
        outcome.map_err(|e| e.context(format_args!("{method} {}", self.base)).peer(self.connections.peer()))
    }

    async fn exchange(
        &self,
        method: Method,
        target: String,
        body: Option<Arc<[u8]>>,
    ) -> Result<(StatusCode, Bytes)> {
        let request = || {
            let body = body.as_ref().map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body));
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = target.parse().map_err(|e| refused(format!("'{target}' is no URI: {e}")))?;
            let headers = request.headers_mut();
            headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
            if let Some(authorization) = &self.authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            if method == Method::PUT {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(EXPIRE_HEADER, HeaderValue::from(self.ttl_secs));
            }
            Ok(request)
        };
        let (sender, response) = self.connections.exchange(request).await?;
        let (parts, body) = response.into_parts();
        if parts.headers.contains_key(EXPIRE_HEADER) {
            self.expires.store(true, Relaxed);
        }
        let date = parts.headers.get(DATE).and_then(|date| http_date::parse(date.to_str().ok()?));
        self.clock_secs.store(date.unwrap_or(0), Relaxed);
        let body = Limited::new(body, self.most_bytes).collect().await;
        let body = body.map_err(|e| match e.is::<LengthLimitError>() {
            true => too_large(self.most_bytes),
            false => unreachable(format!("the answer broke off: {e}")),
        })?;
        let body = body.to_bytes();
        self.connections.keep(sender);
        Ok((parts.status, body))
    }

    async fn read(&self, key: &str) -> Result<Option<Entry>> {
        match self.send(Method::GET, key, None).await? {
            (StatusCode::OK, body) => {
                let value = Vec::from(body);
                let version = Version::Content(value.as_slice().into());
                Ok(Some(Entry { value, version }))
            }
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(self.unexpected("GET", status, &body)),
        }
    }

    /// The keys that begin with `prefix`, from our server. Mooncake's have no such path.
    async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let target =
            self.connections.other_target(&format!("{KEYS_PATH}?prefix={}", percent_encoded(prefix)));
        match self.send_to(target, Method::GET, None).await? {
            (StatusCode::OK, body) => serde_json::from_slice(&body)
                .map_err(|e| refused(format!("the keys of {} are no array of texts: {e}", self.base))),
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST, _) => {
                Err(cannot_list("a store of kind http other than mte metadata-server"))
            }
            (StatusCode::FORBIDDEN, body) if self.authorization.is_none() => {
                let body = String::from_utf8_lossy(&body[..body.len().min(400)]);
                Err(refused(format!("GET {KEYS_PATH} of {}: {}", self.base, body.trim())))
            }
            (status, body) => Err(self.unexpected("GET", status, &body)),
        }
    }

    /// Writes a key. `false`: it exists, and the server does not replace it (status 400).
    async fn write(&self, key: &str, value: &Arc<[u8]>) -> Result<bool> {
        match self.send(Method::PUT, key, Some(value.clone())).await? {
            (StatusCode::OK, _) => Ok(true),
            (StatusCode::BAD_REQUEST, _) if key.contains("rpc_meta") => Ok(false),
            (StatusCode::PAYLOAD_TOO_LARGE, _) => Err(refused(format!(
                "the value of {} bytes is too large for the server ({USUAL_LIMIT}); register fewer, larger buffers",
                value.len()
            ))),
            (status, body) => Err(self.unexpected("PUT", status, &body)),
        }
    }

    async fn remove(&self, key: &str) -> Result<()> {
        match self.send(Method::DELETE, key, None).await? {
            (StatusCode::OK | StatusCode::NOT_FOUND, _) => Ok(()),
            (status, body) => Err(self.unexpected("DELETE", status, &body)),
        }
    }

    fn unexpected(&self, method: &str, status: StatusCode, body: &[u8]) -> Error {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let why = match self.authorization {
                Some(_) => "does not take the token in MC_METADATA_HTTP_TOKEN",
                None => "asks for a token; set MC_METADATA_HTTP_TOKEN",
            };
            let text = format!("{method} {}: status {status}: the server {why}", self.base);
            return refused(text).peer(self.connections.peer());
        }
        let body = String::from_utf8_lossy(&body[..body.len().min(200)]);
        let text =
            format!("{method} {}: status {status} ({}); is it the metadata server?", self.base, body.trim());
        if status.is_server_error() { unreachable(text) } else { refused(text) }.peer(self.connections.peer())
    }

    fn note(&self, key: &str) {
        self.verified.lock().insert(key.to_string(), Instant::now());
    }

    fn is_trusted(&self, key: &str) -> bool {
        self.verified.lock().get(key).is_some_and(|at| at.elapsed() < TRUST)
    }

    async fn put_over(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> Result<Put> {
        let done = |content: &[u8]| Ok(Put::Done(Version::Content(content.into())));
        if over.is_none() || !self.is_trusted(&key) {
            match (self.read(&key).await?, &over) {
                (None, _) => {}
                (Some(entry), Some(over)) if entry.version == *over => {}
                _ => return Ok(Put::Lost),
            }
        }
        if self.write(&key, &value).await? {
            self.note(&key);
            return done(&value);
        }
        // The server refuses to replace the key: it may have it from an attempt whose answer was lost.
        let Some(entry) = self.read(&key).await? else { return Ok(Put::Lost) };
        if entry.value == *value {
            self.note(&key);
            return done(&value);
        }
        if over != Some(entry.version) {
            return Ok(Put::Lost);
        }
        self.remove(&key).await?;
        if !self.write(&key, &value).await? {
            return Ok(Put::Lost);
        }
        self.note(&key);
        done(&value)
    }
}

impl Backend for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn ends_in_newline(&self) -> bool {
        false
    }

    fn clock_secs(&self) -> Option<u64> {
        Some(self.clock_secs.load(Relaxed)).filter(|secs| *secs != 0)
    }

    fn get(&self, key: String, _: bool) -> BoxFuture<'_, Result<Option<Entry>>> {
        Box::pin(async move { self.read(&key).await })
    }

    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move { self.keys(&prefix).await })
    }

    fn put(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> BoxFuture<'_, Result<Put>> {
        Box::pin(self.put_over(key, value, over))
    }

    fn delete(&self, key: String, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            if !self.is_trusted(&key) {
                match self.read(&key).await? {
                    Some(entry) if entry.version == version => {}
                    Some(_) => return Ok(false),
                    None => return Ok(true),
                }
            }
            self.remove(&key).await.map(|()| true)
        })
    }

    fn keep(&self, key: String, value: Arc<[u8]>, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            if !self.read(&key).await?.is_some_and(|entry| entry.version == version) {
                return Ok(false);
            }
            self.note(&key);
            if self.expires.load(Relaxed) {
                return self.write(&key, &value).await;
            }
            Ok(true)
        })
    }
}
