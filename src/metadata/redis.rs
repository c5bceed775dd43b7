//! The Redis store. Keys expire; conditional writes are scripts, which name the expected version by the SHA-1 of its
//! value, computed by the server.

mod metered;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, RedisError, ServerErrorKind};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::backend::{late, refused, too_large, unreachable, Backend, Entry, Patience, Put, Version};
use super::keyed::Keyed;
use super::store::{Own, Store};
use super::tls::Tls;
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::host_port::{self, HostPort};
use crate::runtime::resolve::{resolve, Family};
use crate::runtime::sockets::{self, Stream};
use crate::runtime::BoxFuture;
use metered::{Allowance, Metered, Wire};

/// Writes a key whose value has the digest `ARGV[1]`; the empty digest stands for an absent key. Answers the new value's
/// digest, or an empty text if the key has another value.
const PUT: &str = "local v = redis.call('GET', KEYS[1]) \
    local is = v and redis.sha1hex(v) or '' \
    if is ~= ARGV[1] then return '' end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
    return redis.sha1hex(ARGV[2])";
/// Answers the value and its digest, or nothing.
const GET: &str = "local v = redis.call('GET', KEYS[1]) \
    if not v then return {} end \
    return {v, redis.sha1hex(v)}";
/// Removes a key whose value has the digest `ARGV[1]`; answers how many keys it removed.
const DELETE: &str = "local v = redis.call('GET', KEYS[1]) \
    if v and redis.sha1hex(v) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
    return 0";
/// Puts off the expiry of a key whose value has the digest `ARGV[1]`; answers 1 if there is one.
const KEEP: &str = "local v = redis.call('GET', KEYS[1]) \
    if v and redis.sha1hex(v) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end \
    return 0";

/// Keys that the server looks at per request of a list. Chosen: it serves others after a fraction of a millisecond.
const KEYS_AT_ONCE: usize = 1000;

/// Content type of an alert, which is how a record of TLS begins that says what a server does not like.
const TLS_ALERT: u8 = 21;

/// Opens `redis://host[:port]`, or `rediss://` for TLS; user, password and database come from the settings.
pub(super) fn open(connection: &str, config: &Config, own: Own) -> Result<Arc<dyn Store>> {
    let secure = connection.strip_prefix("rediss://");
    let rest = secure.or(connection.strip_prefix("redis://")).unwrap_or(connection).trim_end_matches('/');
    let address = host_port::parse_strictly(rest, config.handshake_port).map_err(|why| {
        Error::invalid(format!(
            "a Redis store should be redis://host[:port] or rediss:// ({why}); user, password and database are \
             MC_REDIS_USERNAME, MC_REDIS_PASSWORD and MC_REDIS_DB_INDEX"
        ))
    })?;
    let mut login = RedisConnectionInfo::default()
        .set_db(i64::from(config.redis_db_index))
        // The library's name is nobody's business, and old servers refuse the command.
        .set_skip_set_lib_name();
    if let Some(password) = &config.redis_password {
        login = login.set_password(&password.0);
        if let Some(user) = &config.redis_username {
            login = login.set_username(user);
        }
    }
    let tls = secure.map(|_| Tls::new(&address, connection, config)).transpose()?;
    let backend = Redis {
        login,
        tls,
        peer: address.to_string(),
        address,
        most_bytes: config.metadata_max_bytes,
        limit: Patience::new(config, 1).limit,
        ttl_ms: config.metadata_ttl.as_millis() as u64,
        connection: Mutex::default(),
    };
    Ok(Arc::new(Keyed::new(Arc::new(backend), 1, config, own)))
}

struct Redis {
    login: RedisConnectionInfo,
    tls: Option<Tls>,
    address: HostPort,
    peer: String,
    /// Bytes of one answer.
    most_bytes: usize,
    limit: Duration,
    ttl_ms: u64,
    /// The connection in use, shared by all calls; forgotten when it fails.
    connection: Mutex<Option<Connection>>,
}

#[derive(Clone)]
struct Connection {
    calls: MultiplexedConnection,
    allowance: Arc<Allowance>,
    _driver: Arc<Driver>,
}

/// The task that serves a connection; it ends with the last copy of the connection.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Redis {
    async fn connection(&self) -> Result<Connection> {
        if let Some(connection) = &*self.connection.lock() {
            return Ok(connection.clone());
        }
        let made = timeout(self.limit, self.connect()).await.unwrap_or_else(|_| {
            // A Redis without TLS takes its first message for the beginning of a command, and waits for the rest.
            let what = if self.tls.is_some() { "connect by TLS (without it: redis://)" } else { "connect" };
            let late = late(self.limit).context(format_args!("redis {}: {what}", self.peer));
            Err(late.peer(self.peer.as_str()))
        })?;
        *self.connection.lock() = Some(made.clone());
        Ok(made)
    }

    async fn connect(&self) -> Result<Connection> {
        let failed =
            |why: &str| unreachable(format!("redis {}: connect: {why}", self.peer)).peer(self.peer.as_str());
        let resolved = resolve(&self.address.host, self.address.port, Family::Any).await;
        let resolved = resolved.map_err(|e| match e.kind() {
            // Not the server's fault.
            Class::Resource => e.context(format_args!("redis {}: connect", self.peer)),
            _ => failed(e.text()),
        })?;
        let mut stream = Err(failed("the name has no address"));
        for address in &*resolved {
            stream = sockets::connect(*address).await.map_err(|e| failed(&e.to_string()));
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream?;
        let _ = stream.set_nodelay(true);
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(Stream(stream)),
            Some(tls) => Box::new(tls.connect(Stream(stream), &self.address).await.map_err(|e| {
                e.context(format_args!("redis {}: connect", self.peer)).peer(self.peer.as_str())
            })?),
        };
        let allowance = Allowance::new(self.most_bytes);
        let stream = Metered::new(wire, allowance.clone());
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.limit));
        let made = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (calls, driver) = made.map_err(|e| self.failed("connect", &e, &allowance))?;
        let driver = Arc::new(Driver(tokio::spawn(driver).abort_handle()));
        Ok(Connection { calls, allowance, _driver: driver })
    }

    async fn call<T: FromRedisValue>(&self, what: &str, command: Cmd) -> Result<T> {
        let mut connection = self.connection().await?;
        let waiting = connection.allowance.call();
        let answer = command.query_async(&mut connection.calls).await;
        drop(waiting);
        answer.map_err(|error| {
            if error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() {
                *self.connection.lock() = None;
            }
            if connection.allowance.is_used_up() {
                let text = too_large(self.most_bytes);
                return text.context(format_args!("redis {}: {what}", self.peer)).peer(self.peer.as_str());
            }
            self.failed(what, &error, &connection.allowance)
        })
    }

    /// No client's certificate is shown where one may be asked for.
    fn lacks_identity(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.has_identity)
    }

    fn failed(&self, what: &str, error: &RedisError, allowance: &Allowance) -> Error {
        let text = format!("redis {}: {what}: {error}", self.peer);
        if let Some(failure) = allowance.tls_failure() {
            let remedy = if self.lacks_identity() { CERTIFICATE } else { "" };
            return refused(format!("redis {}: {what}: TLS: {failure}{remedy}", self.peer))
                .peer(self.peer.as_str());
        }
        if self.tls.is_none() && allowance.first() == Some(TLS_ALERT) {
            let text = format!("redis {}: {what}: the server speaks TLS: use rediss://", self.peer);
            return refused(text).peer(self.peer.as_str());
        }
        // It hung up and has not said why.
        let remedy = match (allowance.first(), &self.tls) {
            (None, None) => "; if the server speaks TLS, use rediss://",
            (None, Some(_)) if self.lacks_identity() => CERTIFICATE,
            _ => "",
        };
        let login = matches!(error.kind(), redis::ErrorKind::AuthenticationFailed)
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        let made = if login {
            refused(format!("{text}; check MC_REDIS_USERNAME and MC_REDIS_PASSWORD"))
        } else if error.is_timeout() {
            unreachable(text).transient(Class::Timeout)
        } else if error.is_io_error() || error.is_connection_dropped() {
            unreachable(text + remedy)
        } else if is_busy(error) {
            unreachable(text)
        } else {
            refused(text)
        };
        made.peer(self.peer.as_str())
    }
}

/// What to do where a server wants to know who the client is.
const CERTIFICATE: &str =
    "; if the server asks for a client's certificate, set MC_METADATA_CERT_FILE and MC_METADATA_KEY_FILE";

/// The server is loading, failing over or running a script.
fn is_busy(error: &RedisError) -> bool {
    use redis::ErrorKind::Server;
    matches!(
        error.kind(),
        Server(
            ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        )
    )
}

fn script(script: &str, key: String) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(key);
    command
}

/// `text` as a pattern that fits itself only.
fn escaped(text: &str) -> String {
    let escape = |c: char| if "*?[]^\\".contains(c) { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(escape).collect()
}

fn digest(version: &Version) -> &[u8] {
    match version {
        Version::Content(digest) => digest,
        Version::Revision(_) => &[],
    }
}

impl Backend for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn get(&self, key: String, owned: bool) -> BoxFuture<'_, Result<Option<Entry>>> {
        Box::pin(async move {
            let entry = |value, digest: Vec<u8>| Entry { value, version: Version::Content(digest.into()) };
            if !owned {
                let mut get = redis::cmd("GET");
                get.arg(key);
                let value: Option<Vec<u8>> = self.call("GET", get).await?;
                return Ok(value.map(|value| entry(value, Vec::new())));
            }
            let found: Vec<Vec<u8>> = self.call("GET by script", script(GET, key)).await?;
            let mut found = found.into_iter();
            Ok(found.next().zip(found.next()).map(|(value, digest)| entry(value, digest)))
        })
    }

    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move {
            let pattern = format!("{}*", escaped(&prefix));
            let (mut keys, mut cursor) = (Vec::new(), 0_u64);
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS_AT_ONCE);
                let (next, found): (u64, Vec<Vec<u8>>) = self.call("SCAN", scan).await?;
                keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
                if next == 0 {
                    return Ok(keys);
                }
                cursor = next;
            }
        })
    }

    fn put(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> BoxFuture<'_, Result<Put>> {
        Box::pin(async move {
            let mut put = script(PUT, key);
            put.arg(over.as_ref().map_or(&[][..], digest)).arg(&*value).arg(self.ttl_ms);
            let written: Vec<u8> = self.call("SET by script", put).await?;
            Ok(if written.is_empty() { Put::Lost } else { Put::Done(Version::Content(written.into())) })
        })
    }

    fn delete(&self, key: String, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let mut delete = script(DELETE, key);
            delete.arg(digest(&version));
            self.call::<i64>("DEL by script", delete).await.map(|count| count > 0)
        })
    }

    fn keep(&self, key: String, _: Arc<[u8]>, version: Version) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let mut keep = script(KEEP, key);
            keep.arg(digest(&version)).arg(self.ttl_ms);
            self.call::<i64>("PEXPIRE by script", keep).await.map(|count| count > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_signs_of_patterns_fits_itself_only() {
        assert_eq!(escaped("mooncake/a*[b]?\\/ram/"), "mooncake/a\\*\\[b\\]\\?\\\\/ram/");
    }
}
