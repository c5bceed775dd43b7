//! A link, as the thread that looks after it sees it.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use super::connecting::SILENCE;
use super::pulling::CHUNK;
use super::{ShmLink, WITHDRAWN_LIMIT};
use crate::error::{Class, Error};
use crate::transport::shm::ends::finish;
use crate::transport::shm::errors;
use crate::transport::shm::kernel::MOST_MESSAGES;
use crate::transport::shm::lane::{Lane, Stage};
use crate::transport::shm::reactor::{Next, Watched};
use crate::transport::shm::wire::{self, End, Kind, MOST_BYTES};
use crate::transport::slice::{canceled, Slice};
use crate::transport::Link;

/// How long the answer to the greeting may take. Chosen: the peer's thread gives it in microseconds, unless it is stopped.
const GREETING_LIMIT: Duration = Duration::from_secs(3);
/// How long a connection is kept for the sake of trails. Chosen: a process that was stopped for a minute is mostly not continued.
const LINGER: Duration = Duration::from_secs(60);

impl Watched for ShmLink {
    fn token(&self) -> u64 {
        self.token
    }

    fn on_ready(&self) -> Next {
        if self.is_polled() {
            return Next::Look;
        }
        let Some(lane) = self.lane.try_lock() else { return Next::Look };
        self.with_locked(lane, |lane, peer| {
            lane.sleep();
            lane.receive(peer)
        });
        // Locked anew: after an end there is nothing to arm.
        self.arm();
        match self.has_reads() {
            true => Next::Work,
            false => Next::Done,
        }
    }

    fn work(&self) -> Next {
        match self.pull_some(CHUNK) {
            0 => Next::Done,
            _ => Next::Work,
        }
    }

    fn tick(&self, now: Instant, paused: Duration) -> Next {
        let mut lane = self.lane.lock();
        if !lane.lingering.is_empty() {
            self.tick_lingering(&mut lane, now);
        }
        if !paused.is_zero() {
            lane.heard = now;
        }
        lane.unshare_freed();
        if !lane.is_busy() {
            return Next::Done;
        }
        let peer = self.peer();
        let ended = match &lane.stage {
            Stage::Greeting(_, since) if now.saturating_duration_since(*since) > GREETING_LIMIT + paused => {
                Some(errors::silent(GREETING_LIMIT, peer))
            }
            Stage::Up(connection) | Stage::Greeting(connection, _) if connection.has_ended() => {
                Some(errors::hung_up(peer))
            }
            _ => None,
        };
        if let Some(error) = ended {
            self.lose(lane, &error, false);
            return Next::Done;
        }
        let silence = now.saturating_duration_since(lane.heard);
        let allowed = self.shared.config.tcp_status_timeout;
        if lane.awaits() && silence > allowed {
            self.lose(lane, &errors::unanswered(allowed, peer), true);
            return Next::Done;
        }
        if lane.awaits() && silence > SILENCE && !lane.is_probed && !self.shared.config.tcp_liveness.is_zero()
        {
            lane.is_probed = true;
            self.probe(lane.generation);
        }
        let checks_deadlines = self.shared.config.slice_timeout.is_some();
        self.with_locked(lane, |lane, peer| {
            if checks_deadlines {
                let due = |slice: &Slice| slice.work().deadline().is_some_and(|deadline| deadline <= now);
                lane.abandon(due, &errors::late(peer), peer)?;
                lane.disown(due, &errors::late(peer));
            }
            // A peer that is stopped cannot tell of what it left in the ring.
            lane.receive_by_ring(peer)?;
            // What could not be told because the socket was full.
            let unwanted = |slice: &Slice| slice.is_revoked() || slice.is_given_up();
            lane.abandon(unwanted, &canceled(), peer)?;
            lane.disown_withdrawn(now, WITHDRAWN_LIMIT);
            Ok(true)
        });
        match self.has_reads() {
            true => Next::Work,
            false => Next::Done,
        }
    }

    fn abandon(&self) {
        let text = "a thread for engines on this host failed inside the library; destroy the engine and report the log";
        self.close(&Error::invalid(text).permanent(Class::Internal));
    }
}

impl ShmLink {
    /// Connections that were given up, until their peers have said what became of the last requests.
    fn tick_lingering(&self, lane: &mut Lane, now: Instant) {
        let peer = self.route.peer();
        lane.lingering.retain_mut(|lingering| {
            lingering.told.unshare_freed(&lingering.connection.socket);
            let mut buffer = [0u8; MOST_BYTES];
            let mut ended = false;
            if let Some(ring) = lingering.connection.ring.as_mut().and_then(Option::as_mut) {
                for (_, [tag, end, ..]) in ring.messages() {
                    let end = End::of(end).unwrap_or(End::Withdrawn);
                    finish(lingering.awaited.take(tag), end, 0, peer);
                }
            }
            // What is left is taken at the next tick.
            for _ in 0..MOST_MESSAGES {
                match (&*lingering.connection.socket).read(&mut buffer) {
                    Ok(0) => ended = true,
                    Ok(len) => {
                        let Some((Kind::Ended, entries)) = wire::decode(&buffer[..len]) else { continue };
                        for [tag, end, ..] in entries {
                            let end = End::of(end).unwrap_or(End::Withdrawn);
                            finish(lingering.awaited.take(tag), end, 0, peer);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => ended = true,
                }
                if ended {
                    break;
                }
            }
            if ended || lingering.connection.has_ended() {
                lingering.awaited.change_all(|awaited| {
                    finish(Some(awaited), End::Withdrawn, 0, peer);
                    None
                });
            }
            !lingering.awaited.is_empty() && now.saturating_duration_since(lingering.since) < LINGER
        });
    }
}
