//! Connecting a rail as the side that has something to post: queue pairs, handshake, ready message. Runs on the control
//! plane; what blocks in the driver runs on its blocking threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Remote};
use super::gid::{self, LocalGid};
use super::gid_choice::{self, Wish};
use super::peer::incarnation_number;
use super::rail::events::{Attempt, By};
use super::rail::{Event, Rail};
use super::refusal::{by_peer, unusable, Reason, LAST_QP_NUMBER};
use super::route::{PeerDesc, PeerNic, Route};
use super::setup::{self, blocking};
use super::shared::Shared;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::ConnectionMessage;

/// Longest handshake, as upstream waits for one.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Connection requests of this process so far.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// How many there were.
pub(super) fn requests() -> u64 {
    REQUESTS.load(Ordering::Relaxed)
}

/// Connects `rail` to the peer that `route` leads to; the rail is told how it ended, unless it has abandoned the attempt
/// before.
pub(super) fn start(shared: Arc<Shared>, rail: Arc<Rail>, attempt: Attempt, route: Arc<dyn Route>) {
    let abandoned = rail.abandoned(attempt);
    shared.control.clone().spawn(async move {
        let mut guard = Guard { rail: Some(rail.clone()), attempt, used: None };
        let attempts = set_up(shared.clone(), rail.clone(), attempt, route, &mut guard.used);
        let limited = tokio::select! {
            biased;
            _ = abandoned => None,
            limited = tokio::time::timeout(HANDSHAKE_LIMIT, attempts) => Some(limited),
        };
        let Some(limited) = limited else {
            // What it made is the rail's, which has stopped it or goes on with it. The peer must not hear of it any more.
            drop(guard.end());
            return tracing::debug!("connect {}: abandoned", rail.name());
        };
        let outcome = limited.unwrap_or_else(|_| {
            let text = format!("no answer of {} within {HANDSHAKE_LIMIT:?}", rail.peer);
            Err(Error::new(Code::Endpoint, text).transient(Class::Timeout))
        });
        let used = guard.end();
        match outcome {
            Ok(connection) => {
                shared.stats.connections.fetch_add(1, Ordering::Relaxed);
                setup::make_room(&shared, &rail);
                rail.feed(Event::Connected(attempt, connection));
            }
            Err(error) => {
                let error = error.context(format!("connect {}", rail.name())).peer(&rail.peer);
                // The rail may have a connection that the peer asked for, and then nobody else tells.
                tracing::debug!("{error}");
                let usable = used.as_ref().is_some_and(|connection| connection.is_open());
                rail.feed(Event::AttemptFailed { attempt, connection: used, usable, cause: error });
            }
        }
    });
}

/// An attempt that is dropped before its end, by a panic or with the engine, is told to the rail too. Else the rail would
/// wait for it for ever.
struct Guard {
    /// `None` at the end.
    rail: Option<Arc<Rail>>,
    attempt: Attempt,
    /// The connection of the last attempt.
    used: Option<Arc<Connection>>,
}

impl Guard {
    /// The attempt has come to its end; gives back the connection that it used last.
    fn end(mut self) -> Option<Arc<Connection>> {
        self.rail = None;
        self.used.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(rail) = self.rail.take() else { return };
        let text = format!("connect {}: the attempt was given up", rail.name());
        let cause = Error::new(Code::Endpoint, text).transient(Class::Internal).peer(&rail.peer);
        let (connection, attempt) = (self.used.take(), self.attempt);
        rail.feed(Event::AttemptFailed { attempt, connection, usable: false, cause });
    }
}

/// `used` is the connection of the last attempt.
async fn set_up(
    shared: Arc<Shared>,
    rail: Arc<Rail>,
    attempt: Attempt,
    route: Arc<dyn Route>,
    used: &mut Option<Arc<Connection>>,
) -> Result<Arc<Connection>> {
    let (desc, _) = route.desc()?;
    let remote = nic_of(&desc, &rail.peer)?;
    let mut gid = match gid::parse(&remote.gid) {
        Some(peer) => gid_choice::usual(&rail.nic, Some(&rail), &peer),
        None => rail.gid(),
    };
    let mut tried = Vec::new();
    loop {
        let (connection, letterbox) =
            prepared(shared.clone(), rail.clone(), attempt, gid, desc.notifies).await?;
        *used = Some(connection.clone());
        tried.push(connection.gid.index);
        let outcome =
            shake_hands(&shared, &rail, &route, &desc, &remote, connection.clone(), letterbox).await;
        let error = match outcome {
            Ok(None) => {
                if rail.gid() != connection.gid {
                    setup::adopt_gid(&shared, &rail, connection.gid, tried.len());
                }
                return Ok(connection);
            }
            Ok(Some(other)) if tried.len() > 1 => {
                let text = format!("no GID of ours leads to the peer, {} neither", gid::text(&other.bytes));
                return Err(unusable(Reason::LinkLocal, &text));
            }
            Ok(Some(other)) => {
                gid_choice::adopt(&rail, other);
                gid = other;
                let text = format!("the peer is reached from {} only", gid::text(&gid.bytes));
                unusable(Reason::LinkLocal, &text)
            }
            Err(error) => {
                let (of, nic, except) = (shared.clone(), rail.nic.clone(), tried.clone());
                let cause = error.clone();
                gid = blocking(move || setup::other_gid(&of, &nic, &cause, &except).ok_or(cause)).await?;
                error
            }
        };
        tracing::warn!("{}: {error}; trying GID {}", rail.name(), gid::text(&gid.bytes));
        rail.feed(Event::StartedOver(attempt, connection, error));
        *used = None;
    }
}

/// `Some`: another GID of ours is needed, because the peer has moved to one that this one does not lead to.
async fn shake_hands(
    shared: &Arc<Shared>,
    rail: &Arc<Rail>,
    route: &Arc<dyn Route>,
    desc: &PeerDesc,
    remote: &PeerNic,
    connection: Arc<Connection>,
    letterbox: Option<u32>,
) -> Result<Option<LocalGid>> {
    let own_path = shared.own_path(&rail.nic);
    if own_path == rail.peer {
        return loop_back(shared, rail, connection).await.map(|()| None);
    }
    let port = rail.nic.port();
    let request = ConnectionMessage {
        local_nic_path: own_path,
        peer_nic_path: rail.peer.clone(),
        local_lid: port.lid,
        local_gid: gid::text(&connection.gid.bytes),
        qp_num: connection.numbers(),
        ready_ack: Some(false),
        incarnation: desc.incarnation.clone(),
        own_incarnation: Some(shared.identity.incarnation.clone()),
        path_mtu: Some(rail.nic.path_mtu(&shared.config, None)),
        attempt: Some(REQUESTS.fetch_add(1, Ordering::Relaxed) + 1),
        notify_qp_num: letterbox,
        ..ConnectionMessage::default()
    };
    let reply = route.exchange(request.clone()).await?;
    check_reply(&request, &reply)?;
    let gid = gid::parse(if reply.local_gid.is_empty() { &remote.gid } else { &reply.local_gid })
        .ok_or_else(|| protocol(format!("the peer's GID '{}' is none", reply.local_gid)))?;
    if rail.nic.check_reach(&connection.gid, &gid).is_err() {
        let (of, rail, is_foreign) = (shared.clone(), rail.clone(), desc.incarnation.is_none());
        let choose = move || {
            let wish = Wish { peer: &gid, is_foreign, reprobe_from: None };
            gid_choice::choose(&of, &rail.nic, Some(&rail), &wish)
                .map_err(|text| unusable(Reason::LinkLocal, &text))
        };
        return blocking(choose).await.map(Some);
    }
    let to = Remote {
        gid,
        lid: if reply.local_gid.is_empty() { remote.lid } else { reply.local_lid },
        mtu: rail.nic.path_mtu(&shared.config, reply.path_mtu),
        qp_numbers: reply.qp_num.clone(),
    };
    let incarnation = desc.incarnation.as_deref().map_or(0, incarnation_number);
    let notify = Notify { offered: letterbox.is_some(), peer: reply.notify_qp_num };
    bring_up(shared, rail.clone(), connection.clone(), to, (incarnation, reply.attempt), notify).await?;
    if reply.ready_ack.is_some() {
        let ready = ConnectionMessage { ready_ack: Some(true), ..request };
        let receipt = route.exchange(ready).await?;
        if !receipt.reply_msg.is_empty() {
            return Err(by_peer(&receipt));
        }
    }
    Ok(None)
}

/// The rail's connection that is being set up, or a new one with our GID `gid`; and where a peer that `notifies` may send
/// notifications to.
async fn prepared(
    shared: Arc<Shared>,
    rail: Arc<Rail>,
    attempt: Attempt,
    gid: LocalGid,
    notifies: bool,
) -> Result<(Arc<Connection>, Option<u32>)> {
    blocking(move || {
        let _setup = rail.setup.lock();
        rail.check_current(attempt)?;
        let made = rail.connection().filter(|connection| connection.is_open());
        let make = || setup::make(&shared, &rail, shared.config.qps_per_endpoint, gid, By::Own(attempt));
        let connection = made.map_or_else(make, Ok)?;
        let letterbox = notifies.then(|| shared.inbox(&rail.nic).offer(&connection)).flatten();
        Ok((connection, letterbox))
    })
    .await
}

/// Where the peer's notifications are to arrive.
#[derive(Clone, Copy, Default)]
struct Notify {
    /// We have offered a queue pair for them.
    offered: bool,
    /// The queue pair that the peer sends them from.
    peer: Option<u32>,
}

/// Connects the queue pairs, unless the peer's own request did so meanwhile. `of` is the peer's incarnation, and how many
/// requests it had made by then.
async fn bring_up(
    shared: &Arc<Shared>,
    rail: Arc<Rail>,
    connection: Arc<Connection>,
    to: Remote,
    of: (u64, Option<u64>),
    notify: Notify,
) -> Result<()> {
    let shared = shared.clone();
    blocking(move || {
        let mut setup = rail.setup.lock();
        if connection.cause().is_some() {
            return Err(Error::new(Code::Endpoint, "the connection was given up meanwhile"));
        }
        match connection.peer_numbers() {
            Some(known) if known == to.qp_numbers => {}
            Some(_) => {
                let text = "both sides connected at once with different queue pairs; trying again";
                return Err(Error::new(Code::Endpoint, text).transient(Class::Network));
            }
            None => connection.connect(&rail.nic, &shared.config, &to)?,
        }
        let (incarnation, requests) = of;
        connection.incarnation.store(incarnation, Ordering::Relaxed);
        setup.overtake(incarnation, requests);
        let inbox = shared.inbox(&rail.nic);
        match notify.peer.filter(|number| *number <= LAST_QP_NUMBER) {
            _ if !notify.offered => {}
            Some(number) => drop(inbox.connect(&connection, &to, number)),
            None => inbox.withdraw(&connection),
        }
        Ok(())
    })
    .await
}

/// A NIC to itself: each queue pair is its own peer, and no message is needed.
async fn loop_back(shared: &Arc<Shared>, rail: &Arc<Rail>, connection: Arc<Connection>) -> Result<()> {
    let to = Remote {
        gid: connection.gid.bytes,
        lid: rail.nic.port().lid,
        mtu: rail.nic.path_mtu(&shared.config, None),
        qp_numbers: connection.numbers(),
    };
    let incarnation = incarnation_number(&shared.identity.incarnation);
    bring_up(shared, rail.clone(), connection, to, (incarnation, None), Notify::default()).await
}

fn nic_of(desc: &PeerDesc, path: &str) -> Result<PeerNic> {
    let name = path.split_once('@').map_or("", |(_, name)| name);
    let found = desc.nics.iter().find(|nic| nic.name == name);
    found.cloned().ok_or_else(|| {
        let text = format!("the peer does not publish NIC '{name}' any more");
        Error::new(Code::DeviceNotFound, text).transient(Class::Device)
    })
}

/// Whether a reply accepts what was asked for.
pub(super) fn check_reply(request: &ConnectionMessage, reply: &ConnectionMessage) -> Result<()> {
    if !reply.reply_msg.is_empty() {
        return Err(by_peer(reply));
    }
    if reply.local_nic_path != request.peer_nic_path || reply.peer_nic_path != request.local_nic_path {
        let text = format!(
            "the reply speaks for '{}' to '{}' (upstream up to v0.3.11 refuses so without a reason)",
            reply.local_nic_path, reply.peer_nic_path
        );
        return Err(unusable(Reason::Request, &text));
    }
    if reply.qp_num.iter().any(|number| *number > LAST_QP_NUMBER) {
        return Err(protocol("the peer's queue pair numbers have more than 24 bits".into()));
    }
    let (ours, theirs) = (request.qp_num.len(), reply.qp_num.len());
    if ours != theirs {
        let text =
            format!("{theirs} queue pairs offered for {ours}; set MC_NUM_QP_PER_EP alike on both sides");
        return Err(unusable(Reason::Request, &text));
    }
    Ok(())
}

fn protocol(text: String) -> Error {
    Error::new(Code::RejectHandshake, text).permanent(Class::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn a_reply_is_taken_if_it_answers_the_request_with_as_many_queue_pairs() {
        let request = ConnectionMessage {
            local_nic_path: "here@a".into(),
            peer_nic_path: "there@b".into(),
            qp_num: vec![1, 2],
            ..ConnectionMessage::default()
        };
        let reply = ConnectionMessage {
            local_nic_path: "there@b".into(),
            peer_nic_path: "here@a".into(),
            qp_num: vec![3, LAST_QP_NUMBER],
            ..ConnectionMessage::default()
        };
        check_reply(&request, &reply).unwrap();
        let with = |change: &dyn Fn(&mut ConnectionMessage)| {
            let mut other = reply.clone();
            change(&mut other);
            check_reply(&request, &other).unwrap_err()
        };
        assert!(with(&|reply| reply.reply_msg = "full".into()).to_string().contains("full"));
        assert!(with(&|reply| reply.local_nic_path = "there@c".into()).to_string().contains("there@c"));
        assert!(with(&|reply| reply.peer_nic_path = "here@c".into()).to_string().contains("here@c"));
        let wide = with(&|reply| reply.qp_num = vec![3, LAST_QP_NUMBER + 1]);
        assert!(wide.kind() == Class::Protocol && wide.to_string().contains("24 bits"), "{wide}");
        for numbers in [vec![3], vec![3, 4, 5]] {
            let error = with(&|reply| reply.qp_num = numbers.clone());
            assert!(error.to_string().contains("queue pairs offered for 2"), "{error}");
        }
    }
}
