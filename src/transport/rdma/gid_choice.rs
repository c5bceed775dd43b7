//! Which of our GIDs a connection is made with, where the peer has a say. What one peer asks for changes the rail to it
//! alone: whoever can reach our handshake port must not move the GID that all others use.

use std::time::{Duration, Instant};

use super::gid::{self, LocalGid, Moved};
use super::nic::Nic;
use super::rail::Rail;
use super::shared::Shared;

/// How long a GID counts as tried after the last move. Chosen: a peer that goes through its own takes seconds for each.
const TRIED_FOR: Duration = Duration::from_secs(300);

/// What is known of the peer that is to be reached.
pub(super) struct Wish<'a> {
    /// Its GID.
    pub peer: &'a [u8; 16],
    /// It is an engine of another project, which may go over to a link-local GID by itself. Ours do not.
    pub is_foreign: bool,
    /// Our GID that did not work for it, as text.
    pub reprobe_from: Option<&'a str>,
}

/// Our GID for a connection to the peer. `rail` is the one to that peer, if
/// there is one. An error is the reason why none leads there. Blocks on the driver where the usual one does not do.
pub(super) fn choose(
    shared: &Shared,
    nic: &Nic,
    rail: Option<&Rail>,
    wish: &Wish<'_>,
) -> Result<LocalGid, String> {
    let current = usual(nic, rail, wish.peer);
    let config = &shared.config;
    let most = if config.gid_index.is_some() { 0 } else { config.auto_gid_retries };
    let does_not_work = wish.reprobe_from.and_then(gid::parse) == Some(current.bytes);
    if most > 0 && does_not_work {
        let mut tried = rail.map_or_else(Vec::new, |rail| recently_tried(&rail.moved.lock()));
        if !tried.contains(&current.index) {
            tried.push(current.index);
        }
        let next = (tried.len() <= most).then(|| nic.gid_for(config, wish.peer, &tried)).flatten();
        if let Some(next) = next {
            tracing::info!(
                "{}: GID {} does not work for a peer; it gets {}",
                nic.name,
                gid::text(&current.bytes),
                gid::text(&next.bytes)
            );
            return Ok(next);
        }
    }
    let refused = match nic.check_reach(&current, wish.peer) {
        Ok(()) => return Ok(current),
        Err(text) => text,
    };
    let other = (most > 0 && wish.is_foreign).then(|| nic.gid_for(config, wish.peer, &[])).flatten();
    other.ok_or(refused)
}

/// What did not work a while ago may work now.
fn recently_tried(moved: &Moved) -> Vec<u8> {
    let is_recent = moved.since.is_some_and(|since| since.elapsed() < TRIED_FOR);
    if is_recent {
        moved.tried.clone()
    } else {
        Vec::new()
    }
}

/// What the rail uses, or the NIC's own if the peer is back at a GID that suits that one.
pub(super) fn usual(nic: &Nic, rail: Option<&Rail>, peer: &[u8; 16]) -> LocalGid {
    let own = nic.port().gid;
    let current = rail.map_or(own, Rail::gid);
    let is_back = gid::are_akin(&own.bytes, peer) && !gid::are_akin(&current.bytes, peer);
    if is_back {
        own
    } else {
        current
    }
}

/// Has the rail use `gid` from now on.
pub(super) fn adopt(rail: &Rail, gid: LocalGid) {
    let (before, own) = (rail.gid(), rail.nic.port().gid);
    let mut moved = rail.moved.lock();
    if before != gid {
        moved.tried = recently_tried(&moved);
        moved.since = Some(Instant::now());
        if !moved.tried.contains(&before.index) {
            moved.tried.push(before.index);
        }
    }
    moved.gid = (gid != own).then_some(gid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_counts_as_tried_for_a_while() {
        let moved = |since| Moved { gid: None, tried: vec![3, 1], since };
        assert_eq!(recently_tried(&moved(Some(Instant::now()))), [3, 1]);
        assert!(recently_tried(&moved(None)).is_empty());
        // The clock may have begun less than that ago.
        if let Some(long_ago) = Instant::now().checked_sub(TRIED_FOR + Duration::from_secs(1)) {
            assert!(recently_tried(&moved(Some(long_ago))).is_empty());
        }
    }
}
