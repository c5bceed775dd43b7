//! What a key-value service has to offer to be a store, and for how long an operation on it is tried again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout_at, Instant};

use crate::config::Config;
use crate::error::{Class, Code, Error, Result};
use crate::observe::durations::{self, Timed};
use crate::runtime::backoff::Backoff;
use crate::runtime::BoxFuture;

/// Pauses between attempts. Chosen: many of them fit into the default limit of an operation.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(400) };
/// How long attempts go on where there is only one endpoint. Chosen: five attempts with their pauses, for a connection
/// that was lost; a server that is down is reported soon.
const SINGLE_ENDPOINT_LIMIT: Duration = Duration::from_millis(600);

/// Identifies one version of a value to the backend that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// A number that grows with every change of the store.
    #[cfg_attr(not(feature = "etcd"), allow(dead_code))] // the only store that counts
    Revision(i64),
    /// The value itself, or something as good.
    Content(Arc<[u8]>),
}

impl Version {
    /// The revision, or 0.
    pub(super) fn revision(&self) -> i64 {
        match self {
            Version::Revision(revision) => *revision,
            Version::Content(_) => 0,
        }
    }
}

/// A value as read.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The bytes.
    pub value: Vec<u8>,
    /// Names this version when it is to be replaced.
    pub version: Version,
}

/// What became of a conditional write.
#[derive(Debug)]
pub(super) enum Put {
    /// It is there, as this version.
    Done(Version),
    /// The key was not in the expected state.
    Lost,
}

/// Called when a watched key has changed.
pub(super) type Seen = Box<dyn Fn(News<'_>) + Send + Sync>;

/// What a store tells of a watched key.
pub(super) enum News<'a> {
    /// It has this value, as of this revision.
    Put(&'a [u8], i64),
    /// It was deleted.
    Deleted,
    /// It may have changed.
    Unknown,
}

/// Ends a watch when it is dropped.
pub struct Watch(pub Box<dyn Fn() + Send + Sync>);

impl Drop for Watch {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A key-value service. Each call is one attempt of bounded duration; the caller tries again if the error says so.
/// Futures run on the control thread.
pub(super) trait Backend: Send + Sync + 'static {
    /// One word, for messages.
    fn name(&self) -> &'static str;

    /// Whether values end in a newline, as upstream writes them.
    fn ends_in_newline(&self) -> bool {
        true
    }

    /// Reads a key. With `owned`, the version can be used to replace it; without, it may be any.
    fn get(&self, key: String, owned: bool) -> BoxFuture<'_, Result<Option<Entry>>>;

    /// The keys that begin with `prefix`, in any order, some perhaps twice. `ERR_NOT_IMPLEMENTED` if the service cannot list.
    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<String>>> {
        let _ = prefix;
        Box::pin(std::future::ready(Err(cannot_list(&format!("a store of kind {}", self.name())))))
    }

    /// Writes a key if it is absent (`over` is `None`) or has the version given. Where the store can, the key expires
    /// unless [`Backend::keep`] or [`Backend::beat`] puts that off.
    fn put(&self, key: String, value: Arc<[u8]>, over: Option<Version>) -> BoxFuture<'_, Result<Put>>;

    /// Removes a key if it has the version given. `false`: it has not.
    fn delete(&self, key: String, version: Version) -> BoxFuture<'_, Result<bool>>;

    /// Puts off the expiry of a key. `false`: it is gone, or has another version.
    fn keep(&self, key: String, value: Arc<[u8]>, version: Version) -> BoxFuture<'_, Result<bool>>;

    /// Puts off the expiry of all that this backend wrote, where one request does that.
    fn beat(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What the service's clock showed at its last answer, as seconds since 1970, if it tells.
    fn clock_secs(&self) -> Option<u64> {
        None
    }

    /// What the backend does by itself, until it is dropped.
    fn upkeep(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    /// Reports every change of a key after `since`; `None` if the store does not tell.
    fn watch(&self, key: String, since: i64, seen: Seen) -> Option<Watch> {
        let _ = (key, since, seen);
        None
    }

    /// Whether [`Backend::watch`] reports changes.
    fn watches(&self) -> bool {
        false
    }
}

/// How long one operation may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// In all.
    pub limit: Duration,
    /// Within this time further attempts may begin.
    pub attempts: Duration,
}

impl Patience {
    /// With several endpoints attempts go on for the whole limit, because a vote among them may take as long; a single
    /// one that does not accept connections is given a moment.
    pub(super) fn new(config: &Config, endpoints: usize) -> Self {
        let limit = config.metadata_timeout;
        let attempts = if endpoints > 1 { limit } else { limit.min(SINGLE_ENDPOINT_LIMIT) };
        Patience { limit, attempts }
    }

    /// For the first operation: the store may be starting as well.
    pub(super) fn at_start(self) -> Self {
        Patience { attempts: self.limit, ..self }
    }

    /// Calls `attempt` until it succeeds, fails for good, or time is up; then the last error.
    pub(super) async fn bear<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let start = Instant::now();
        let outcome = self.bear_from(start, attempt).await;
        durations::ended(Timed::Store, start.into_std(), outcome.is_ok());
        outcome
    }

    async fn bear_from<T, F: Future<Output = Result<T>>>(
        &self,
        start: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            let outcome = timeout_at(start + self.limit, attempt()).await;
            let error = match outcome {
                Ok(Err(error)) if error.retryable() => error,
                Ok(outcome) => return outcome,
                Err(_) => return Err(late(self.limit)),
            };
            let pause = PAUSES.pause(failures);
            if start.elapsed() + pause >= self.attempts {
                return Err(error);
            }
            sleep(pause).await;
            failures += 1;
        }
    }
}

/// No answer within `limit`.
pub(super) fn late(limit: Duration) -> Error {
    let text = format!("no answer within {} ms (MC_METADATA_TIMEOUT_MS)", limit.as_millis());
    Error::new(Code::Metadata, text).transient(Class::Timeout)
}

/// A value over `most` bytes.
pub(super) fn too_large(most: usize) -> Error {
    refused(format!("the answer is over {most} bytes (MC_METADATA_MAX_BYTES)"))
}

/// Why there is no list of segments of `store`.
pub(super) fn cannot_list(store: &str) -> Error {
    Error::new(
        Code::NotImplemented,
        format!("the segments of {store} cannot be listed; name the one to look at"),
    )
}

/// A failure that may be over soon.
pub(super) fn unreachable(text: String) -> Error {
    Error::new(Code::Metadata, text).transient(Class::Network)
}

/// A refusal that the same request will meet again.
pub(super) fn refused(text: String) -> Error {
    Error::new(Code::Metadata, text).permanent(Class::Rejected)
}

/// An error and what it stems from.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    format!("{error}{}", causes(error))
}

/// What an error stems from; each cause begins with a colon.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
