//! What both sides of a handshake do with queue pairs.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::errors::destroyed;
use super::gid::{self, LocalGid};
use super::nic::Nic;
use super::queue;
use super::rail::events::By;
use super::rail::{Event, Owner, Rail};
use super::shared::Shared;
use crate::error::{Code, Error, Result};
use crate::runtime::blocking::run;

/// Longest wait for queue pairs that are being destroyed, where the NIC has no room for others. Chosen: a tenth of what a
/// handshake may take.
const ROOM_LIMIT: Duration = Duration::from_secs(1);

/// A new connection of `rail`, which keeps it.
pub(super) fn make(
    shared: &Shared,
    rail: &Arc<Rail>,
    count: usize,
    gid: LocalGid,
    by: By,
) -> Result<Arc<Connection>> {
    let owner = |connection: &Arc<Connection>| -> Arc<dyn queue::Owner> {
        Arc::new(Owner { rail: rail.clone(), connection: Arc::downgrade(connection) })
    };
    let open = || Connection::open(&rail.nic, &shared.config, count, gid, owner);
    let full =
        |outcome: &Result<_>| outcome.as_ref().is_err_and(|error: &Error| error.errno() == libc::ENOMEM);
    let mut made = open();
    if full(&made) && !shared.destroyer.is_idle() && shared.destroyer.wait(ROOM_LIMIT) {
        // Those that were given up are gone now.
        made = open();
    }
    // Nothing is evicted for a stranger that asks for more queue pairs than usual.
    if full(&made) && count <= shared.config.qps_per_endpoint {
        if let Some(victim) = shared.rails(&rail.nic).spare() {
            // The device has fewer queue pairs than it says, or others use it too.
            evict(shared, &victim, "the NIC has no room for another queue pair", true);
            made = open();
        }
    }
    let made = made?;
    rail.keep(&made, by)?;
    // After it was kept: either `stop` takes it away, or this sees that `stop` came before.
    if shared.is_stopped() {
        rail.feed(Event::Stopped(destroyed()));
        return Err(destroyed());
    }
    Ok(made)
}

/// The next GID to try after the driver refused the path with those at the indices `tried`. `None` if the refusal has
/// another cause, or enough were tried.
pub(super) fn other_gid(shared: &Shared, nic: &Nic, refusal: &Error, tried: &[u8]) -> Option<LocalGid> {
    let of_gid = refusal.code() == Code::Endpoint && matches!(refusal.errno(), libc::EINVAL | libc::ENODATA);
    let more = shared.config.gid_index.is_none() && tried.len() <= shared.config.auto_gid_retries;
    (of_gid && more).then(|| nic.other_gid(&shared.config, tried)).flatten()
}

/// Makes the GID that worked the NIC's own, if it took more than one attempt. Not before it has worked: a peer that no
/// GID of ours reaches must not change the one that others use.
pub(super) fn adopt_gid(shared: &Shared, rail: &Rail, gid: LocalGid, attempts: usize) {
    if attempts > 1 && rail.nic.adopt_gid(gid) {
        tracing::info!("NIC {} uses GID {} from now on", rail.nic.name, gid::text(&gid.bytes));
        shared.host.republish();
    }
}

/// Evicts another connection if the NIC has too many now.
pub(super) fn make_room(shared: &Shared, rail: &Arc<Rail>) {
    let victim = shared.rails(&rail.nic).connected(rail);
    if rail.connection().is_none() {
        // The connection was lost meanwhile, perhaps before the rail was counted.
        shared.rails(&rail.nic).disconnected(rail);
    }
    if let Some(victim) = victim {
        evict(shared, &victim, "the NIC has MC_MAX_EP_PER_CTX connections", false);
    }
}

/// `now`: its queue pairs are gone when this returns.
fn evict(shared: &Shared, victim: &Rail, why: &str, now: bool) {
    shared.stats.evicted.fetch_add(1, Ordering::Relaxed);
    let connection = victim.connection().filter(|_| now);
    let why = Error::new(Code::Endpoint, format!("evicted: {why}"));
    victim.feed(Event::TakenAway(why.clone()));
    if let Some(connection) = connection.filter(|connection| connection.cause().is_some()) {
        connection.give_up(why, shared.now_ms());
    }
}

/// Runs what blocks in the driver. An error of class RESOURCE if there is no thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    run(work).await?
}
