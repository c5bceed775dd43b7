//! Random registrations, against a look at every region.

use proptest::prelude::*;

use super::*;

/// What a caller does.
#[derive(Clone, Debug)]
enum Step {
    Register(Vec<(u64, u64)>, bool),
    Unregister(u64),
    Use(u64, u64),
    Let,
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (1u64..40, 0u64..12);
    prop_oneof![
        (prop::collection::vec(range(), 1..4), any::<bool>())
            .prop_map(|(ranges, remote)| Step::Register(ranges, remote)),
        (1u64..50).prop_map(Step::Unregister),
        range().prop_map(|(addr, len)| Step::Use(addr, len)),
        Just(Step::Let),
    ]
}

/// A region of the model: first byte, length, open to peers, registrations.
type Known = (u64, u64, bool, usize);

/// What [`Registry::reserve`] should say: the code, or what is known afterwards.
fn registered(
    known: &[Known],
    counts: bool,
    ranges: &[(u64, u64)],
    remote: bool,
) -> Result<Vec<Known>, Code> {
    if ranges.iter().any(|(_, len)| *len == 0) {
        return Err(Code::InvalidArgument);
    }
    let mut known = known.to_vec();
    for &(addr, len) in ranges {
        let meets = |other: &Known| addr < other.0 + other.1 && other.0 < addr + len;
        match known.iter_mut().find(|other| meets(other)) {
            Some(same) if counts && *same == (addr, len, remote, same.3) => same.3 += 1,
            Some(_) => return Err(Code::AddressOverlapped),
            None => known.push((addr, len, remote, 1)),
        }
    }
    Ok(known)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn p11_p37_the_registry_knows_what_a_list_would(
        counts in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let registry = Registry::new(counts);
        let (mut known, mut uses): (Vec<Known>, Vec<RegionUse>) = Default::default();
        for step in steps {
            match step {
                Step::Register(ranges, remote) => {
                    let as_ranges: Vec<Range> = ranges.iter().map(|&(addr, len)| Range { addr, len }).collect();
                    let outcome = registry.reserve(&as_ranges, "*", remote);
                    let outcome = outcome.map(|reserved| {
                        assert!(reserved.added.iter().all(|region| region.begin_use().is_none()), "it is not open");
                        registry.open(&reserved.added);
                    });
                    match registered(&known, counts, &ranges, remote) {
                        Ok(now) => {
                            prop_assert!(outcome.is_ok());
                            known = now;
                        }
                        Err(code) => prop_assert_eq!(outcome.map_err(|error| error.code()), Err(code)),
                    }
                }
                Step::Unregister(addr) => match known.iter().position(|region| region.0 == addr) {
                    None => prop_assert_eq!(registry.revoke(addr).map(drop).unwrap_err().code(), Code::AddressNotRegistered),
                    Some(at) => {
                        known[at].3 -= 1;
                        let ended = registry.revoke(addr).unwrap();
                        prop_assert_eq!(ended.is_some(), known[at].3 == 0);
                        if let Some(region) = ended {
                            known.remove(at);
                            prop_assert!(registry.use_for_peer(addr, 1, PeerAccess::BOTH).is_none());
                            let is_used = uses.iter().any(|used| Arc::ptr_eq(used.region(), &region));
                            prop_assert_eq!(region.wait_idle(Duration::ZERO), !is_used);
                            uses.retain(|used| !Arc::ptr_eq(used.region(), &region));
                            prop_assert!(region.wait_idle(Duration::ZERO));
                            registry.remove(&region);
                        }
                    }
                },
                Step::Use(addr, len) => {
                    let used = registry.use_for_peer(addr, len, PeerAccess::BOTH);
                    let holds = |region: &&Known| region.2 && region.0 <= addr && addr + len <= region.0 + region.1;
                    let holder = known.iter().find(holds).filter(|_| len > 0);
                    prop_assert_eq!(used.as_ref().map(|used| used.region().addr), holder.map(|region| region.0));
                    uses.extend(used);
                }
                Step::Let => drop(uses.pop()),
            }
            // One view looks at all of the bytes, so that each look follows one at a neighbour.
            let mut view = registry.view();
            for addr in 0..60 {
                let holder = known.iter().find(|region| (region.0..region.0 + region.1).contains(&addr));
                prop_assert_eq!(view.at(addr).map(|region| region.addr), holder.map(|region| region.0));
            }
            drop(view);
            for (addr, len) in [(0, 60), (5, 0), (7, 3), (20, 1), (31, 9), (55, u64::MAX)] {
                let meets = |region: &Known| addr < region.0 + region.1 && u128::from(region.0) < u128::from(addr) + u128::from(len);
                prop_assert_eq!(registry.overlaps(addr, len), len > 0 && known.iter().any(meets), "{}+{}", addr, len);
            }
            prop_assert_eq!(registry.count(), known.len());
            prop_assert_eq!(registry.published().unwrap().len(), known.iter().filter(|region| region.2).count());
        }
    }
}
