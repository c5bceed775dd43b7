//! The local port where others read metrics, and the line in the log: one of each per process, for as long as an engine that
//! asked for it lives.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::history::{History, Sample};
use super::pages::Pages;
use super::{ended, gather, Form, Look};
use crate::config::Config;
use crate::error::Error;
use crate::observe::endpoint::{listen, Endpoint, Place};
use crate::observe::page;
use crate::runtime::per_process::PerProcess;

/// How long a new engine waits for the port to be closed by the last one of before. Chosen: that takes as long as a page takes to
/// make; a port that is taken even then is tried again anyway.
const CLOSING_LIMIT: Duration = Duration::from_secs(2);

static SHARED: PerProcess<Shared> = PerProcess::new(Shared::default);

#[derive(Default)]
struct Shared {
    /// Guards who takes part.
    state: Mutex<State>,
    /// Whoever waits for `closing` to end sleeps here.
    closed: Condvar,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    members: usize,
    /// A port is being closed, so that it cannot be had yet.
    closing: bool,
}

struct Open {
    asked: Asked,
    /// An engine that asked for something else was told of.
    differed: bool,
    _endpoint: Endpoint,
}

/// What settings ask for.
#[derive(Clone, PartialEq, Eq)]
struct Asked {
    host: IpAddr,
    port: u16,
    interval: Duration,
    /// Names that it is called by.
    names: Option<String>,
}

/// An engine's part in it; the last one that is dropped closes the port.
pub struct Membership(());

/// What goes to the log, once the lock is free: the host's logger must not wait for whoever waits for it.
enum News {
    Serving(SocketAddr),
    Taken(SocketAddr, std::io::Error),
    NoThread(Error),
    Differs,
}

/// Takes part, if the settings ask for it. A port that cannot be had is told in the log, and tried again: transfers do not depend
/// on it.
pub fn join(config: &Config, look: Look) -> Option<Membership> {
    if !config.metric {
        return None;
    }
    let asked = Asked {
        host: config.metric_host,
        port: config.metric_port,
        interval: config.metric_interval,
        names: config.metric_names.clone(),
    };
    let shared = SHARED.get();
    let mut news = Vec::new();
    {
        let mut state = shared.state.lock();
        let deadline = Instant::now() + CLOSING_LIMIT;
        while state.closing && !shared.closed.wait_until(&mut state, deadline).timed_out() {}
        match &mut state.open {
            None => state.open = start(asked, look, &mut news),
            Some(open) if open.asked != asked && !open.differed => {
                open.differed = true;
                news.push(News::Differs);
            }
            Some(_) => {}
        }
        state.members += 1;
    }
    news.into_iter().for_each(News::tell);
    Some(Membership(()))
}

impl Drop for Membership {
    fn drop(&mut self) {
        let shared = SHARED.get();
        let last = {
            let mut state = shared.state.lock();
            state.members = state.members.saturating_sub(1);
            let last = if state.members == 0 { state.open.take() } else { None };
            state.closing |= last.is_some();
            last
        };
        if last.is_some() {
            // Joins its thread, without the lock.
            drop(last);
            shared.state.lock().closing = false;
            shared.closed.notify_all();
        }
    }
}

fn start(asked: Asked, look: Look, news: &mut Vec<News>) -> Option<Open> {
    let address = SocketAddr::new(asked.host, asked.port);
    let listener = (asked.port != 0).then(|| listen(address));
    let place = match listener {
        None => Place::Nowhere,
        Some(Ok(listener)) => {
            news.push(News::Serving(address));
            Place::Here(listener)
        }
        Some(Err(error)) => {
            news.push(News::Taken(address, error));
            Place::Later(address, |address| News::Serving(address).tell())
        }
    };
    // What is counted from now on is new; engines are not asked, for one is being created.
    let history = Arc::new(Mutex::new(History::default()));
    history.lock().note(Instant::now(), Sample::of(&ended(&[]), &[]));
    let noted = history.clone();
    let told = move || {
        let mut line = String::new();
        look(&mut |engines| {
            line = gather(engines, Form::Summary);
            noted.lock().note(Instant::now(), Sample::of(&ended(engines), engines));
        });
        tracing::info!("[Metrics] Transfer Engine Stats: {line}");
    };
    let pages = Pages::new(history);
    let answer = move |path: &str| pages.answer(look, path);
    let listed = asked.names.iter().flat_map(|names| names.split(','));
    let names = listed.map(|name| name.trim().to_string()).chain(page::host_name()).collect();
    match Endpoint::start(place, names, asked.interval, Box::new(told), Box::new(answer)) {
        Ok(endpoint) => Some(Open { asked, differed: false, _endpoint: endpoint }),
        Err(error) => {
            news.clear();
            news.push(News::NoThread(error));
            None
        }
    }
}

impl News {
    fn tell(self) {
        match self {
            News::Serving(address) => {
                tracing::info!("metrics of this process are served at http://{address}/metrics");
                if !address.ip().is_loopback() {
                    tracing::warn!("whoever reaches {address} may read them: nothing protects that port");
                }
            }
            News::Taken(address, error) => tracing::error!(
                "metrics are not served at {address}: {error}; it is tried again every second: free that port, or choose \
                 another MC_TE_METRIC_HTTP_PORT (transfers go on)"
            ),
            News::NoThread(error) => tracing::error!("metrics are not served: {error}"),
            News::Differs => tracing::warn!(
                "MC_TE_METRIC_HTTP_HOST, _PORT, _NAMES and MC_TE_METRIC_INTERVAL_SECONDS of this engine are ignored: those of the \
                 first engine of this process with MC_TE_METRIC hold until the last one has gone"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
