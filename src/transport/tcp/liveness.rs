//! Whether a peer is alive that is silent on its data connections. It is asked on its handshake port: a process that is only
//! slow answers there, one that is stopped, dead or unreachable does not.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Class;
use crate::transport::host::Route;

/// Between two questions, where the first was refused at once. Chosen: several fit into the limit.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether the silence of a peer's handshake port means anything: it does once the peer has answered there. A firewall, or a
/// peer without such a port, must not make it look dead.
#[derive(Default)]
pub(super) struct Liveness(AtomicU8);

const ASKED: u8 = 1;
const ANSWERS: u8 = 2;

impl Liveness {
    /// It has answered before.
    pub(super) fn answers(&self) -> bool {
        self.0.load(Relaxed) == ANSWERS
    }

    /// Whether somebody is to find out if it answers; true once.
    pub(super) fn is_unknown(&self) -> bool {
        self.0.compare_exchange(0, ASKED, Relaxed, Relaxed).is_ok()
    }

    /// What was found out.
    pub(super) fn note(&self, answers: bool) {
        self.0.store(if answers { ANSWERS } else { 0 }, Relaxed);
    }
}

/// Asks for so long. An answer, or a failure of our own, counts as life.
pub(super) async fn is_alive(route: &Arc<dyn Route>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, route.probe()).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) if matches!(error.kind(), Class::Resource | Class::Canceled) => return true,
            Ok(Err(error)) => tracing::debug!("{} does not say whether it is alive: {error}", route.peer()),
            Err(_) => return false,
        }
        if Instant::now() + PAUSE >= deadline {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
