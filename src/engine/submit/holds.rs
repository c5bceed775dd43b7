//! The regions that a submit call uses, found again fast: its requests are mostly neighbours.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::memory::{Region, View};
use crate::transport::slice::{Hold, Work};

/// So many regions are remembered. Chosen: requests that take turns between a few regions find each of them; looking through
/// more costs as much as asking the registry.
const REMEMBERED: usize = 8;

/// What slices of one call in one region, over one transport, share.
struct Known {
    addr: u64,
    len: u64,
    target: usize,
    hold: Arc<Hold>,
}

/// The holds of a call.
#[derive(Default)]
pub(super) struct Holds {
    known: SmallVec<[Known; 1]>,
    /// The one that was found last, and the one that is replaced next.
    last: usize,
    oldest: usize,
    /// Of unregistered memory.
    bare: Option<Arc<Hold>>,
}

impl Holds {
    /// The hold of the region with the byte at `addr`, for slices to `target`, and how many bytes further on it ends; `None` if
    /// `addr` is in no region. `check` says whether the region may be used there; it is asked once in a row of requests.
    #[inline]
    pub(super) fn find(
        &mut self,
        view: &mut View<'_>,
        work: &Arc<Work>,
        (addr, target): (u64, usize),
        check: impl FnOnce(&Region) -> Result<()>,
    ) -> Result<Option<(&Arc<Hold>, u64)>> {
        let holds = |known: &Known| known.target == target && addr.wrapping_sub(known.addr) < known.len;
        if !self.known.get(self.last).is_some_and(holds) {
            match self.known.iter().position(holds) {
                Some(place) => self.last = place,
                None => {
                    let Some(region) = view.at(addr) else { return Ok(None) };
                    let Some(used) = region.begin_use() else { return Ok(None) };
                    check(region)?;
                    let (addr, len) = (region.addr, region.len);
                    self.remember(Known { addr, len, target, hold: Hold::new(work, Some(used)) })?;
                }
            }
        }
        let known = &self.known[self.last];
        Ok(Some((&known.hold, known.len - (addr - known.addr))))
    }

    fn remember(&mut self, known: Known) -> Result<()> {
        if self.known.len() < REMEMBERED {
            self.known.try_reserve(1).map_err(|_| Error::out_of_memory("a submit call"))?;
            self.last = self.known.len();
            self.known.push(known);
        } else {
            self.last = self.oldest;
            self.oldest = (self.oldest + 1) % REMEMBERED;
            self.known[self.last] = known;
        }
        Ok(())
    }

    /// The hold of slices whose local memory was never registered.
    pub(super) fn bare(&mut self, work: &Arc<Work>) -> &Arc<Hold> {
        self.bare.get_or_insert_with(|| Hold::new(work, None))
    }
}
