//! Peers that are lost and come back under their name, while the segment stays open.

use std::time::Duration;

use transfer_engine::error::{Class, Code};

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
    here: Node,
    segment: i32,
    seat: Seat,
    lost: Peer,
    /// Ends after the engines.
    _store: Store,
}

impl Loss {
    fn of(kind: Kind) -> Self {
        let store = Store::start();
        let ports = free_ports();
        let name = format!("127.0.0.1:{}", ports.0);
        let seat = Seat { name, store: store.url.clone(), at: AT, ports: Some(ports) };
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
        Loss { here, segment, seat, lost, _store: store }
    }

    fn target(&self, addr: u64) -> Target<'_> {
        Target { here: &self.here, segment: self.segment, addr }
    }

    /// Where the lost peer was, its memory included. An engine of this process has its memory there still, so its
    /// successor's is elsewhere.
    fn same_seat(&self) -> Seat {
        let at = if matches!(self.lost, Peer::Engine(_)) { ELSEWHERE } else { AT };
        Seat { at, ..self.seat.clone() }
    }

    /// The first request by what is known of the lost peer fails, and does nothing to the one that came back.
    fn is_noticed(&self, back: &Peer) {
        let untouched = back.bytes(0, LEN);
        let error = self.here.failure(self.target(self.lost.addr()).request(WRITE, 0, HALF));
        let error = error.expect("a request to a lost peer's memory does not complete");
        // Whoever is there now refuses it, or nobody is there, or it is somebody else.
        let expected = [
            (Code::AddressNotRegistered, Class::Rejected),
            (Code::Socket, Class::Network),
            (Code::Socket, Class::Metadata),
        ];
        assert!(expected.contains(&(error.code(), error.kind())), "{error:?}");
        assert!(error.retryable(), "{error:?}");
        assert!(back.bytes(0, LEN) == untouched, "bytes for the lost peer went to another one");
    }

    /// By the old segment id, bytes reach the peer that came back, and come from there.
    fn reaches(&self, back: &Peer) {
        let target = self.target(back.addr());
        retry("a WRITE to a peer that came back", RETURN_LIMIT, || {
            self.here.failure(target.request(WRITE, 0, HALF)).map_or(Ok(()), Err)
        });
        assert!(back.bytes(HALF, HALF) == self.here.bytes(0, HALF));
        self.here.overwrite();
        self.here.move_all(&[target.request(READ, 0, HALF)]);
        assert!(back.bytes(HALF, HALF) == self.here.bytes(0, HALF));
    }
}

pub fn p04_a_peer_that_comes_back_where_it_was_is_reached(kind: Kind) {
    let loss = Loss::of(kind);
    let mut back = Peer::start(kind, &loss.same_seat());
    back.register();
    loss.is_noticed(&back);
    loss.reaches(&back);
}

pub fn p04_a_peer_that_comes_back_elsewhere_is_reached(kind: Kind) {
    let loss = Loss::of(kind);
    let left = matches!(loss.lost, Peer::Engine(_)).then(|| loss.lost.bytes(0, LEN));
    let away = loss.here.failure(loss.target(AT).request(WRITE, 0, HALF)).expect("nobody is there");
    assert_eq!((away.code(), away.kind()), (Code::Socket, Class::Network), "{away:?}");
    let mut back = Peer::start(kind, &Seat { at: ELSEWHERE, ports: None, ..loss.seat.clone() });
    back.register();
    loss.is_noticed(&back);
    loss.reaches(&back);
    assert!(left.is_none_or(|left| left == loss.lost.bytes(0, LEN)), "bytes went to the lost engine");
}

pub fn p07_a_peer_that_comes_back_without_memory_is_left_alone(kind: Kind) {
    const ATTEMPTS: usize = 20;
    let loss = Loss::of(kind);
    let mut back = Peer::start(kind, &loss.same_seat());
    loss.is_noticed(&back);
    let untouched = back.bytes(0, LEN);
    for opcode in [WRITE, READ].repeat(ATTEMPTS) {
        let error = loss.here.failure(loss.target(back.addr()).request(opcode, 0, HALF));
        let error = error.expect("nothing is registered there");
        assert_eq!(error.code(), Code::AddressNotRegistered, "{error:?}");
    }
    assert!(back.bytes(0, LEN) == untouched);
    back.register();
    loss.reaches(&back);
}
