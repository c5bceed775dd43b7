//! Segment descriptors of peers and stores, and what each transport reads from them.

use transfer_engine::json;
use transfer_engine::segment_desc::{SegmentDesc, BUFFERS};
use transfer_engine::transport::offer::Offer;
use transfer_engine::transport::table::PROTOCOLS;

use super::memory::bounded;

/// As that of `json`, a few times: descriptors are copied, and each transport has lists of its own.
const PER_BYTE: usize = 2048;

/// What is published again says the same to each transport; no offer has a range that leaves the address space.
pub fn run(bytes: &[u8]) {
    bounded(bytes, PER_BYTE, || {
        let Ok(desc) = json::parse(bytes).and_then(SegmentDesc::decode) else { return };
        let mut again = SegmentDesc::decode(desc.clone().encode()).unwrap();
        for row in PROTOCOLS {
            let (offer, second) = (row.read(&desc), row.read(&again));
            let (Ok(offer), Ok(second)) = (&offer, &second) else {
                assert!(offer.is_err() && second.is_err(), "{}", row.name());
                continue;
            };
            assert_eq!(offer.is_some(), second.is_some(), "{}", row.name());
            let _ = row.unreachable("peer", offer.as_deref()).to_string();
            if let (Some(offer), Some(second)) = (offer, second) {
                check(row.name(), &**offer, &**second);
            }
        }
        if !desc.members.contains_key(BUFFERS) {
            again.members.remove(BUFFERS);
        }
        assert_eq!(desc, again);
        let _ = desc.weight();
    });
}

fn check(row: &str, offer: &dyn Offer, second: &dyn Offer) {
    assert!(offer.same_as(second) && second.same_as(offer), "{row}");
    assert_eq!((offer.leads(), offer.incarnation()), (second.leads(), second.incarnation()), "{row}");
    assert_eq!(offer.buffers().len(), offer.buffers().count(), "{row}");
    let _ = offer.ranges().rule();
    for (addr, len, _) in offer.buffers() {
        let (start, length) =
            offer.ranges().around(addr).unwrap_or_else(|| panic!("{row}: nothing at {addr}"));
        assert!(start.checked_add(length).is_some(), "{row}: {start}+{length}");
        assert!(
            start <= addr && addr < start + length && addr.checked_add(len).is_some(),
            "{row}: {addr}+{len}"
        );
    }
}
