//! The etcd store: writes are transactions, keys hang on a lease that the engine keeps alive, and one stream carries a
//! watch per open segment. Each endpoint has a client of its own: etcd-client spreads requests over its endpoints and
//! fails those that meet a dead one.

mod watch;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Identity, PutOptions, TlsOptions, Txn, TxnOp,
};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::backend::{
    causes, late, refused, unreachable, with_causes, Backend, Entry, Put, Seen, Version, Watch,
};
use super::keyed::Keyed;
use super::store::{Own, Store};
use super::tls::Files;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::host_port;
use crate::runtime::{blocking, BoxFuture};
use watch::Watches;

/// Port of endpoints that name none: etcd's port for clients.
const DEFAULT_PORT: u16 = 2379;
/// Shortest time that one endpoint gets for an answer, however many share the time of an operation. Chosen: far above a
/// round trip and a write to disk, so that an endpoint that works is not given up.
const MIN_ATTEMPT: Duration = Duration::from_millis(500);
/// What an answer has beside the value, bytes. Chosen: far more than key and revisions take.
const ENVELOPE: usize = 64 << 10;
/// Status codes of gRPC, by its specification; the next six too.
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNAUTHENTICATED: i32 = 16;

/// Opens `etcd://a:2379,b:2379`, or the same without the scheme.
pub(super) fn open(connection: &str, config: &Config, own: Own) -> Result<Arc<dyn Store>> {
    let list = connection.strip_prefix("etcd://").unwrap_or(connection);
    let files = Files::read(config)?;
    let endpoints = list.split([',', ';']).map(str::trim).filter(|text| !text.is_empty());
    let mut made = Vec::new();
    // As a whole, because a password may hold what separates endpoints. It is refused.
    if list.contains('@') {
        endpoint(list, &files)?;
    }
    for text in endpoints {
        made.push(endpoint(text, &files)?);
    }
    if made.is_empty() {
        return Err(Error::invalid(format!(
            "metadata store '{connection}' names no endpoint; it should be etcd://host:port,host:port"
        )));
    }
    let count = made.len();
    let limit = config.metadata_timeout;
    let mut options = ConnectOptions::new().with_require_leader(true).with_connect_timeout(limit);
    // An endpoint that vanished is noticed although nothing is sent to it. Chosen: within 15 s.
    options = options.with_keep_alive(Duration::from_secs(10), Duration::from_secs(5));
    if let Some(user) = &config.etcd_username {
        let password = config.etcd_password.as_ref().map_or("", |password| &password.0);
        options = options.with_user(user, password).with_auto_token_refresh(true);
    }
    let backend = Etcd {
        endpoints: made,
        tls: files,
        options,
        most_bytes: config.metadata_max_bytes.saturating_add(ENVELOPE),
        current: AtomicUsize::new(0),
        attempt_limit: (limit / (count as u32 + 1)).max(MIN_ATTEMPT.min(limit)),
        ttl_secs: config.metadata_ttl.as_secs() as i64,
        lease: Mutex::default(),
        watches: Watches::default(),
    };
    Ok(Arc::new(Keyed::new(Arc::new(backend), count, config, own)))
}

struct Endpoint {
    url: String,
    /// It is given by name.
    named: bool,
    client: OnceCell<Client>,
}

struct Etcd {
    endpoints: Vec<Endpoint>,
    tls: Files,
    options: ConnectOptions,
    /// Bytes of one answer.
    most_bytes: usize,
    /// The endpoint that answered last.
    current: AtomicUsize,
    attempt_limit: Duration,
    ttl_secs: i64,
    /// The lease of this engine's keys; `None` until the first write, and when it is lost.
    lease: Mutex<Option<i64>>,
    watches: Watches,
}

fn endpoint(text: &str, files: &Files) -> Result<Endpoint> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => {
            return Err(Error::invalid("an etcd endpoint should be host:port, without another scheme"))
        }
        None => ("http", text),
    };
    let scheme = if files.authorities.is_some() || files.identity.is_some() { "https" } else { scheme };
    let wrong = |why: String| {
        Error::invalid(format!(
            "an etcd endpoint should be host:port ({why}); login and password are MC_ETCD_USERNAME and MC_ETCD_PASSWORD, \
             a prefix of all keys is MC_METADATA_CLUSTER_ID"
        ))
    };
    let address = host_port::parse_strictly(rest.trim_end_matches('/'), DEFAULT_PORT).map_err(wrong)?;
    let url = format!("{scheme}://{address}");
    if let Err(error) = url.parse::<hyper::Uri>() {
        return Err(wrong(error.to_string()));
    }
    Ok(Endpoint { url, named: address.host.parse::<IpAddr>().is_err(), client: OnceCell::new() })
}

impl Etcd {
    /// Calls the endpoint that answered last; if it cannot be reached or cannot serve, the next call is for another.
    async fn call<T, F>(&self, what: &str, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        F: std::future::Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        let index = self.current.load(Relaxed) % self.endpoints.len();
        let endpoint = &self.endpoints[index];
        if endpoint.named {
            blocking::tokio_has_one().await?;
        }
        let attempt = async {
            let client = endpoint.client.get_or_try_init(|| self.connect(&endpoint.url)).await?;
            call(client.clone()).await
        };
        let error = match timeout(self.attempt_limit, attempt).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => failed(&error),
            Err(_) => late(self.attempt_limit),
        };
        if error.retryable() {
            let _ = self.current.compare_exchange(index, index + 1, Relaxed, Relaxed);
        }
        Err(error.context(format_args!("etcd {}: {what}", endpoint.url)).peer(endpoint.url.as_str()))
    }

    async fn connect(&self, url: &str) -> std::result::Result<Client, etcd_client::Error> {
        let mut options = self.options.clone();
        if url.starts_with("https://") {
            let mut tls = TlsOptions::new();
            tls = match &self.tls.authorities {
                Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
                None => tls.with_native_roots(),
            };
            if let Some((certificate, key)) = &self.tls.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        Client::connect([url], Some(options)).await
    }

    /// The lease, granted now if there is none.
    async fn lease(&self) -> Result<i64> {
        let mut lease = self.lease.lock().await;
        if let Some(id) = *lease {
            return Ok(id);
        }
        let ttl = self.ttl_secs;
        let granted =
            self.call("grant a lease", |mut c| async move { c.lease_grant(ttl, None).await }).await?;
        *lease = Some(granted.id());
        Ok(granted.id())
    }

    /// Whether the server does not know the lease any more. Asked after a refusal: that error has no code of its own.
    async fn has_lost(&self, id: i64) -> bool {
        let left =
            self.call("look at the lease", |mut c| async move { c.lease_time_to_live(id, None).await });
        left.await.is_ok_and(|left| left.ttl() <= 0)
    }

    async fn forget_lease(&self, id: i64) {
        let mut lease = self.lease.lock().await;
        if *lease == Some(id) {
            *lease = None;
        }
    }

    async fn read(&self, key: String) -> Result<Option<Entry>> {
        let most = self.most_bytes;
        let get =
            |c: Client| async move { c.kv_client().max_decoding_message_size(most).get(key, None).await };
        let mut found = self.call("get", get).await?;
        Ok(found.take_kvs().into_iter().next().map(|kv| {
            let version = Version::Revision(kv.mod_revision());
            Entry { value: kv.into_key_value().1, version }
        }))
    }

    async fn keys(&self, prefix: String) -> Result<Vec<String>> {
        let most = self.most_bytes;
        let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
        let get = |c: Client| async move {
            c.kv_client().max_decoding_message_size(most).get(prefix, Some(options)).await
        };
        let mut found = self.call("list", get).await?;
        let keys = found.take_kvs().into_iter().map(|kv| kv.into_key_value().0);
        Ok(keys.filter_map(|key| String::from_utf8(key).ok()).collect())
    }

    async fn write(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> Result<Put> {
        let lease = self.lease().await?;
        let expected = match over {
            None => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
            Some(version) => Compare::mod_revision(key.as_str(), CompareOp::Equal, version.revision()),
        };
        let put = TxnOp::put(key.as_str(), &*value, Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new().when([expected]).and_then([put]);
        let wrote = self.call("put", |mut c| async move { c.txn(txn).await }).await;
        let wrote = match wrote {
            Err(error) if !error.retryable() && self.has_lost(lease).await => {
                self.forget_lease(lease).await;
                return Err(unreachable(format!(
                    "the lease is gone; another is asked for: {}",
                    error.text()
                )));
            }
            wrote => wrote?,
        };
        if !wrote.succeeded() {
            return Ok(Put::Lost);
        }
        Ok(Put::Done(Version::Revision(wrote.header().map_or(0, |header| header.revision()))))
    }
}

impl Backend for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn get(&self, key: String, _: bool) -> BoxFuture<'_, Result<Option<Entry>>> {
        Box::pin(self.read(key))
    }

    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(self.keys(prefix))
    }

    fn put(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> BoxFuture<'_, Result<Put>> {
        Box::pin(self.write(key, value, over))
    }

    fn delete(&self, key: String, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let same = Compare::mod_revision(key.as_str(), CompareOp::Equal, version.revision());
            let txn = Txn::new().when([same]).and_then([TxnOp::delete(key.as_str(), None)]);
            let done = self.call("delete", |mut c| async move { c.txn(txn).await }).await?;
            Ok(done.succeeded())
        })
    }

    fn keep(&self, key: String, _: Arc<[u8]>, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let options = Some(etcd_client::GetOptions::new().with_keys_only());
            let found = self.call("look", |mut c| async move { c.get(key, options).await }).await?;
            Ok(found.kvs().first().is_some_and(|kv| kv.mod_revision() == version.revision()))
        })
    }

    fn beat(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let Some(id) = *self.lease.lock().await else { return Ok(()) };
            let kept =
                self.call("keep the lease", |mut c| async move { c.lease_keep_alive(id).await.map(drop) });
            match kept.await {
                Err(error) if !error.retryable() && self.has_lost(id).await => {
                    tracing::warn!("etcd has lost the lease of this engine; a new one is asked for");
                    self.forget_lease(id).await;
                    Ok(())
                }
                kept => kept,
            }
        })
    }

    fn upkeep(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(watch::run(self))
    }

    fn watch(&self, key: String, since: i64, seen: Seen) -> Option<Watch> {
        Some(self.watches.add(key, since, seen))
    }

    fn watches(&self) -> bool {
        true
    }
}

fn failed(error: &etcd_client::Error) -> Error {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return match error {
            etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => {
                unreachable(with_causes(error))
            }
            _ => refused(with_causes(error)),
        };
    };
    let (text, code) = (status.message(), status.code() as i32);
    if text.contains("request is too large") || code == RESOURCE_EXHAUSTED && text.contains("larger than max")
    {
        return refused(format!(
            "the server refuses a value of this size ({text}); etcd takes 1.5 MiB unless --max-request-bytes says \
             otherwise; register fewer, larger buffers"
        ));
    }
    if text.contains("database space exceeded") {
        return refused(format!(
            "{text}: etcd takes no writes until it is compacted, defragmented and its alarm disarmed; every registration \
             writes the whole descriptor, so use registerLocalMemoryBatch, and run etcd with --auto-compaction-retention"
        ));
    }
    let text = format!("{text} (gRPC status {code}){}", causes(status));
    match code {
        UNAUTHENTICATED | PERMISSION_DENIED => {
            refused(format!("{text}; check MC_ETCD_USERNAME and MC_ETCD_PASSWORD"))
        }
        INVALID_ARGUMENT if text.contains("authentication failed") => {
            refused(format!("{text}; check MC_ETCD_USERNAME and MC_ETCD_PASSWORD"))
        }
        INVALID_ARGUMENT if text.contains("user name is empty") => {
            refused(format!("{text}; set MC_ETCD_USERNAME and MC_ETCD_PASSWORD"))
        }
        // A certificate that is not trusted will not be next time either.
        _ if text.contains("certificate") => refused(text),
        // Made on this side, when an answer is over the limit.
        OUT_OF_RANGE => refused(format!("{text}; see MC_METADATA_MAX_BYTES")),
        INVALID_ARGUMENT | NOT_FOUND | FAILED_PRECONDITION => refused(text),
        DEADLINE_EXCEEDED => unreachable(text),
        _ => unreachable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_asked_with_tls_if_its_scheme_or_a_file_says_so() {
        let file = || Some(b"text".to_vec());
        let [none, authorities, identity] = [
            Files::default(),
            Files { authorities: file(), identity: None },
            Files { authorities: None, identity: file().zip(file()) },
        ];
        for (text, files, url) in [
            ("a:1", &none, "http://a:1"),
            ("https://a:1", &none, "https://a:1"),
            ("a:1", &authorities, "https://a:1"),
            ("http://a:1/", &identity, "https://a:1"),
        ] {
            assert_eq!(endpoint(text, files).unwrap().url, url, "{text}");
        }
        assert!(endpoint("a:1", &none).unwrap().named && !endpoint("10.0.0.1:1", &none).unwrap().named);
        assert!(endpoint("redis://a:1", &none).is_err());
    }
}
