//! The way to one segment: what is known of it, the rails that lead there, and flights that come back.

mod choose;
mod grain;
mod named;
mod returned;
mod submit;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::affinity::Affinity;
use super::errors::{destroyed, timed_out};
use super::fence::{self, Fence};
use super::flight::{fail_all, fail_revoked, Flight};
use super::origin::Origin;
use super::peer::{Choice, Pair, Target, Window};
use super::rail::Rail;
use super::route::Route;
use super::shared::Shared;
use crate::error::{Class, Code, Error, Result};
use crate::transport::slice::canceled;
use choose::View;
use returned::Returned;

/// Longest work request, bytes. Chosen: half of what InfiniBand allows for a message, 2^31.
const LONGEST_SLICE: u64 = 1 << 30;
/// Wait before slices that no rail takes now are placed anew. Chosen: with `MC_RETRY_CNT` of 9 they wait more than a
/// second for a NIC to come back.
const PLACE_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait for a peer's descriptor. Chosen: the default limit of a store's operation and of a connect.
const REREAD_LIMIT: Duration = Duration::from_secs(5);

/// Link to one segment; kept by the segment, and by batches with work on it.
pub(super) struct RdmaLink {
    shared: Arc<Shared>,
    /// Leads to the peer.
    route: Arc<dyn Route>,
    /// Number among the links of the transport.
    number: u32,
    me: Weak<RdmaLink>,
    target: ArcSwap<Target>,
    affinity: Affinity,
    /// Flights that wait to be placed anew on the control plane.
    returned: Returned,
    closed: AtomicBool,
}

thread_local! {
    /// Counts this thread's choices, for MC_PATH_ROUNDROBIN.
    static TURN: Cell<usize> = const { Cell::new(0) };
}

impl RdmaLink {
    /// A link over the descriptor that `route` has now.
    pub(super) fn new(
        shared: &Arc<Shared>,
        route: Arc<dyn Route>,
        number: u32,
        affinity: Affinity,
    ) -> Arc<Self> {
        let (desc, version) = route.desc().unwrap_or_default();
        let target = Target::new(shared, desc, version, &affinity);
        Arc::new_cyclic(|me| RdmaLink {
            shared: shared.clone(),
            route,
            number,
            me: me.clone(),
            target: ArcSwap::from_pointee(target),
            affinity,
            returned: Returned::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// The descriptor in use, brought up to date if the route has read a newer one.
    fn target(&self) -> Arc<Target> {
        let current = self.target.load_full();
        match self.route.desc() {
            Ok((desc, version)) if version != current.version => {
                let fresh = Arc::new(Target::new(&self.shared, desc, version, &self.affinity));
                self.target.store(fresh.clone());
                fresh
            }
            _ => current,
        }
    }

    fn not_published(&self, addr: u64) -> Error {
        let peer = self.route.peer();
        let text = format!("target {addr:#x} is in no buffer that segment '{peer}' publishes with keys");
        Error::new(Code::AddressNotRegistered, text).peer(peer)
    }

    /// The request was meant for a predecessor of the process that the descriptor speaks of now. Code and class are those
    /// of the same over TCP.
    fn restarted(&self) -> Error {
        let peer = self.route.peer();
        let text = format!(
            "segment '{peer}' restarted after its descriptor was read, and this request was for its predecessor's memory; \
             ask it for its addresses and submit again"
        );
        Error::new(Code::Socket, text).transient(Class::Metadata).peer(peer)
    }

    /// No NIC of ours is active, or no pair of NICs follows from the two matrices.
    fn no_rail(&self, target: &Target) -> Error {
        let peer = self.route.peer();
        let text = format!(
            "no NIC pair leads to segment '{peer}': ours are {}, the peer has {} NICs; see showLinks",
            self.own_nics(),
            target.desc.nics.len()
        );
        Error::new(Code::DeviceNotFound, text).transient(Class::Device).peer(peer)
    }

    /// Our NICs, each with its last failure.
    fn own_nics(&self) -> String {
        let nics = self.shared.nics.iter();
        let named: Vec<String> =
            nics.map(|nic| format!("{} ({})", nic.name, nic.state().last_error)).collect();
        named.join(", ")
    }

    /// The best pair: in the first tier the one that will be through first; if none of the tier is fit, one of the
    /// rest. Rails that failed are told that they are wanted. `extra` gives the bytes of this call that wait for
    /// the pair of a number.
    fn choose(
        &self,
        target: &Target,
        window: &Window,
        choice: &Choice,
        avoid: u64,
        len: u64,
        extra: &dyn Fn(usize) -> u64,
    ) -> Option<Pair> {
        let first_tier = choice.first_tier;
        // With MC_PATH_ROUNDROBIN the first tier is taken in turn: only the one whose turn it is has no cost.
        let turn = (self.shared.config.path_roundrobin && first_tier > 0)
            .then(|| TURN.with(|turn| turn.replace(turn.get().wrapping_add(1)) % first_tier));
        let view = |(place, pair): (usize, &Pair)| {
            let rail = window.has_key(*pair).then(|| target.rail(&self.shared, *pair)).flatten()?;
            if !rail.nic.is_active() {
                return None;
            }
            let failed = !rail.is_trusted();
            if failed {
                rail.want(&self.route);
            }
            let number = target.number(*pair);
            let more = len + extra(number);
            let cost = match turn {
                Some(turn) => u64::from(place != turn),
                None => rail.cost_ns(more),
            };
            Some(View { avoided: avoid & bit(number) != 0, failed, cost })
        };
        let place = choose::best(first_tier, choice.pairs.iter().enumerate().map(view))?;
        choice.pairs.get(place).copied()
    }

    /// The first rail that may carry data now between two addresses and that is `wanted`.
    fn fit_rails(
        &self,
        local: u64,
        remote: u64,
        mut wanted: impl FnMut(usize, &Rail) -> bool,
    ) -> Option<Arc<Rail>> {
        let target = self.target.load();
        let mut view = self.shared.memory.view();
        let (keys, window) = (view.at(local)?, target.window(remote, &mut 0)?);
        let choice = target.choice(&self.shared, keys.row(local), target.row(window, remote));
        let mut rails = choice.pairs.iter().filter(|pair| window.has_key(**pair)).filter_map(|pair| {
            let rail = target.rail(&self.shared, *pair)?;
            (rail.is_trusted() && rail.nic.is_active()).then(|| (target.number(*pair), rail))
        });
        rails.find(|(number, rail)| wanted(*number, rail)).map(|(_, rail)| rail.clone())
    }

    /// Places a flight. While no NIC of ours is active, the flight is returned, to be kept, until its attempts are used
    /// up.
    fn place_or_keep(&self, mut flight: Flight) -> Option<Flight> {
        if let Err(error) = self.check_open() {
            flight.fail(error);
        } else if flight.is_revoked() {
            fail_revoked([flight]);
        } else if flight.is_given_up() {
            flight.fail(canceled());
        } else if flight.is_expired(Instant::now()) {
            flight.fail(timed_out(&self.no_rail(&self.target())));
        } else if self.shared.nics.iter().any(|nic| nic.is_active()) {
            self.place(flight);
        } else {
            flight.tries = flight.tries.saturating_add(1);
            if flight.tries < self.shared.config.retry_cnt {
                return Some(flight);
            }
            flight.fail(self.no_rail(&self.target()));
        }
        None
    }

    /// Keeps flights that find no rail; true if some are kept now.
    fn keep_all(&self, flights: Vec<Flight>) -> bool {
        self.returned.keep(flights, None, || self.check_open())
    }
}

impl Drop for RdmaLink {
    /// Its place in the table stays, but not the memory that a reference from there holds.
    fn drop(&mut self) {
        if let Some(place) = self.shared.links.write().get_mut(self.number as usize) {
            *place = Weak::<RdmaLink>::new();
        }
    }
}

impl Origin for RdmaLink {
    fn route(&self) -> &Arc<dyn Route> {
        &self.route
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) || self.shared.is_stopped() {
            return Err(destroyed());
        }
        Ok(())
    }

    fn bit_of(&self, nic: usize, peer: &str) -> u64 {
        let target = self.target.load();
        let (server, name) = peer.split_once('@').unwrap_or((peer, ""));
        let remote = target.desc.nics.iter().position(|known| known.name == name);
        match remote.filter(|_| server == target.desc.server) {
            Some(remote) => bit(target.number(Pair { local: nic, remote })),
            None => 0,
        }
    }

    fn has_other_rail(&self, flight: &Flight) -> bool {
        let Some(slice) = &flight.slice else { return false };
        let avoids = |number: usize| flight.avoid & bit(number) != 0;
        self.fit_rails(slice.local, slice.remote, |number, _| !avoids(number)).is_some()
    }

    fn least_cost_ns(&self, local: u64, remote: u64) -> Option<u64> {
        let mut least = None;
        self.fit_rails(local, remote, |_, rail| {
            least = least.into_iter().chain([rail.cost_ns(0)]).min();
            false
        });
        least
    }

    fn incarnation(&self) -> Option<String> {
        self.target().desc.incarnation.clone()
    }

    fn place(&self, mut flight: Flight) {
        let Some(slice) = &flight.slice else { return };
        let (local, remote) = (slice.local, slice.remote);
        let target = self.target();
        if flight.incarnation != 0 && target.incarnation != 0 && flight.incarnation != target.incarnation {
            return fail_all([flight], &self.restarted());
        }
        let chosen = {
            let mut view = self.shared.memory.view();
            let keys = view.at(local);
            keys.ok_or_else(|| not_registered(local)).and_then(|keys| {
                // It was published when the request was submitted: the peer has taken it back since.
                let withdrawn = || self.not_published(remote).permanent(Class::Rejected);
                let window = target.window(remote, &mut 0);
                let window =
                    window.filter(|window| window.holds(remote, flight.len())).ok_or_else(withdrawn)?;
                let rows = (keys.row(local), target.row(window, remote));
                let choice = target.choice(&self.shared, rows.0, rows.1);
                let len = flight.len();
                let pair = self.choose(&target, window, choice, flight.avoid, len, &|_| 0);
                let pair = pair.ok_or_else(|| self.no_rail(&target))?;
                flight.lkey = keys.lkey(pair.local, local);
                flight.rkey = window.rkey.get(pair.remote).copied().unwrap_or(0);
                Ok(pair)
            })
        };
        match chosen {
            Ok(pair) => {
                let Some(rail) = target.rail(&self.shared, pair) else { return };
                rail.submit(&mut VecDeque::from([flight]), &self.route, self.shared.now_ns());
            }
            Err(error) => fail_all([flight], &error),
        }
    }

    fn keep(&self, flight: Flight, behind: Option<Fence>) -> bool {
        self.returned.keep([flight], behind, || self.check_open())
    }

    fn place_later(&self, mut reread: bool) {
        if !self.returned.begin() {
            return;
        }
        let me = self.me.clone();
        self.shared.control.spawn(async move {
            // Until nothing is left: whatever is kept meanwhile relies on this task.
            while let Some(link) = me.upgrade() {
                if reread {
                    let _ = tokio::time::timeout(REREAD_LIMIT, link.route.refresh()).await;
                }
                // No flight is held while something is waited for: `close` has to find them.
                let waiting = match link.returned.take_placeable() {
                    Err(fences) => {
                        if !fence::raise(&link.route, fences).await {
                            link.returned.lose_trails();
                        }
                        reread = false;
                        continue;
                    }
                    Ok(flights) => flights
                        .into_iter()
                        .filter_map(|flight| link.place_or_keep(flight))
                        .collect::<Vec<_>>(),
                };
                let wait = !waiting.is_empty();
                if !link.keep_all(waiting) && !link.returned.end() {
                    return;
                }
                drop(link);
                reread = true;
                if wait {
                    tokio::time::sleep(PLACE_INTERVAL).await;
                }
            }
        });
    }

    fn take_kept(&self, wanted: &dyn Fn(&Flight) -> bool) -> Vec<Flight> {
        self.returned.take(wanted)
    }
}

/// Bit of a rail in `Flight::avoid`; those beyond the 64th have none.
fn bit(number: usize) -> u64 {
    1u64.checked_shl(number as u32).unwrap_or(0)
}

fn not_registered(addr: u64) -> Error {
    let text = format!("local {addr:#x} is not registered with any NIC; call registerLocalMemory first");
    Error::new(Code::AddressNotRegistered, text)
}
