//! The pages that the port serves, at upstream's paths.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::{gather, Form, Look};
use crate::observe::endpoint::Answer;

/// A page is told again for so many times as long as it took to make. Chosen: however often it is asked for, making it takes a
/// twentieth of a processor at the most, and a page of a few batches is always new.
const SHARE: u32 = 20;
/// And no longer than this. Chosen: readers come every few seconds.
const LONGEST: Duration = Duration::from_secs(1);

/// What was told last, in each form. All batches are gone through for a page, and a stranger must not make that often.
#[derive(Default)]
pub(super) struct Pages {
    kept: RefCell<Vec<(Form, Kept)>>,
}

struct Kept {
    body: String,
    until: Instant,
}

impl Pages {
    /// The page at `path`; `None`: there is none.
    pub(super) fn answer(&self, look: Look, path: &str) -> Option<Answer> {
        const PLAIN: &str = "text/plain; charset=utf-8";
        let page = |content_type, form| {
            let made = || {
                let mut text = String::new();
                look(&mut |engines| text = gather(engines, form));
                text
            };
            Some(Answer { ok: true, content_type, body: self.body(form, Instant::now, made) })
        };
        match path {
            "/metrics" => page("text/plain; version=0.0.4; charset=utf-8", Form::Text),
            "/metrics/json" => page("application/json", Form::Json),
            "/metrics/summary" => {
                page(PLAIN, Form::Summary).map(|page| Answer { body: page.body + "\n", ..page })
            }
            "/health" => {
                let mut ok = true;
                look(&mut |engines| ok = !engines.iter().any(|engine| engine.is_broken()));
                let body = if ok {
                    "ok\n"
                } else {
                    "an engine of this process failed inside the library: see its log, and restart it\n"
                };
                Some(Answer { ok, content_type: PLAIN, body: body.into() })
            }
            _ => None,
        }
    }

    /// The page that is kept, or a new one.
    fn body(&self, form: Form, now: impl Fn() -> Instant, make: impl FnOnce() -> String) -> String {
        let mut all = self.kept.borrow_mut();
        let begun = now();
        if let Some((_, kept)) = all.iter().find(|(known, kept)| *known == form && begun < kept.until) {
            return kept.body.clone();
        }
        let body = make();
        let made = now();
        let until = made + made.saturating_duration_since(begun).saturating_mul(SHARE).min(LONGEST);
        all.retain(|(known, _)| *known != form);
        all.push((form, Kept { body: body.clone(), until }));
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
        let pages = Pages::default();
        let ask = |form, takes: Duration| {
            pages.body(
                form,
                || clock.get(),
                || {
                    clock.set(clock.get() + takes);
                    made.set(made.get() + 1);
                    made.get().to_string()
                },
            )
        };
        let [brief, long] = [1, 500].map(Duration::from_millis);
        assert_eq!(ask(Form::Text, brief), "1");
        clock.set(clock.get() + brief * (SHARE - 1));
        assert_eq!(ask(Form::Text, brief), "1", "it is kept");
        assert_eq!(ask(Form::Json, brief), "2", "each form by itself");
        clock.set(clock.get() + brief);
        assert_eq!(ask(Form::Text, long), "3", "it is old");
        clock.set(clock.get() + LONGEST - brief);
        assert_eq!(ask(Form::Text, long), "3");
        clock.set(clock.get() + brief);
        assert_eq!(ask(Form::Text, long), "4", "none is older than a second");
    }
}
