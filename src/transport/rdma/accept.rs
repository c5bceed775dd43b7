//! Connecting a rail as the side that is asked (type-0 messages). Runs on the control plane.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::connect;
use super::connection::{Connection, Remote};
use super::errors::destroyed;
use super::gid::{self, LocalGid};
use super::gid_choice::{self, Wish};
use super::nic::Nic;
use super::peer::incarnation_number;
use super::rail::events::By;
use super::rail::{Event, Rail};
use super::refusal::{Reason, Refusal, LAST_QP_NUMBER};
use super::setup::{self, blocking};
use super::shared::Shared;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::ConnectionMessage;
use crate::observe::log::cut;

/// Most queue pairs that a peer may ask for.
const MOST_QUEUE_PAIRS: usize = 64;
/// Longest NIC path accepted.
const LONGEST_PATH: usize = 1024;
/// Longest GID and incarnation accepted. Chosen: a GID has 47 characters, an incarnation 32.
const LONGEST_WORD: usize = 64;
/// Bytes of a peer's text that a log line shows. Chosen: server names and NIC names are shorter.
const SHOWN: usize = 80;

/// The reply to a connection request or ready message. A refusal is a reply with a reason.
pub(super) async fn accept(shared: Arc<Shared>, request: ConnectionMessage) -> ConnectionMessage {
    let from = cut(&request.local_nic_path, SHOWN).to_string();
    match answer(shared.clone(), request).await {
        Ok(reply) => reply,
        Err(refusal) => {
            shared.stats.rejected.fetch_add(1, Ordering::Relaxed);
            if shared.log.admit("rejected connection", &from) {
                tracing::warn!("connection of {from:?} refused: {}", refusal.error);
            }
            refusal.reply()
        }
    }
}

async fn answer(shared: Arc<Shared>, request: ConnectionMessage) -> Result<ConnectionMessage, Refusal> {
    check_lengths(&request)?;
    if request.withdraw == Some(true) {
        return Ok(blocking(move || Ok(withdrawn(&shared, &request))).await?);
    }
    let nic = addressed(&shared, &request.peer_nic_path)?;
    if let Some(expected) = request.incarnation.as_deref().filter(|id| *id != shared.identity.incarnation) {
        let text = format!(
            "incarnation {expected} is gone: this engine was started anew; read the descriptor again"
        );
        return Err(Refusal::new(Reason::Stale, text));
    }
    let from = &request.local_nic_path;
    if from.split_once('@').is_none_or(|(_, nic)| nic.is_empty()) {
        return Err(refusal(format!("Invalid local_nic_path: {from:.80}")));
    }
    if request.ready_ack == Some(true) {
        return acknowledged(&shared, &nic, &request);
    }
    if request.qp_num.is_empty() {
        return Err(refusal(format!("0 queue pairs are not from 1 to {MOST_QUEUE_PAIRS}")));
    }
    let (gid_text, lid) = match request.local_gid.as_str() {
        "" => shared.host.look_up_nic(from).await?,
        text => (text.to_string(), request.local_lid),
    };
    if request.qp_num.iter().any(|number| *number > LAST_QP_NUMBER) {
        return Err(refusal("queue pair numbers have 24 bits".into()));
    }
    let gid = gid::parse(&gid_text).ok_or_else(|| refusal(format!("Invalid peer GID: {gid_text:.80}")))?;
    let mtu = nic.path_mtu(&shared.config, request.path_mtu.filter(|mtu| *mtu >= 256));
    let to = Remote { gid, lid, mtu, qp_numbers: request.qp_num.clone() };
    let incarnation = request.own_incarnation.as_deref().map_or(0, incarnation_number);
    let (of, will_confirm, counts) = (shared.clone(), request.ready_ack.is_some(), request.attempt.is_some());
    let _turn = shared.accepting.acquire().await.map_err(|_| destroyed())?;
    // All of it in one piece, because the peer may hang up, after which nobody waits for this.
    let (on, peer) = (nic.clone(), from.clone());
    let (connection, requests, notify_qp_num) = blocking(move || {
        let wish = Wish {
            peer: &to.gid,
            is_foreign: request.own_incarnation.is_none(),
            reprobe_from: request.auto_gid_reprobe_from.as_deref(),
        };
        let known = of.rails(&on).find(&peer);
        let own = match gid_choice::choose(&of, &on, known.as_deref(), &wish) {
            Ok(own) => own,
            Err(text) => return Ok(Err(Refusal::new(Reason::LinkLocal, text))),
        };
        let rail = of.rail(&on, &peer);
        let joined = join(&of, &rail, &to, own, incarnation, request.attempt);
        if let Ok((connection, _)) = &joined {
            setup::make_room(&of, &rail);
            // Whoever does not announce a message of readiness is ready.
            if !will_confirm {
                rail.feed(Event::Ready(connection.clone()));
            }
        }
        Ok(joined.map(|(connection, requests)| {
            let notify =
                request.notify_qp_num.and_then(|number| letterbox(&of, &on, &connection, &to, number));
            (connection, requests, notify)
        }))
    })
    .await??;
    let port = nic.port();
    let reply = ConnectionMessage {
        local_nic_path: shared.own_path(&nic),
        peer_nic_path: from.clone(),
        local_lid: port.lid,
        local_gid: gid::text(&connection.gid.bytes),
        qp_num: connection.numbers(),
        ready_ack: request.ready_ack.map(|_| false),
        own_incarnation: Some(shared.identity.incarnation.clone()),
        path_mtu: Some(mtu),
        attempt: counts.then_some(requests),
        notify_qp_num,
        ..ConnectionMessage::default()
    };
    Ok(reply)
}

/// Refuses what is longer than anything that is meant, before any of it is kept, compared or logged.
fn check_lengths(request: &ConnectionMessage) -> Result<(), Refusal> {
    let paths = [("local_nic_path", &request.local_nic_path), ("peer_nic_path", &request.peer_nic_path)];
    if let Some((name, path)) = paths.iter().find(|(_, path)| path.len() > LONGEST_PATH) {
        return Err(refusal(format!("Invalid {name}: {path:.80}")));
    }
    if request.local_gid.len() > LONGEST_WORD {
        return Err(refusal(format!("Invalid peer GID: {:.80}", request.local_gid)));
    }
    let incarnations = [&request.incarnation, &request.own_incarnation];
    if incarnations.into_iter().flatten().any(|id| id.len() > LONGEST_WORD) {
        return Err(refusal(format!("an incarnation has at most {LONGEST_WORD} characters")));
    }
    let count = request.qp_num.len();
    if count > MOST_QUEUE_PAIRS {
        return Err(refusal(format!("{count} queue pairs are not from 1 to {MOST_QUEUE_PAIRS}")));
    }
    Ok(())
}

/// The NIC that a request is for.
fn addressed(shared: &Shared, path: &str) -> Result<Arc<Nic>, Refusal> {
    let name = path.split_once('@').map(|(_, name)| name).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| refusal(format!("Invalid peer_nic_path: {path:.80}")))?;
    let nic = shared.nics.iter().find(|nic| nic.name == name);
    let unknown = || Refusal::new(Reason::Nic, format!("this node has no NIC '{name:.80}' in use"));
    let nic = nic.ok_or_else(unknown)?;
    if !nic.is_active() {
        let text = format!("NIC '{name}' is not active: {}", nic.port().last_error);
        return Err(Refusal::new(Reason::Inactive, text));
    }
    Ok(nic.clone())
}

/// Connects queue pairs to the peer's: those of our own request that is under way, or new ones. If the
/// driver refuses the path with our GID, new ones with another GID. With them, how many requests of ours there were
/// before. Blocks on the driver.
fn join(
    shared: &Shared,
    rail: &Arc<Rail>,
    to: &Remote,
    own: LocalGid,
    incarnation: u64,
    number: Option<u64>,
) -> Result<(Arc<Connection>, u64), Refusal> {
    let mut setup = rail.setup.lock();
    let admitted = setup.admits(incarnation, number);
    let mut current = rail.connection().filter(|connection| connection.is_open());
    // A successor may have the numbers of its predecessor's queue pairs, and knows nothing of ours.
    let is_of = |known: u64| known == 0 || incarnation == 0 || known == incarnation;
    let is_to = |connection: &Arc<Connection>| {
        let is_of_it = is_of(connection.incarnation.load(Ordering::Relaxed));
        is_of_it && connection.peer_numbers() == Some(&to.qp_numbers)
    };
    if let Some(connection) = current.take_if(|connection| is_to(connection)) {
        return Ok((connection, connect::requests()));
    }
    if !admitted {
        let text = "connection request for queue pairs that do not exist: a later request of the same engine was faster";
        return Err(Refusal::new(Reason::NoConnection, text));
    }
    if let Some(connection) = &current {
        match connection.peer_numbers() {
            Some(_) => {
                // The peer has given its end up; ours is destroyed before the new one is made.
                let text = format!("{} connected anew", rail.peer);
                let why = Error::new(Code::Endpoint, text).transient(Class::Network);
                rail.feed(Event::Interrupted(connection.clone(), why.clone()));
                connection.give_up(why, shared.now_ms());
                current = None;
            }
            None if connection.gid != own => {
                // Of our own attempt, which begins anew with the GID that the peer can be reached from.
                let text = format!("{} needs another GID of ours", rail.peer);
                let why = Error::new(Code::Endpoint, text).transient(Class::Network);
                rail.feed(Event::Interrupted(connection.clone(), why));
                current = None;
            }
            None if connection.queues.len() != to.qp_numbers.len() => {
                let (ours, theirs) = (connection.queues.len(), to.qp_numbers.len());
                let text = format!("{theirs} queue pairs asked for, {ours} here; set MC_NUM_QP_PER_EP alike");
                return Err(refusal(text));
            }
            None => {}
        }
    }
    gid_choice::adopt(rail, own);
    let mut gid = own;
    let mut tried = Vec::new();
    loop {
        let connection = match current.take() {
            Some(connection) => connection,
            None => setup::make(shared, rail, to.qp_numbers.len(), gid, By::Peer)?,
        };
        tried.push(connection.gid.index);
        let Err(error) = connection.connect(&rail.nic, &shared.config, to) else {
            connection.incarnation.store(incarnation, Ordering::Relaxed);
            rail.feed(Event::Accepted(connection.clone()));
            setup::adopt_gid(shared, rail, connection.gid, tried.len());
            return Ok((connection, connect::requests()));
        };
        rail.feed(Event::Interrupted(connection, error.clone()));
        gid = setup::other_gid(shared, &rail.nic, &error, &tried).ok_or_else(|| error.clone())?;
        tracing::warn!("{}: {error}; trying GID {}", rail.name(), gid::text(&gid.bytes));
    }
}

/// The queue pair that the peer's `number` can send notifications to. Blocks on the driver.
fn letterbox(
    shared: &Shared,
    nic: &Nic,
    connection: &Arc<Connection>,
    to: &Remote,
    number: u32,
) -> Option<u32> {
    let usable = number <= LAST_QP_NUMBER;
    let inbox = shared.inbox(nic);
    let own = usable.then(|| inbox.offer(connection)).flatten()?;
    inbox.connect(connection, to, number).then_some(own)
}

/// The peer says that it is ready.
fn acknowledged(
    shared: &Shared,
    nic: &Arc<Nic>,
    request: &ConnectionMessage,
) -> Result<ConnectionMessage, Refusal> {
    let unknown = || Refusal::new(Reason::NoConnection, "ready message for a connection that does not exist");
    let rail = shared.rails(nic).find(&request.local_nic_path).ok_or_else(unknown)?;
    let connection = rail.connection().ok_or_else(unknown)?;
    if connection.peer_numbers() != Some(request.qp_num.as_slice()) {
        // As if there were none: the peer's was evicted, and this one was made since.
        let text = "ready message of another connection: the queue pair numbers differ";
        return Err(Refusal::new(Reason::NoConnection, text));
    }
    rail.feed(Event::Ready(connection));
    Ok(ConnectionMessage::default())
}

/// The peer gives its end of a connection up. It is told so when no packet of it can arrive any more.
fn withdrawn(shared: &Shared, request: &ConnectionMessage) -> ConnectionMessage {
    let name = request.peer_nic_path.split_once('@').map_or("", |(_, name)| name);
    // Whether or not it is active: its port may be what failed.
    let nic = shared.nics.iter().find(|nic| nic.name == name);
    let rail = nic.and_then(|nic| shared.rails(nic).find(&request.local_nic_path));
    for connection in rail.iter().flat_map(|rail| rail.connections_to(&request.qp_num)) {
        let text = format!("{} gave this connection up", request.local_nic_path);
        let why = Error::new(Code::Endpoint, text).transient(Class::Network);
        rail.iter().for_each(|rail| rail.feed(Event::Interrupted(connection.clone(), why.clone())));
        // The rail may have lost it a moment ago, and another thread may not have come to stopping it.
        connection.give_up(why, shared.now_ms());
    }
    let own_incarnation = Some(shared.identity.incarnation.clone());
    ConnectionMessage { own_incarnation, ..ConnectionMessage::default() }
}

fn refusal(text: String) -> Refusal {
    Refusal::new(Reason::Request, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is as long as the limit is looked at, and a longer one refused before that.
    #[test]
    fn lengths_have_limits() {
        let text = |len| "x".repeat(len);
        let with = |change: &dyn Fn(&mut ConnectionMessage)| {
            let mut request = ConnectionMessage::default();
            change(&mut request);
            check_lengths(&request).is_ok()
        };
        for (extra, fits) in [(0, true), (1, false)] {
            assert_eq!(with(&|request| request.local_nic_path = text(LONGEST_PATH + extra)), fits);
            assert_eq!(with(&|request| request.peer_nic_path = text(LONGEST_PATH + extra)), fits);
            assert_eq!(with(&|request| request.local_gid = text(LONGEST_WORD + extra)), fits);
            assert_eq!(with(&|request| request.incarnation = Some(text(LONGEST_WORD + extra))), fits);
            assert_eq!(with(&|request| request.own_incarnation = Some(text(LONGEST_WORD + extra))), fits);
            assert_eq!(with(&|request| request.qp_num = vec![1; MOST_QUEUE_PAIRS + extra]), fits);
        }
    }
}
