//! A peer's descriptor as last read, prepared for look-ups.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::segment_desc::{SegmentDesc, BUFFERS};
use crate::transport::offer::{Offer, Shown};
use crate::transport::table::{self, PROTOCOLS};

/// A descriptor, read. Immutable.
pub(super) struct Known {
    /// Name that the peer wants to be called by.
    pub name: String,
    /// The transport that its descriptor names.
    pub protocol: String,
    /// Changes whenever the descriptor was read again and says something else.
    pub version: u64,
    /// Revision in the store, from which the descriptor is watched; 0 if there is none.
    pub revision: i64,
    incarnation: Option<String>,
    /// What it offers each row of [`PROTOCOLS`].
    offers: [Option<Arc<dyn Offer>>; PROTOCOLS.len()],
    /// Members that no transport here knows.
    rest: Map<String, Value>,
}

impl Known {
    /// Has every transport read its part. `ERR_MALFORMED_JSON` if one of them cannot, or the protocol does not exist;
    /// `ERR_MEMORY` if it does not fit.
    pub(super) fn new(desc: SegmentDesc, revision: i64) -> Result<Self> {
        if !table::is_known(&desc.protocol) {
            let text = format!("protocol '{}' is unknown", desc.protocol);
            return Err(Error::new(Code::MalformedJson, text));
        }
        let mut offers = [const { None }; PROTOCOLS.len()];
        for (row, offer) in PROTOCOLS.iter().zip(&mut offers) {
            *offer = row.read(&desc)?;
        }
        let SegmentDesc { name, protocol, incarnation, members: mut rest } = desc;
        for member in PROTOCOLS.iter().flat_map(|row| row.members()).chain([&BUFFERS]) {
            rest.remove(*member);
        }
        Ok(Known { name, protocol, version: 0, revision, incarnation, offers, rest })
    }

    /// The peer is an engine of this project.
    pub(super) fn is_ours(&self) -> bool {
        self.incarnation.is_some()
    }

    /// What the peer offers the transport of a row.
    pub(super) fn offer(&self, row: usize) -> Option<&Arc<dyn Offer>> {
        self.offers.get(row)?.as_ref()
    }

    /// The rows that lead to the peer.
    pub(super) fn leading(&self) -> impl Iterator<Item = usize> + '_ {
        let leads = |offer: &Option<Arc<dyn Offer>>| offer.as_ref().is_some_and(|offer| offer.leads());
        (0..).zip(&self.offers).filter(move |(_, offer)| leads(offer)).map(|(row, _)| row)
    }

    /// The buffers that may be accessed, as the first transport that reads them shows them; `None` if none does.
    pub(super) fn buffers(&self) -> Option<Shown<'_>> {
        self.offers.iter().flatten().next().map(|offer| offer.buffers())
    }

    /// Whether both descriptors say the same.
    pub(super) fn same_as(&self, other: &Known) -> bool {
        let mut same = self.offers.iter().zip(&other.offers).map(|pair| match pair {
            (Some(one), Some(two)) => one.same_as(&**two),
            (one, two) => one.is_none() && two.is_none(),
        });
        self.name == other.name
            && self.protocol == other.protocol
            && self.incarnation == other.incarnation
            && self.rest == other.rest
            && same.all(|same| same)
    }

    /// Why no transport leads to the peer: -6 if its transport is not installed here or none of its NICs works, -1 if
    /// it offers nothing that this project has.
    pub(super) fn unreachable(&self) -> Error {
        let rows = || (0..).zip(PROTOCOLS).filter(|(_, row)| row.form() == self.protocol).map(|(row, _)| row);
        // Two transports may share a name for their forms.
        match rows().find(|row| self.offer(*row).is_some()).or_else(|| rows().next()) {
            Some(row) => PROTOCOLS[row].unreachable(&self.name, self.offer(row).map(|offer| &**offer)),
            None => table::unreachable(&self.protocol, &self.name),
        }
    }
}

#[cfg(test)]
mod tests;
