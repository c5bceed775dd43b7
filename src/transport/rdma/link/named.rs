//! Local NICs that a caller has named for a submit call.

use super::super::peer::{Choice, Pair, Target, Window};
use super::super::shared::Shared;
use super::choose::{best, View};
use crate::error::{Error, Result};

/// By the NIC's index, whether it is named.
pub(super) struct Named(Vec<bool>);

impl Named {
    /// Reads names separated by commas. -1 if one is no NIC of ours, or if there is none.
    pub(super) fn parse(shared: &Shared, names: &str) -> Result<Self> {
        let mut named = vec![false; shared.nics.len()];
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let nic = shared.nics.iter().find(|nic| nic.name == name);
            let nic =
                nic.ok_or_else(|| Error::invalid(unknown(shared, &format!("'{name:.80}' is none of them"))))?;
            named[nic.index] = true;
        }
        match named.contains(&true) {
            true => Ok(Named(named)),
            false => Err(Error::invalid(unknown(shared, "none is named"))),
        }
    }

    /// The pair of a named NIC that will be through first: of those that the topology has, else of all. `None` if no rail of
    /// a named NIC is fit.
    pub(super) fn pick(
        &self,
        shared: &Shared,
        target: &Target,
        window: &Window,
        choice: &Choice,
        len: u64,
        extra: &dyn Fn(usize) -> u64,
    ) -> Option<Pair> {
        let view = |pair: Pair| {
            let is_fit = self.0[pair.local] && window.has_key(pair) && shared.nics[pair.local].is_active();
            let rail =
                is_fit.then(|| target.rail(shared, pair)).flatten().filter(|rail| rail.is_trusted())?;
            let more = len + extra(target.number(pair));
            Some(View { avoided: false, failed: false, cost: rail.cost_ns(more) })
        };
        let known = best(choice.first_tier, choice.pairs.iter().map(|pair| view(*pair)));
        if let Some(place) = known {
            return choice.pairs.get(place).copied();
        }
        let locals = (0..self.0.len()).filter(|local| self.0[*local]);
        let remotes = 0..target.desc.nics.len();
        let all: Vec<Pair> =
            locals.flat_map(|local| remotes.clone().map(move |remote| Pair { local, remote })).collect();
        let place = best(all.len(), all.iter().map(|pair| view(*pair)))?;
        all.get(place).copied()
    }
}

fn unknown(shared: &Shared, why: &str) -> String {
    let names: Vec<&str> = shared.nics.iter().map(|nic| nic.name.as_str()).collect();
    format!("the local NICs in use are {}; {why}", names.join(", "))
}
