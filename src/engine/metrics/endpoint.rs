//! The local port where others read metrics, and the line in the log: one of each per process, for as long as an engine that
//! asked for it lives.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::history::{History, Sample};
use super::{ended, gather, status, Form};
use crate::config::Config;
use crate::engine::Engine;
use crate::observe::endpoint::{Answer, Endpoint};
use crate::observe::page;
use crate::runtime::per_process::PerProcess;

static SHARED: PerProcess<Mutex<Shared>> = PerProcess::new(Mutex::default);

/// Guards who takes part.
#[derive(Default)]
struct Shared {
    endpoint: Option<Arc<Endpoint>>,
    members: usize,
}

/// An engine's part in it; the last one that is dropped closes the port.
pub struct Membership(());

/// The engines of this process.
type Engines = fn() -> Vec<Arc<Engine>>;

/// Takes part, if the settings ask for it. A port that cannot be had is told in the log: transfers do not depend on it.
pub fn join(config: &Config, engines: Engines) -> Option<Membership> {
    if !config.metric {
        return None;
    }
    let mut shared = SHARED.get().lock();
    if shared.endpoint.is_none() {
        shared.endpoint = start(config, engines).map(Arc::new);
    }
    shared.members += 1;
    Some(Membership(()))
}

impl Drop for Membership {
    fn drop(&mut self) {
        let last = {
            let mut shared = SHARED.get().lock();
            shared.members = shared.members.saturating_sub(1);
            if shared.members == 0 {
                shared.endpoint.take()
            } else {
                None
            }
        };
        // Joins its thread, without the lock.
        drop(last);
    }
}

fn start(config: &Config, engines: Engines) -> Option<Endpoint> {
    let port = config.metric_port;
    let listener = (port != 0).then(|| TcpListener::bind((config.metric_host, port)));
    let listener = match listener {
        Some(Err(error)) => {
            tracing::error!(
                "metrics are not served at {}:{port}: {error}; choose another MC_TE_METRIC_HTTP_PORT (transfers go on)",
                config.metric_host
            );
            None
        }
        Some(Ok(listener)) => Some(listener),
        None => None,
    };
    if let Some(address) = listener.as_ref().and_then(|listener| listener.local_addr().ok()) {
        tracing::info!("metrics of this process are served at http://{address}/metrics");
        if !address.ip().is_loopback() {
            tracing::warn!("whoever reaches {address} may read them: nothing protects that port");
        }
    }
    // What is counted from now on is new; engines are not asked, for one is being created.
    let history = Arc::new(Mutex::new(History::default()));
    history.lock().note(Instant::now(), Sample::of(&ended(&[]), &[]));
    let told = {
        let history = history.clone();
        move || {
            let engines = engines();
            tracing::info!("[Metrics] Transfer Engine Stats: {}", gather(&engines, Form::Summary));
            history.lock().note(Instant::now(), Sample::of(&ended(&engines), &engines));
        }
    };
    let listed = config.metric_names.iter().flat_map(|names| names.split(','));
    let names = listed.map(|name| name.trim().to_string()).chain(page::host_name()).collect();
    let started = Endpoint::start(
        listener,
        names,
        config.metric_interval,
        Box::new(told),
        Box::new(move |path| answer(&engines(), &history, path)),
    );
    started.map_err(|error| tracing::error!("metrics are not served: {error}")).ok()
}

/// What is served: the status page, and the rest at upstream's paths.
fn answer(engines: &[Arc<Engine>], history: &Mutex<History>, path: &str) -> Option<Answer> {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let bad = |body: &str| Answer { ok: false, ..Answer::data(PLAIN, body.into()) };
    let told = || status::of(&ended(engines), engines, &mut history.lock(), Instant::now());
    let answer = match path {
        "/" => {
            let Some(nonce) = page::nonce() else { return Some(bad("the kernel has no random numbers\n")) };
            let status = told();
            let body = page::html(&status.title, Some(&status), &nonce);
            Answer { nonce: Some(nonce), ..Answer::data("text/html; charset=utf-8", body) }
        }
        "/status.json" => Answer::data("application/json", told().json()),
        "/metrics" => Answer::data(TEXT, gather(engines, Form::Text)),
        "/metrics/json" => Answer::data("application/json", gather(engines, Form::Json)),
        "/metrics/summary" => Answer::data(PLAIN, gather(engines, Form::Summary) + "\n"),
        "/health" if !engines.iter().any(|engine| engine.is_broken()) => Answer::data(PLAIN, "ok\n".into()),
        "/health" => {
            bad("an engine of this process failed inside the library: see its log, and restart it\n")
        }
        _ => return None,
    };
    Some(answer)
}
