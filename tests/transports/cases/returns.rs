//! Peers that are lost and come back under their name, while the segment stays open.

use std::time::Duration;

use transfer_engine::error::Error;

use crate::memory::{Memory, LEN};
use crate::node::{Kind, Node, READ, WRITE};
use crate::pair::{Target, HALF};
use crate::peer::{free_ports, Peer, Seat};
use crate::store::Store;
use crate::traffic::retry;

/// A peer that came back is reached again within this time of trying.
pub const RETURN_LIMIT: Duration = Duration::from_secs(10);
/// Where its memory is, far from what the system chooses.
const AT: u64 = 0x2a00_0000_0000;
const ELSEWHERE: u64 = AT + (1 << 32);

/// An engine, a peer that it has reached and that was lost, and the segment, which is still open.
struct Loss {
    _store: Store,
    seat: Seat,
    here: Node,
    segment: i32,
    lost: Peer,
}

impl Loss {
    fn of(kind: Kind) -> Self {
        let store = Store::start();
        let seat = |ports: (u16, u16)| Seat {
            name: format!("127.0.0.1:{}", ports.0),
            store: store.url.clone(),
            at: AT,
            ports: Some(ports),
        };
        let seat = seat(free_ports());
        let here = Node::unregistered(kind, 0, &store.url, "here", Memory::new(None, 0));
        here.register().unwrap();
        let mut lost = Peer::start(kind, &seat);
        lost.register();
        let segment = here.engine.open_segment(lost.name()).unwrap();
        let target = Target { here: &here, segment, addr: lost.addr() };
        here.move_all(&[target.request(WRITE, 0, HALF), target.request(READ, 0, 100)]);
        assert!(lost.bytes(HALF, HALF) == here.bytes(0, HALF));
        lost.kill();
        here.overwrite();
        Loss { _store: store, seat, here, segment, lost }
    }

    fn target(&self, addr: u64) -> Target<'_> {
        Target { here: &self.here, segment: self.segment, addr }
    }

    /// By the old segment id, bytes reach the peer that came back, and come from there.
    fn reaches(&self, back: &Peer) {
        let target = self.target(back.addr());
        let arrives =
            |opcode| self.here.failure(target.request(opcode, 0, HALF)).map_or(Ok(()), Err::<(), Error>);
        retry("a WRITE to a peer that came back", RETURN_LIMIT, || arrives(WRITE));
        assert!(back.bytes(HALF, HALF) == self.here.bytes(0, HALF));
        self.here.overwrite();
        assert!(arrives(READ).is_ok());
        assert!(back.bytes(HALF, HALF) == self.here.bytes(0, HALF));
    }
}

pub fn p04_a_peer_that_comes_back_where_it_was_is_reached(kind: Kind) {
    let loss = Loss::of(kind);
    // An engine of this process would have its memory there still.
    let seat = Seat { at: if kind == Kind::Echo { ELSEWHERE } else { AT }, ..loss.seat.clone() };
    let mut back = Peer::start(kind, &seat);
    back.register();
    let first = loss.here.failure(loss.target(AT).request(WRITE, 0, HALF));
    println!("{kind:?}: first {first:?}");
    first.expect("a request to the lost peer's memory does not complete");
    loss.reaches(&back);
}

pub fn p04_a_peer_that_comes_back_elsewhere_is_reached(kind: Kind) {
    let loss = Loss::of(kind);
    let memory = matches!(loss.lost, Peer::Engine(_)).then(|| loss.lost.bytes(0, LEN));
    let mut back = Peer::start(kind, &Seat { at: ELSEWHERE, ports: None, ..loss.seat.clone() });
    back.register();
    let untouched = back.bytes(0, LEN);
    let first = loss.here.failure(loss.target(AT).request(WRITE, 0, HALF));
    println!("{kind:?}: first {first:?}");
    first.expect("a request to the lost peer's memory does not complete");
    assert!(back.bytes(0, LEN) == untouched);
    loss.reaches(&back);
    assert!(memory.is_none_or(|memory| memory == loss.lost.bytes(0, LEN)), "the old engine's memory");
}

pub fn p07_a_peer_that_comes_back_without_memory_is_left_alone(kind: Kind) {
    let loss = Loss::of(kind);
    let seat = Seat { at: if kind == Kind::Echo { ELSEWHERE } else { AT }, ..loss.seat.clone() };
    let mut back = Peer::start(kind, &seat);
    let untouched = back.bytes(0, LEN);
    for attempt in 0..20 {
        for opcode in [WRITE, READ] {
            let error = loss.here.failure(loss.target(seat.at).request(opcode, 0, HALF));
            let error = error.expect("nothing is registered there");
            if attempt == 0 || attempt == 19 { println!("{kind:?}: {attempt} {error:?}") };
        }
    }
    assert!(back.bytes(0, LEN) == untouched);
    back.register();
    loss.reaches(&back);
}
