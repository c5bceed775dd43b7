//! The pages that the port serves, at upstream's paths.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::history::History;
use super::{ended, gather, status, Form, Look};
use crate::engine::Engine;
use crate::observe::endpoint::Answer;
use crate::observe::page::{self, Status};

/// A page is told again for so many times as long as it took to make. Chosen: however often it is asked for, making it takes a
/// twentieth of a processor at the most, and a page of a few batches is always new.
const SHARE: u32 = 20;
/// And no longer than this. Chosen: readers come every few seconds.
const LONGEST: Duration = Duration::from_secs(1);

/// What was told last. All batches are gone through for a page, and a stranger must not make that often.
pub(super) struct Pages {
    bodies: RefCell<Vec<(&'static str, Kept<String>)>>,
    status: RefCell<Option<Kept<Arc<Status>>>>,
    history: Arc<Mutex<History>>,
}

struct Kept<T> {
    what: T,
    until: Instant,
}

/// What is kept, while it may be, or else what `make` gives, which is to be kept then.
fn fresh<T: Clone>(
    kept: Option<&Kept<T>>,
    now: impl Fn() -> Instant,
    make: impl FnOnce() -> T,
) -> (T, Option<Kept<T>>) {
    let begun = now();
    if let Some(kept) = kept.filter(|kept| begun < kept.until) {
        return (kept.what.clone(), None);
    }
    let what = make();
    let made = now();
    let until = made + made.saturating_duration_since(begun).saturating_mul(SHARE).min(LONGEST);
    (what.clone(), Some(Kept { what, until }))
}

impl Pages {
    pub(super) fn new(history: Arc<Mutex<History>>) -> Self {
        Pages { bodies: RefCell::default(), status: RefCell::default(), history }
    }

    /// The page at `path`; `None`: there is none.
    pub(super) fn answer(&self, look: Look, path: &str) -> Option<Answer> {
        const PLAIN: &str = "text/plain; charset=utf-8";
        let page = |path, content_type, tell: &dyn Fn(&[Arc<Engine>]) -> String| {
            let made = || {
                let mut text = String::new();
                look(&mut |engines| text = tell(engines));
                text
            };
            Some(Answer::data(content_type, self.body(path, Instant::now, made)))
        };
        let metrics = |path, content_type, form| {
            page(path, content_type, &|engines: &[Arc<Engine>]| gather(engines, form))
        };
        let bad = |body: &str| Answer { ok: false, ..Answer::data(PLAIN, body.into()) };
        match path {
            "/" => {
                let Some(nonce) = page::nonce() else {
                    return Some(bad("the kernel has no random numbers\n"));
                };
                let status = self.status(look);
                let body = page::html(&status.title, Some(&status), &nonce);
                Some(Answer { nonce: Some(nonce), ..Answer::data("text/html; charset=utf-8", body) })
            }
            "/status.json" => Some(Answer::data("application/json", self.status(look).json())),
            "/metrics" => metrics("/metrics", "text/plain; version=0.0.4; charset=utf-8", Form::Text),
            "/metrics/json" => metrics("/metrics/json", "application/json", Form::Json),
            "/links" => page("/links", "application/json", &|engines: &[Arc<Engine>]| {
                let all: Vec<_> = engines.iter().map(|engine| engine.links()).collect();
                json!({ "engines": all }).to_string()
            }),
            "/metrics/summary" => metrics("/metrics/summary", PLAIN, Form::Summary)
                .map(|page| Answer { body: page.body + "\n", ..page }),
            "/health" => {
                let mut ok = true;
                look(&mut |engines| ok = !engines.iter().any(|engine| engine.is_broken()));
                Some(match ok {
                    true => Answer::data(PLAIN, "ok\n".into()),
                    false => bad(
                        "an engine of this process failed inside the library: see its log, and restart it\n",
                    ),
                })
            }
            _ => None,
        }
    }

    fn status(&self, look: Look) -> Arc<Status> {
        let mut all = self.status.borrow_mut();
        let make = || {
            let mut status = None;
            look(&mut |engines| {
                status = Some(status::of(&ended(engines), engines, &mut self.history.lock(), Instant::now()));
            });
            // Whoever looks sees the engines, even if there are none.
            let none = || status::of(&ended(&[]), &[], &mut self.history.lock(), Instant::now());
            Arc::new(status.unwrap_or_else(none))
        };
        let (status, kept) = fresh(all.as_ref(), Instant::now, make);
        if kept.is_some() {
            *all = kept;
        }
        status
    }

    /// The page that is kept, or a new one.
    fn body(&self, path: &'static str, now: impl Fn() -> Instant, make: impl FnOnce() -> String) -> String {
        let mut all = self.bodies.borrow_mut();
        let known = all.iter().find(|(known, _)| *known == path).map(|(_, kept)| kept);
        let (body, kept) = fresh(known, now, make);
        if let Some(kept) = kept {
            all.retain(|(known, _)| *known != path);
            all.push((path, kept));
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_page_that_takes_long_to_make_is_told_again() {
        let (clock, made) = (Cell::new(Instant::now()), Cell::new(0));
        let pages = Pages::new(Arc::default());
        let ask = |path, takes: Duration| {
            pages.body(
                path,
                || clock.get(),
                || {
                    clock.set(clock.get() + takes);
                    made.set(made.get() + 1);
                    made.get().to_string()
                },
            )
        };
        let [brief, long] = [1, 500].map(Duration::from_millis);
        assert_eq!(ask("/metrics", brief), "1");
        clock.set(clock.get() + brief * (SHARE - 1));
        assert_eq!(ask("/metrics", brief), "1", "it is kept");
        assert_eq!(ask("/metrics/json", brief), "2", "each page by itself");
        clock.set(clock.get() + brief);
        assert_eq!(ask("/metrics", long), "3", "it is old");
        clock.set(clock.get() + LONGEST - brief);
        assert_eq!(ask("/metrics", long), "3");
        clock.set(clock.get() + brief);
        assert_eq!(ask("/metrics", long), "4", "none is older than a second");
    }
}
