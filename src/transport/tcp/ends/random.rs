//! Random connections that end.

use proptest::prelude::*;

use super::*;
use crate::transport::slice::deaf::work;
use crate::transport::slice::{Slice, Status};

fn down(kind: u8) -> Down {
    let error = || Error::new(Code::Socket, "why").transient(Class::Network);
    match kind {
        0 => Down::Rejected,
        1 => Down::Closed(None),
        2 => Down::Closed(Some(io::Error::from_raw_os_error(libc::ECONNRESET))),
        3 => Down::Protocol("odd".into()),
        4 => Down::Fault { sending: false },
        5 => Down::Fault { sending: true },
        6 => Down::Stuck(error()),
        7 => Down::Canceled(error()),
        _ => Down::Dropped(error()),
    }
}

const ATTEMPTS: [Attempt; 3] = [Attempt::First, Attempt::Fresh, Attempt::Alone];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn p02_every_request_goes_one_way_and_no_begun_write_goes_again_unasked(
        requests in prop::collection::vec((any::<bool>(), 0usize..3, 0u8..4, any::<bool>()), 0..9),
        kind in 0u8..9,
        sent in 0usize..9,
        partly in any::<bool>(),
        unanswered in any::<bool>(),
        fenced in any::<bool>(),
        resend_writes in any::<bool>(),
    ) {
        let works: Vec<_> = requests.iter().map(|_| work(1)).collect();
        let make = |(at, &(writes, attempt, drops, canceled)): (usize, &(bool, usize, u8, bool))| {
            let op = if writes { Op::Write } else { Op::Read };
            let mut request = Request::new(Slice::new(&works[at], 0, op, 1, at as u64, 8, None), 0);
            (request.attempt, request.drops) = (ATTEMPTS[attempt], drops);
            if canceled {
                works[at].cancel();
            }
            request
        };
        let made: Vec<Request> = requests.iter().enumerate().map(make).collect();
        let sent = sent.min(made.len());
        let begun = (sent + usize::from(partly)).min(made.len());
        let (down, standing) = (down(kind), Standing { sent, begun, unanswered });
        let ends = sort(made, &down, &standing, &Rules { peer: "peer", rail: "rail", fenced, resend_writes });

        // Each once, and in their order.
        let places = |list: Vec<u64>| { assert!(list.is_sorted()); list };
        let failed = places(ends.failed.iter().map(|(request, _)| request.remote()).collect());
        let again = places(ends.again.iter().map(Request::remote).collect());
        let behind = places(ends.behind.iter().map(|(request, _)| request.remote()).collect());
        let mut all: Vec<u64> = [failed, again.clone(), behind.clone()].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..requests.len() as u64).collect::<Vec<_>>());

        let is_begun_write = |at: &u64| (*at as usize) < begun && requests[*at as usize].0;
        let rejected = matches!(down, Down::Rejected);
        let allowed = matches!(down, Down::Closed(_)) && resend_writes && !fenced;
        prop_assert!(rejected || allowed || !again.iter().any(is_begun_write), "its bytes may still arrive");
        prop_assert!(behind.iter().all(is_begun_write) && (fenced || behind.is_empty()));
        // A begun WRITE that fails leaves a trail, unless the peer has said that it takes no more.
        let lost = ends.failed.iter().filter(|(request, _)| is_begun_write(&request.remote())).count();
        prop_assert_eq!(ends.trails.len(), if rejected { 0 } else { lost });
        let gone = ends.again.iter().chain(ends.behind.iter().map(|(request, _)| request));
        prop_assert!(gone.into_iter().all(|request| !requests[request.remote() as usize].3), "nobody wants it");
        for (request, error) in ends.failed.into_iter().chain(ends.behind) {
            let at = request.remote() as usize;
            prop_assert!(!error.text().is_empty());
            request.fail(error);
            prop_assert_eq!(works[at].tasks[0].status(), Status::Failed);
        }
        for request in ends.again {
            request.complete(true, 1);
        }
    }

    #[test]
    fn p03_no_request_is_sent_again_for_ever(
        writes in any::<bool>(),
        causes in prop::collection::vec((prop_oneof![Just(1u8), Just(2), Just(8)], any::<bool>()), 12),
    ) {
        let work = work(1);
        let op = if writes { Op::Write } else { Op::Read };
        let mut again = vec![Request::new(Slice::new(&work, 0, op, 1, 0, 8, None), 0)];
        let mut rounds = 0;
        for (kind, unanswered) in causes {
            let standing = Standing { sent: 1, begun: 1, unanswered };
            let ends = sort(again, &down(kind), &standing, &Rules { peer: "peer", rail: "rail", fenced: true, resend_writes: false });
            again = ends.again;
            again.extend(ends.behind.into_iter().map(|(request, _)| request));
            ends.failed.into_iter().for_each(|(request, error)| request.fail(error));
            rounds += usize::from(!again.is_empty());
        }
        prop_assert!(again.is_empty() && rounds <= usize::from(MOST_DROPS) + 2, "{} rounds", rounds);
    }
}
