//! Which transport leads to a segment: chosen per submit call, by the descriptor as it is then.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use super::known::Known;
use super::route::SegmentRoute;
use super::segment::Segment;
use super::Engine;
use crate::error::{Code, Error, Result};
use crate::transport::table::PROTOCOLS;
use crate::transport::Link;

/// How requests reach a segment.
#[derive(Clone)]
pub(super) struct Way {
    /// The transport's row in [`PROTOCOLS`].
    pub row: usize,
    /// The segment's link over it.
    pub link: Arc<dyn Link>,
}

impl Engine {
    /// The first transport that the peer offers, that is installed, and that works now; if none works, the first
    /// of them, whose link says why. -6 if only a transport leads there that is not installed, -1 if nothing does.
    pub(super) fn way(&self, segment: &Arc<Segment>, known: &Known) -> Result<Way> {
        let ways = || {
            known.leading().filter_map(|row| {
                let transport = self.transports().get(row)?;
                let route = || Arc::new(SegmentRoute::new(row, segment, &self.client));
                let link = segment.link(row, || transport.link(route()));
                Some(Way { row, link })
            })
        };
        let picked = match pick(ways().filter(|way| way.link.leads())) {
            // What has yet to be proven is better than nothing.
            Pick::None => pick(ways()),
            picked => picked,
        };
        match picked {
            Pick::Best(way) => Ok(way),
            Pick::InsteadOf(better, way) => {
                self.note_fallback(&known.name, PROTOCOLS[better.row].name(), PROTOCOLS[way.row].name())?;
                Ok(way)
            }
            Pick::None => Err(known.unreachable()),
        }
    }

    /// Counts and logs that a peer is reached by `used` although `better` is installed; an error in strict mode.
    fn note_fallback(&self, peer: &str, better: &str, used: &str) -> Result<()> {
        self.transports().fallbacks.fetch_add(1, Relaxed);
        if self.config.strict {
            let text =
                format!("no NIC for {better} works, and MC_STRICT refuses {used} instead; see showLinks");
            return Err(Error::new(Code::DeviceNotFound, text).peer(peer));
        }
        if self.log.admit("transport", peer) {
            tracing::warn!("fall-back: {peer} is reached by {used}, because no NIC for {better} works");
        }
        Ok(())
    }
}

/// Which of the ways to a segment is taken.
enum Pick {
    /// The first one; either it works, or none does.
    Best(Way),
    /// The second, because the first does not work.
    InsteadOf(Way, Way),
    None,
}

fn pick(ways: impl Iterator<Item = Way>) -> Pick {
    let mut first = None;
    for way in ways {
        let works = way.link.ready().is_ok();
        match (first.take(), works) {
            (None, true) => return Pick::Best(way),
            (Some(first), true) => return Pick::InsteadOf(first, way),
            (None, false) => first = Some(way),
            (earlier, false) => first = earlier,
        }
    }
    first.map_or(Pick::None, Pick::Best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::slice::Slice;

    struct Fake(Option<Code>);

    impl Link for Fake {
        fn ready(&self) -> Result<()> {
            self.0.map_or(Ok(()), |code| Err(Error::new(code, "out of order")))
        }

        fn submit(&self, _: Vec<Slice>, _: u64) {}

        fn poll(&self) -> bool {
            false
        }

        fn rely_on_threads(&self) {}

        fn give_up(&self) {}

        fn close(&self, _: &Error) {}
    }

    #[test]
    fn the_first_way_that_works_is_taken() {
        let picked = |works: &[bool]| {
            let link =
                |works: &bool| Arc::new(Fake((!works).then_some(Code::DeviceNotFound))) as Arc<dyn Link>;
            let ways = works.iter().enumerate().map(|(row, works)| Way { row, link: link(works) });
            match pick(ways) {
                Pick::Best(way) => Some((way.row, None)),
                Pick::InsteadOf(better, way) => Some((way.row, Some(better.row))),
                Pick::None => None,
            }
        };
        assert_eq!(picked(&[true, true]), Some((0, None)));
        assert_eq!(picked(&[false, true]), Some((1, Some(0))));
        assert_eq!(picked(&[false, false, true]), Some((2, Some(0))));
        assert_eq!(picked(&[false, false]), Some((0, None)), "its error tells why");
        assert_eq!(picked(&[]), None);
    }
}
