//! Whether a peer is alive that is silent on its data connections. It is asked on its handshake port: a process that is only
//! slow answers there, one that is stopped, dead or unreachable does not.

use std::future::{poll_fn, Future};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::error::Class;
use crate::transport::host::Route;

/// Between two questions, where the first was refused at once. Chosen: several fit into the limit.
const PAUSE: Duration = Duration::from_millis(500);
/// A question that ends so long after its time was not heard out: the process, or its control thread, did not run. Chosen: a busy
/// thread is not so late.
const PAUSED: Duration = Duration::from_millis(500);

/// How long upstream's peers have at least. Chosen: twice what one of their clients can keep their handshake port from all
/// others, since they serve one at a time.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(10);

/// How long a peer has to answer, if `limit` is set: longer if it `is_foreign`, of another project.
pub(super) fn limit_for(limit: Duration, is_foreign: bool) -> Duration {
    if is_foreign {
        limit.max(UPSTREAM_LIMIT)
    } else {
        limit
    }
}

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

    /// What was found out. One that does not answer is not asked again: it may not know the question.
    pub(super) fn note(&self, answers: bool) {
        self.0.store(if answers { ANSWERS } else { ASKED }, Relaxed);
    }
}

/// Asks over all of `routes` at once, each for so long; see [`is_alive`]. The first one that finds life decides.
pub(super) async fn is_alive_by(routes: &[Arc<dyn Route>], limit: Duration) -> bool {
    let mut asked: Vec<_> = routes.iter().map(|route| Box::pin(is_alive(route, limit))).collect();
    poll_fn(|context| {
        let mut alive = false;
        asked.retain_mut(|question| match question.as_mut().poll(context) {
            Poll::Ready(answer) => {
                alive |= answer;
                false
            }
            Poll::Pending => true,
        });
        match alive || asked.is_empty() {
            true => Poll::Ready(alive),
            false => Poll::Pending,
        }
    })
    .await
}

/// Whoever had time until `deadline` was not heard out, because this process did not run.
pub(super) fn was_stopped(deadline: Instant) -> bool {
    Instant::now() > deadline + PAUSED
}

/// Asks for so long. An answer, or a failure of our own, counts as life: a store that does not say where to ask, or that this
/// process was stopped meanwhile.
pub(super) async fn is_alive(route: &Arc<dyn Route>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    match timeout(limit, route.rpc_address()).await {
        Err(_) => return true,
        Ok(Err(error)) if matches!(error.kind(), Class::Network | Class::Timeout) => return true,
        Ok(_) => {}
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, route.probe()).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) if matches!(error.kind(), Class::Resource | Class::Canceled) => return true,
            // Whoever hangs up is there, and has too many clients.
            Ok(Err(error)) if error.errno() == libc::ECONNRESET => return true,
            Ok(Err(error)) => tracing::debug!("{} does not say whether it is alive: {error}", route.peer()),
            Err(_) => return was_stopped(deadline),
        }
        if Instant::now() + PAUSE >= deadline {
            return was_stopped(deadline);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error, Result};
    use crate::handshake::ConnectionMessage;
    use crate::host_port::HostPort;
    use crate::runtime::BoxFuture;
    use crate::transport::host::Offered;
    use std::future::{pending, ready};
    use std::net::IpAddr;

    /// Chosen: short, because every case lasts so long.
    const LIMIT: Duration = Duration::from_millis(20);
    /// Of [`PATIENT`]. Between the two there is time for a busy machine.
    const MOST: Duration = Duration::from_secs(3);
    const PATIENT: Duration = Duration::from_secs(5);

    /// A peer whose handshake port answers nothing, and what goes wrong beside that.
    #[derive(Clone, Copy)]
    enum Peer {
        Silent,
        Refuses,
        /// It answers after most of its time.
        Slow,
        /// The store fails with this class.
        Unlisted(Class),
        /// This process stands still while it is asked.
        SilentWhileStopped,
        RefusesWhileStopped,
    }

    /// Nothing else runs on the thread meanwhile.
    fn stand_still() {
        let began = Instant::now();
        while began.elapsed() < LIMIT + PAUSED + LIMIT {
            std::thread::yield_now();
        }
    }

    impl Route for Peer {
        fn peer(&self) -> &str {
            "peer"
        }

        fn offer(&self) -> Offered {
            Offered { offer: None, version: 0 }
        }

        fn refresh(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(pending())
        }

        fn rpc_address(&self) -> BoxFuture<'_, Result<HostPort>> {
            Box::pin(ready(match self {
                Peer::Unlisted(class) => Err(Error::new(Code::Metadata, "no entry").transient(*class)),
                _ => Ok(crate::host_port::parse("peer", 1)),
            }))
        }

        fn probe(&self) -> BoxFuture<'_, Result<()>> {
            let refused = || Err(Error::new(Code::Socket, "refused"));
            match self {
                Peer::Silent => Box::pin(pending()),
                Peer::Refuses | Peer::Unlisted(_) => Box::pin(ready(refused())),
                Peer::Slow => Box::pin(async {
                    tokio::time::sleep(MOST).await;
                    Ok(())
                }),
                Peer::SilentWhileStopped => Box::pin(async {
                    stand_still();
                    pending().await
                }),
                Peer::RefusesWhileStopped => Box::pin(async move {
                    stand_still();
                    refused()
                }),
            }
        }

        fn exchange(&self, _: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>> {
            Box::pin(pending())
        }

        fn by_way_of(&self, _: IpAddr) -> Arc<dyn Route> {
            Arc::new(*self)
        }
    }

    #[test]
    fn whether_a_peer_answers_is_found_out_once() {
        let liveness = Liveness::default();
        assert!(!liveness.answers() && liveness.is_unknown());
        assert!(!liveness.is_unknown(), "somebody is at it");
        liveness.note(false);
        assert!(!liveness.answers() && !liveness.is_unknown());
        liveness.note(true);
        assert!(liveness.answers() && !liveness.is_unknown());
    }

    #[test]
    fn only_a_peers_own_silence_makes_it_look_dead() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for (what, peer, alive) in [
            ("it does not answer", Peer::Silent, false),
            ("nobody listens", Peer::Refuses, false),
            ("its entry is gone", Peer::Unlisted(Class::Metadata), false),
            ("the store is down", Peer::Unlisted(Class::Network), true),
            ("the store is slow", Peer::Unlisted(Class::Timeout), true),
            ("we were stopped", Peer::SilentWhileStopped, true),
            ("we were stopped, and an attempt failed of it", Peer::RefusesWhileStopped, true),
        ] {
            let route: Arc<dyn Route> = Arc::new(peer);
            assert_eq!(runtime.block_on(is_alive(&route, LIMIT)), alive, "{what}");
        }
    }
    #[test]
    fn a_slow_peer_has_its_whole_time_by_each_way() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for (peers, alive) in [
            (&[Peer::Silent, Peer::Slow][..], true),
            (&[Peer::Slow, Peer::Silent], true),
            (&[Peer::Refuses, Peer::Silent], false),
            (&[], false),
        ] {
            let routes: Vec<Arc<dyn Route>> =
                peers.iter().map(|peer| Arc::new(*peer) as Arc<dyn Route>).collect();
            assert_eq!(runtime.block_on(is_alive_by(&routes, PATIENT)), alive);
        }
    }
}
