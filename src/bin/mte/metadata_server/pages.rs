//! What people see of the server: a page at `/` and the text that its script asks for, `/status.json`. Keys have paths of their own, so
//! that none can take the place of these.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use transfer_engine::tools::page::{self, Status};

use super::facts::Facts;
use super::status::{self, Limits};
use super::table::Table;
use super::{plain, Answer};

/// How long a state is shown before another one is made. Chosen: pages ask every 2 s, and it costs a look at every key.
const FRESH: Duration = Duration::from_secs(1);

/// The state as it was last made.
pub(super) struct Pages {
    limits: Limits,
    /// Names of this server besides its addresses.
    names: Vec<String>,
    /// The names were given, so keys are not served under others either.
    is_strict: bool,
    started: Instant,
    view: tokio::sync::Mutex<Option<(Instant, Arc<Status>)>>,
}

impl Pages {
    /// For a server that is called by its addresses, `localhost`, the host's own name, or one of `names`.
    pub(super) fn new(limits: Limits, names: Vec<String>) -> Self {
        let is_strict = !names.is_empty();
        let names = names.into_iter().chain(page::host_name()).collect();
        Pages { limits, names, is_strict, started: Instant::now(), view: tokio::sync::Mutex::default() }
    }

    /// Whether a request means this server. Clients of the store may call it as they like, unless its names were given: nobody can
    /// list keys there, while the page shows all of them.
    pub(super) fn is_addressed(&self, request: &Request<Incoming>) -> bool {
        let is_key = request.uri().path() == "/metadata";
        is_key && !self.is_strict || page::is_addressed(request.headers(), &self.names)
    }

    /// The page; without a table it only asks for the token.
    pub(super) async fn page(&self, table: Option<&Arc<Mutex<Table>>>) -> Result<Answer, Answer> {
        let failed = |text| plain(StatusCode::SERVICE_UNAVAILABLE, text);
        let nonce = page::nonce().ok_or_else(|| failed("the kernel has no random numbers"))?;
        let status = match table {
            Some(table) => Some(self.status(table).await.ok_or_else(|| failed(NOT_MADE))?),
            None => None,
        };
        let body = page::html(status::TITLE, status.as_deref(), &nonce);
        Ok(answer("text/html; charset=utf-8", body, Some(&nonce)))
    }

    /// What the page's script asks for.
    pub(super) async fn data(&self, table: &Arc<Mutex<Table>>) -> Result<Answer, Answer> {
        let status = self.status(table).await;
        let status = status.ok_or_else(|| plain(StatusCode::SERVICE_UNAVAILABLE, NOT_MADE))?;
        Ok(answer("application/json", status.json(), None))
    }

    /// One for all who ask at the same time. Values are looked into once, and not on the thread that serves.
    async fn status(&self, table: &Arc<Mutex<Table>>) -> Option<Arc<Status>> {
        let mut view = self.view.lock().await;
        if let Some((_, status)) = view.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Some(status.clone());
        }
        let (table, limits, uptime) = (table.clone(), self.limits, self.started.elapsed());
        let made = tokio::task::spawn_blocking(move || {
            let mut snapshot = table.lock().snapshot();
            for seen in snapshot.seen.iter_mut().filter(|seen| seen.facts.is_none()) {
                let facts = Arc::new(Facts::of(&seen.key, &seen.value));
                table.lock().learn(&seen.key, &seen.value, &facts);
                seen.facts = Some(facts);
            }
            Arc::new(status::of(&snapshot, Instant::now(), uptime, &limits))
        });
        let status = made.await.ok()?;
        *view = Some((Instant::now(), status.clone()));
        Some(status)
    }
}

/// Keys of one answer. Chosen: a moment under the lock, and some megabytes.
const MOST_KEYS: usize = 100_000;

/// The keys that begin with `prefix`, as a JSON array in no order. They have a path of their own, as the page does.
pub(super) fn keys(table: &Mutex<Table>, prefix: &str) -> Answer {
    let keys = table.lock().keys(prefix, MOST_KEYS);
    match keys {
        Some(keys) => answer("application/json", serde_json::Value::from(keys).to_string(), None),
        None => {
            let text = format!("there are more than {MOST_KEYS} such keys; ask for a longer prefix");
            plain(StatusCode::INSUFFICIENT_STORAGE, &text)
        }
    }
}

/// Should the thread end in a fault.
const NOT_MADE: &str = "the state could not be made";

/// For a request under another server's name.
pub(super) fn not_addressed() -> Answer {
    let mut answer =
        plain(StatusCode::FORBIDDEN, &format!("{}, or start it with --host NAME", page::NOT_ADDRESSED));
    page::protect(&mut answer, None);
    answer
}

fn answer(content_type: &'static str, body: String, nonce: Option<&str>) -> Answer {
    let mut answer = Response::new(Bytes::from(body));
    page::protect(&mut answer, nonce);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
