//! Where log lines go: to the host's own logger, if it has set one, else to standard error or the file.

use std::cell::Cell;
use std::io::{self, Write};

use parking_lot::RwLock;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Class, Error, Result};
use crate::runtime::fork;
use crate::runtime::per_process::PerProcess;

/// The host's logger: level and text of a line.
pub type Logger = Box<dyn Fn(Level, &str) + Send + Sync>;

/// Guards the logger; read while it runs, so that it is not in use any more once another one is set. A child of fork has none: a
/// thread of its parent may have been inside.
static LOGGER: PerProcess<RwLock<Option<Logger>>> = PerProcess::new(|| RwLock::new(None));

thread_local! {
    /// This thread is inside the logger: what the library says meanwhile goes to nobody.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Lines go to `logger` from now on; `None`: to standard error or the file again. Waits for lines that are on their way to the one
/// before, so that it is not called any more. -1 from inside of a logger.
pub fn set(logger: Option<Logger>) -> Result<()> {
    if INSIDE.get() {
        return Err(Error::invalid("a logger cannot be set from inside of one").permanent(Class::Argument));
    }
    // So that a child of fork is told from this process, also before there is an engine.
    fork::watch();
    *LOGGER.get().write() = logger;
    Ok(())
}

/// Gives a line to the logger; `false`: there is none.
fn tell(level: Level, text: &str) -> bool {
    if INSIDE.get() {
        return true;
    }
    let logger = LOGGER.get().read();
    let Some(logger) = &*logger else { return false };
    INSIDE.set(true);
    logger(level, text);
    INSIDE.set(false);
    true
}

fn is_set() -> bool {
    INSIDE.get() || LOGGER.get().read().is_some()
}

/// Lines for the host have neither time nor level in the text: it has a clock, and is told the level.
pub(super) struct Lines(Format);

impl Lines {
    /// As the crate has them by default, without colours.
    pub(super) fn new() -> Self {
        Lines(Format::default().with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if is_set() {
            context.field_format().format_fields(writer.by_ref(), event)
        } else {
            self.0.format_event(context, writer, event)
        }
    }
}

/// Writes a line to the host's logger, or to `own`.
pub(super) struct Place<M>(pub M);

/// For one line.
pub(super) struct Line<W> {
    level: Level,
    own: W,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Place<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { level: Level::INFO, own: self.0.make_writer() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line { level: *meta.level(), own: self.0.make_writer_for(meta) }
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A line is one write.
        let text = String::from_utf8_lossy(bytes);
        if tell(self.level, text.trim_end()) {
            return Ok(bytes.len());
        }
        self.own.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.own.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::sync::{mpsc, Arc};
    use std::time::{Duration, Instant};

    use super::*;

    /// Of two threads one is always inside the logger; the one that sets another has its turn all the same.
    #[test]
    fn lines_that_never_end_do_not_keep_a_logger_from_being_taken_back() {
        let entered = AtomicUsize::new(0);
        let logger = move |_: Level, _: &str| {
            let own = entered.fetch_add(1, SeqCst) + 1;
            // Until another thread is inside too, or cannot come in.
            let begun = Instant::now();
            while entered.load(SeqCst) == own && begun.elapsed() < Duration::from_millis(50) {
                std::thread::yield_now();
            }
        };
        set(Some(Box::new(logger))).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let talkers = [(); 2].map(|()| {
            let over = over.clone();
            std::thread::spawn(move || while !over.load(SeqCst) && tell(Level::INFO, "a line") {})
        });
        let (done, taken_back) = mpsc::channel();
        std::thread::spawn(move || done.send(set(None).is_ok()));
        let taken_back = taken_back.recv_timeout(Duration::from_secs(30));
        over.store(true, SeqCst);
        talkers.into_iter().for_each(|talker| talker.join().unwrap());
        assert_eq!(taken_back, Ok(true));
    }
}
