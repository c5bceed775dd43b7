//! Which rail a slice takes.

use super::super::peer::{Choice, Pair, Target, Window};
use super::{Flight, Rail, RdmaLink, TURN};

/// To be avoided, failed, not of the first tier; then the cost. The least is the best.
type Rank = ((bool, bool, bool), u64);

impl RdmaLink {
    /// Whether some rail that carries data now is left for a flight that is to avoid some.
    pub fn has_other_rail(&self, flight: &Flight) -> bool {
        let Some(slice) = &flight.slice else { return false };
        let target = self.target.load();
        let mut view = self.shared.memory.view();
        let (Some(keys), Some(window)) = (view.at(slice.local), target.window(slice.remote, &mut 0)) else {
            return false;
        };
        let choice = target.choice(&self.shared, keys.row(slice.local), target.row(window, slice.remote));
        choice.pairs.iter().any(|pair| {
            let bit = 1u64.checked_shl(target.number(*pair) as u32).unwrap_or(0);
            let rail = target.rail(&self.shared, *pair);
            window.has_key(*pair)
                && flight.avoid & bit == 0
                && rail.is_some_and(|rail| rail.is_trusted() && rail.nic.is_active())
        })
    }

    /// Bit of a rail in `Flight::avoid`; 0 if it is none of this link's.
    pub fn bit_of(&self, rail: &Rail) -> u64 {
        let target = self.target.load();
        let (server, nic) = rail.peer.split_once('@').unwrap_or((&rail.peer, ""));
        let remote = target.desc.nics.iter().position(|known| known.name == nic);
        match remote.filter(|_| server == target.desc.server) {
            Some(remote) => {
                let number = target.number(Pair { local: rail.nic.index, remote });
                1u64.checked_shl(number as u32).unwrap_or(0)
            }
            None => 0,
        }
    }

    /// The best pair: of the first tier the one that will be through first; if none of it can be used, of the rest.
    /// Rails to avoid and rails that failed come last, and get to know that they are wanted. `extra` is what this call
    /// has given a pair already, bytes.
    pub(super) fn choose(
        &self,
        target: &Target,
        window: &Window,
        choice: &Choice,
        avoid: u64,
        len: u64,
        extra: &dyn Fn(usize) -> u64,
    ) -> Option<Pair> {
        let mut best: Option<(Rank, Pair)> = None;
        let first_tier = choice.first_tier;
        // With MC_PATH_ROUNDROBIN the first tier is taken in turn: only the one whose turn it is has no cost.
        let turn = (self.shared.config.path_roundrobin && first_tier > 0)
            .then(|| TURN.with(|turn| turn.replace(turn.get().wrapping_add(1)) % first_tier));
        for (place, pair) in choice.pairs.iter().enumerate() {
            if place == first_tier && best.is_some_and(|(((avoided, failed, _), _), _)| !avoided && !failed) {
                break;
            }
            if !window.has_key(*pair) {
                continue;
            }
            let Some(rail) = target.rail(&self.shared, *pair).filter(|rail| rail.nic.is_active()) else {
                continue;
            };
            let number = target.number(*pair);
            let avoided = avoid & 1u64.checked_shl(number as u32).unwrap_or(0) != 0;
            let trusted = rail.is_trusted();
            if !trusted {
                rail.want(&self.me);
            }
            let class = (avoided, !trusted, place >= first_tier);
            let more = len + extra(number);
            let cost = match turn {
                Some(turn) => u64::from(place != turn),
                None => rail.meter.cost_ns(more).max(rail.nic.meter.cost_ns(more)),
            };
            if best.as_ref().is_none_or(|(known, _)| (class, cost) < *known) {
                best = Some(((class, cost), *pair));
            }
        }
        best.map(|(_, pair)| pair)
    }
}
