//! A peer's descriptor prepared for the data path: which of its buffers holds an address, which NIC pairs lead there.

use std::sync::{Arc, OnceLock};

use super::affinity::Affinity;
use super::nic::Nic;
use super::rail::Rail;
use super::route::PeerDesc;
use super::shared::Shared;
use crate::topology::location::Location;
use crate::topology::select::{Placement, RowId, Selector};
use crate::transport::incarnation;

/// A NIC pair: index of the local NIC, index of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Index in `Shared::nics`.
    pub local: usize,
    /// Index in `PeerDesc::nics`.
    pub remote: usize,
}

/// NIC pairs in the order in which they are to be considered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// All pairs; the first `first_tier` are as good as each other, the rest is for failures.
    pub pairs: Vec<Pair>,
    /// Preferred on both sides, each NIC of the larger side once.
    pub first_tier: usize,
}

/// A buffer of the peer.
pub(super) struct Window {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    placement: Placement,
    /// One per NIC of the peer.
    pub rkey: Vec<u32>,
}

/// A descriptor, prepared. Immutable but for rails made on first use.
pub(super) struct Target {
    /// What it was made from.
    pub desc: Arc<PeerDesc>,
    /// Version of the descriptor.
    pub version: u64,
    /// By address.
    windows: Vec<Window>,
    selector: Selector,
    /// By local NIC, then by the peer's.
    rails: Vec<OnceLock<Arc<Rail>>>,
    /// By local row, then by the peer's row.
    choices: Vec<OnceLock<Choice>>,
    affinity: Affinity,
    /// Incarnation of the peer as a number, 0 if it has none.
    pub incarnation: u64,
}

impl Window {
    /// Whether `[addr, addr+len)` lies inside, given that `addr` does.
    pub(super) fn holds(&self, addr: u64, len: u64) -> bool {
        len <= self.len - (addr - self.addr)
    }

    /// The peer's NIC of a pair has a key for it: a list may be shorter than that of the NICs, and 0 stands for none.
    pub(super) fn has_key(&self, pair: Pair) -> bool {
        self.rkey.get(pair.remote).is_some_and(|key| *key != 0)
    }
}

impl Target {
    /// Prepares a descriptor.
    pub(super) fn new(shared: &Shared, desc: Arc<PeerDesc>, version: u64, affinity: &Affinity) -> Self {
        let names: Vec<String> = desc.nics.iter().map(|nic| nic.name.clone()).collect();
        let selector = Selector::new(&desc.matrix, &names);
        let mut windows: Vec<Window> = desc
            .buffers
            .iter()
            .map(|buffer| {
                let placement = selector.place(&Location::parse(&buffer.location));
                Window { addr: buffer.addr, len: buffer.len, placement, rkey: buffer.rkey.clone() }
            })
            .collect();
        windows.sort_by_key(|window| window.addr);
        let pairs = shared.nics.len() * names.len();
        let rows = shared.selector.row_count() * selector.row_count();
        Target {
            version,
            incarnation: desc.incarnation.as_deref().map_or(0, incarnation_number),
            windows,
            rails: (0..pairs).map(|_| OnceLock::new()).collect(),
            choices: (0..rows).map(|_| OnceLock::new()).collect(),
            selector,
            desc,
            affinity: affinity.clone(),
        }
    }

    /// The buffer that holds the byte at `addr`. `hint` is where to look first, and is brought up to date.
    #[inline]
    pub(super) fn window(&self, addr: u64, hint: &mut usize) -> Option<&Window> {
        let holds = |window: &&Window| addr >= window.addr && addr - window.addr < window.len;
        if let Some(window) = self.windows.get(*hint).filter(holds) {
            return Some(window);
        }
        let place = self.windows.partition_point(|window| window.addr <= addr).checked_sub(1)?;
        *hint = place;
        self.windows.get(place).filter(holds)
    }

    /// The peer's row for the byte at `addr` of a buffer.
    pub(super) fn row(&self, window: &Window, addr: u64) -> RowId {
        window.placement.at(addr - window.addr, window.len)
    }

    /// The rail of a pair, made on first use.
    #[inline]
    pub(super) fn rail(&self, shared: &Shared, pair: Pair) -> Option<&Arc<Rail>> {
        let cell = self.rails.get(self.number(pair))?;
        let nic = shared.nics.get(pair.local)?;
        let peer = self.desc.nics.get(pair.remote)?;
        Some(cell.get_or_init(|| shared.rail(nic, &format!("{}@{}", self.desc.server, peer.name))))
    }

    /// Number of a pair among all of this target.
    pub(super) fn number(&self, pair: Pair) -> usize {
        pair.local * self.desc.nics.len() + pair.remote
    }

    /// The pairs for a local row and a row of the peer.
    #[inline]
    pub(super) fn choice(&self, shared: &Shared, local: RowId, remote: RowId) -> &Choice {
        static NONE: Choice = Choice { pairs: Vec::new(), first_tier: 0 };
        let place = local.index() * self.selector.row_count() + remote.index();
        let Some(cell) = self.choices.get(place) else { return &NONE };
        cell.get_or_init(|| {
            let ours = |list: &[usize]| -> Vec<usize> { list.to_vec() };
            let (selector, peer) = (&shared.selector, &self.selector);
            self.choose(
                &shared.nics,
                remote,
                [ours(selector.preferred(local)), ours(selector.available(local))],
                [ours(peer.preferred(remote)), ours(peer.available(remote))],
            )
        })
    }

    /// First tier: each NIC of the side with more preferred NICs once, paired with the peer's NICs that affinity names,
    /// or else by position. Then every other pair: preferred on both sides, on one, on none.
    fn choose(
        &self,
        nics: &[Arc<Nic>],
        remote_row: RowId,
        ours: [Vec<usize>; 2],
        theirs: [Vec<usize>; 2],
    ) -> Choice {
        let best =
            |lists: &[Vec<usize>; 2]| if lists[0].is_empty() { lists[1].clone() } else { lists[0].clone() };
        let (left, right) = (best(&ours), best(&theirs));
        let mut choice = Choice::default();
        if left.is_empty() || right.is_empty() {
            return choice;
        }
        // The peer's descriptor says how many pairs there are, so finding one must be cheap.
        let mut known = vec![false; nics.len() * self.desc.nics.len()];
        let mut add = |pairs: &mut Vec<Pair>, pair: Pair| {
            let known = known.get_mut(self.number(pair));
            if known.is_some_and(|known| !std::mem::replace(known, true)) {
                pairs.push(pair);
            }
        };
        for position in 0..left.len().max(right.len()) {
            let local = left[position % left.len()];
            let liked = nics.get(local).map(|nic| self.affinity.liked(&nic.name, &self.selector, remote_row));
            let liked = liked.unwrap_or_default();
            let remote = match liked.len() {
                0 => right[position % right.len()],
                count => liked[position % count],
            };
            add(&mut choice.pairs, Pair { local, remote });
        }
        choice.first_tier = choice.pairs.len();
        for (mine, their) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for local in &ours[mine] {
                for remote in &theirs[their] {
                    add(&mut choice.pairs, Pair { local: *local, remote: *remote });
                }
            }
        }
        choice
    }
}

/// An incarnation id as a number; 0 for a text that is none.
pub(super) fn incarnation_number(text: &str) -> u64 {
    incarnation::unhex(text).map_or(0, |id| incarnation::key(&id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Matrix;

    fn window(addr: u64, len: u64, rkey: Vec<u32>) -> Window {
        let placement = Selector::new(&Matrix::default(), &[]).place(&Location::parse("*"));
        Window { addr, len, placement, rkey }
    }

    #[test]
    fn a_window_holds_what_lies_inside_it_to_the_last_byte() {
        let window = window(1000, 100, vec![]);
        for (addr, len, holds) in
            [(1000, 100, true), (1000, 101, false), (1060, 40, true), (1060, 41, false), (1099, 1, true)]
        {
            assert_eq!(window.holds(addr, len), holds, "{addr} {len}");
        }
        // A length near the end of the address space does not wrap.
        assert!(!window.holds(1001, u64::MAX));
    }

    #[test]
    fn keys_are_those_of_the_peers_nic() {
        let window = window(0, 1, vec![7, 0]);
        let has = |remote| window.has_key(Pair { local: 9, remote });
        assert_eq!([has(0), has(1), has(2)], [true, false, false], "one, none, beyond the list");
    }
}
