//! Connecting a rail as the side that has something to post: queue pairs, handshake, ready message. Runs on the control
//! plane; what blocks in the driver runs on its blocking threads.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Remote};
use super::errors::destroyed;
use super::gid::{self, LocalGid};
use super::link::RdmaLink;
use super::nic::Nic;
use super::peer::incarnation_number;
use super::queue;
use super::rail::{Owner, Rail};
use super::refusal::{LAST_QP_NUMBER, LINK_LOCAL, STALE, UNKNOWN};
use super::route::{PeerDesc, PeerNic};
use super::shared::Shared;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::ConnectionMessage;

/// Longest handshake, as upstream waits for one.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

impl Shared {
    /// Connects `rail` to the peer that `link` leads to; the rail is told how it ended.
    pub fn connect(self: &Arc<Self>, rail: Arc<Rail>, link: Arc<RdmaLink>) {
        let shared = self.clone();
        self.control.spawn(async move {
            let mut used = None;
            let attempts = shared.clone().set_up(rail.clone(), link, &mut used);
            let limited = tokio::time::timeout(HANDSHAKE_LIMIT, attempts).await;
            let outcome = limited.unwrap_or_else(|_| {
                let text = format!("no answer of {} within {HANDSHAKE_LIMIT:?}", rail.peer);
                Err(Error::new(Code::Endpoint, text).class(Class::Timeout, true))
            });
            match outcome {
                Ok(connection) => {
                    shared.stats.connections.fetch_add(1, Ordering::Relaxed);
                    shared.make_room(&rail);
                    rail.ready(&connection);
                }
                Err(error) => {
                    let error = error.context(format!("connect {}", rail.name())).peer(&rail.peer);
                    rail.connect_failed(error, used.as_ref());
                }
            }
        });
    }

    /// `used` is the connection of the last attempt.
    async fn set_up(
        self: Arc<Self>,
        rail: Arc<Rail>,
        link: Arc<RdmaLink>,
        used: &mut Option<Arc<Connection>>,
    ) -> Result<Arc<Connection>> {
        let (desc, _) = link.route.desc()?;
        let remote = nic_of(&desc, &rail.peer)?;
        let mut gid = rail.nic.port().gid;
        let mut tried = Vec::new();
        loop {
            let connection = self.clone().prepared(rail.clone(), gid).await?;
            *used = Some(connection.clone());
            tried.push(connection.gid.index);
            let outcome = self.clone().attempt(&rail, &link, &desc, &remote, connection.clone()).await;
            let Err(error) = outcome else {
                self.adopt_gid(&rail, connection.gid, tried.len());
                return Ok(connection);
            };
            let (shared, nic, cause, except) = (self.clone(), rail.nic.clone(), error.clone(), tried.clone());
            gid = blocking(move || shared.other_gid(&nic, &cause, &except).ok_or(cause)).await?;
            tracing::warn!("{}: {error}; trying GID {}", rail.name(), gid::text(&gid.bytes));
            rail.start_over(error);
            *used = None;
        }
    }

    /// The next GID to try after the driver refused the path with those at the indices `tried`: perhaps it leads there.
    pub(super) fn other_gid(&self, nic: &Nic, refusal: &Error, tried: &[u8]) -> Option<LocalGid> {
        let of_gid =
            refusal.code() == Code::Endpoint && matches!(refusal.errno(), libc::EINVAL | libc::ENODATA);
        let more = self.config.gid_index.is_none() && tried.len() <= self.config.auto_gid_retries;
        (of_gid && more).then(|| nic.other_gid(&self.config, tried)).flatten()
    }

    /// Makes the GID that worked at the `attempts`-th attempt the NIC's. Not before it did: a peer that no GID of ours
    /// leads to must not move the one that others use.
    pub(super) fn adopt_gid(&self, rail: &Rail, gid: LocalGid, attempts: usize) {
        if attempts > 1 && rail.nic.adopt_gid(gid) {
            tracing::info!("NIC {} uses GID {} from now on", rail.nic.name, gid::text(&gid.bytes));
            self.host.republish();
        }
    }

    async fn attempt(
        self: Arc<Self>,
        rail: &Arc<Rail>,
        link: &Arc<RdmaLink>,
        desc: &PeerDesc,
        remote: &PeerNic,
        connection: Arc<Connection>,
    ) -> Result<()> {
        let own_path = self.own_path(&rail.nic);
        if own_path == rail.peer {
            return self.loop_back(rail, connection).await;
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
            own_incarnation: Some(self.identity.incarnation.clone()),
            path_mtu: Some(rail.nic.path_mtu(&self.config, None)),
            ..ConnectionMessage::default()
        };
        let reply = link.route.exchange(request.clone()).await?;
        check_reply(&request, &reply)?;
        let gid = gid::parse(if reply.local_gid.is_empty() { &remote.gid } else { &reply.local_gid })
            .ok_or_else(|| protocol(format!("the peer's GID '{}' is none", reply.local_gid)))?;
        rail.nic.check_reach(&gid).map_err(|reason| refused(&reason))?;
        let to = Remote {
            gid,
            lid: if reply.local_gid.is_empty() { remote.lid } else { reply.local_lid },
            mtu: rail.nic.path_mtu(&self.config, reply.path_mtu),
            qp_numbers: reply.qp_num.clone(),
        };
        let incarnation = desc.incarnation.as_deref().map_or(0, incarnation_number);
        self.clone().bring_up(rail.clone(), connection.clone(), to, incarnation).await?;
        if reply.ready_ack.is_some() {
            let ready = ConnectionMessage { ready_ack: Some(true), ..request };
            let receipt = link.route.exchange(ready).await?;
            if !receipt.reply_msg.is_empty() {
                return Err(refused(&receipt.reply_msg));
            }
        }
        Ok(())
    }

    /// The rail's connection that is being set up, or a new one with our GID `gid`.
    async fn prepared(self: Arc<Self>, rail: Arc<Rail>, gid: LocalGid) -> Result<Arc<Connection>> {
        blocking(move || {
            let _setup = rail.setup.lock();
            if let Some(connection) = rail.connection().filter(|connection| connection.is_open()) {
                return Ok(connection);
            }
            self.make(&rail, self.config.qps_per_endpoint, gid, false)
        })
        .await
    }

    /// A new connection of `rail`, which keeps it. `asked`: on the peer's demand.
    pub(super) fn make(
        &self,
        rail: &Arc<Rail>,
        count: usize,
        gid: LocalGid,
        asked: bool,
    ) -> Result<Arc<Connection>> {
        let owner = |connection: &Arc<Connection>| -> Arc<dyn queue::Owner> {
            Arc::new(Owner { rail: rail.clone(), connection: Arc::downgrade(connection) })
        };
        let open = || Connection::open(&rail.nic, &self.config, count, gid, owner);
        let made = match open() {
            // Not for a stranger that asks for many.
            Err(error) if error.errno() == libc::ENOMEM && count <= self.config.qps_per_endpoint => {
                match rail.nic.rails.spare() {
                    // The device has fewer queue pairs than it says, or others use it too.
                    Some(victim) => {
                        self.evict(&victim, "the NIC has no room for another queue pair");
                        open()?
                    }
                    None => return Err(error),
                }
            }
            outcome => outcome?,
        };
        if !rail.set_connection(&made, asked) {
            let error = Error::new(Code::Endpoint, "the attempt to connect was over before")
                .class(Class::Canceled, true);
            made.give_up(error.clone(), self.now_ms());
            return Err(error);
        }
        // After it was kept: either `stop` takes it away, or this sees that it was there before.
        if self.is_stopped() {
            rail.retire(destroyed());
            return Err(destroyed());
        }
        Ok(made)
    }

    /// Connects the queue pairs, unless the peer's own request did so meanwhile.
    async fn bring_up(
        self: Arc<Self>,
        rail: Arc<Rail>,
        connection: Arc<Connection>,
        to: Remote,
        incarnation: u64,
    ) -> Result<()> {
        blocking(move || {
            let _setup = rail.setup.lock();
            if connection.cause().is_some() {
                return Err(Error::new(Code::Endpoint, "the connection was given up meanwhile"));
            }
            match connection.peer_numbers() {
                Some(known) if known == to.qp_numbers => {}
                Some(_) => {
                    let text = "both sides connected at once with different queue pairs; trying again";
                    return Err(Error::new(Code::Endpoint, text).class(Class::Network, true));
                }
                None => connection.connect(&rail.nic, &self.config, &to)?,
            }
            connection.incarnation.store(incarnation, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    /// A NIC to itself: each queue pair is its own peer, and no message is needed.
    async fn loop_back(self: Arc<Self>, rail: &Arc<Rail>, connection: Arc<Connection>) -> Result<()> {
        let to = Remote {
            gid: connection.gid.bytes,
            lid: rail.nic.port().lid,
            mtu: rail.nic.path_mtu(&self.config, None),
            qp_numbers: connection.numbers(),
        };
        let incarnation = incarnation_number(&self.identity.incarnation);
        self.bring_up(rail.clone(), connection, to, incarnation).await
    }

    /// Evicts another connection if the NIC has too many now.
    pub fn make_room(&self, rail: &Arc<Rail>) {
        let victim = rail.nic.rails.connected(rail);
        if rail.connection().is_none() {
            // Lost meanwhile, and perhaps crossed off before it was entered.
            rail.nic.rails.disconnected(rail);
        }
        if let Some(victim) = victim {
            self.evict(&victim, "the NIC has MC_MAX_EP_PER_CTX connections");
        }
    }

    fn evict(&self, victim: &Rail, why: &str) {
        self.stats.evicted.fetch_add(1, Ordering::Relaxed);
        victim.retire(Error::new(Code::Endpoint, format!("evicted: {why}")));
    }
}

/// Runs what blocks in the driver.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| destroyed())?
}

fn nic_of(desc: &PeerDesc, path: &str) -> Result<PeerNic> {
    let name = path.split_once('@').map_or("", |(_, name)| name);
    let found = desc.nics.iter().find(|nic| nic.name == name);
    found.cloned().ok_or_else(|| {
        let text = format!("the peer does not publish NIC '{name}' any more");
        Error::new(Code::DeviceNotFound, text).class(Class::Device, true)
    })
}

fn check_reply(request: &ConnectionMessage, reply: &ConnectionMessage) -> Result<()> {
    if !reply.reply_msg.is_empty() {
        return Err(refused(&reply.reply_msg));
    }
    if reply.local_nic_path != request.peer_nic_path || reply.peer_nic_path != request.local_nic_path {
        let text = format!(
            "the reply speaks for '{}' to '{}' (upstream up to v0.3.11 refuses so without a reason)",
            reply.local_nic_path, reply.peer_nic_path
        );
        return Err(refused(&text));
    }
    if reply.qp_num.iter().any(|number| *number > LAST_QP_NUMBER) {
        return Err(protocol("the peer's queue pair numbers have more than 24 bits".into()));
    }
    let (ours, theirs) = (request.qp_num.len(), reply.qp_num.len());
    if ours != theirs {
        return Err(refused(&format!(
            "{theirs} queue pairs offered for {ours}; set MC_NUM_QP_PER_EP alike on both sides"
        )));
    }
    Ok(())
}

fn refused(reason: &str) -> Error {
    let error = Error::new(Code::RejectHandshake, format!("the peer refused the connection: {reason}"));
    // Not final: the next attempt is made with a fresh descriptor, another GID, or a new connection.
    if [STALE, LINK_LOCAL, UNKNOWN].iter().any(|passing| reason.contains(passing)) {
        error.class(Class::Network, true)
    } else {
        error
    }
}

fn protocol(text: String) -> Error {
    Error::new(Code::RejectHandshake, text).class(Class::Protocol, false)
}
