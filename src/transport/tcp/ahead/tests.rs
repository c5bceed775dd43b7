use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::memory::{PeerAccess, Range, Registry};
use crate::runtime::tracked::Tracked;

const SIZE: u64 = 32;
const BASE: u64 = 0x10_000;

fn head(op: Op, addr: u64, size: u64) -> Vec<u8> {
    Header { size, addr, op, v2: true }.encode().to_vec()
}

/// A WRITE to the n-th place, with its body.
fn write(place: u64) -> Vec<u8> {
    [head(Op::Write, BASE + place * SIZE, SIZE), vec![place as u8; SIZE as usize]].concat()
}

/// What is seen behind a body of which `left` bytes are to come, where `bytes` have come: the places of the bodies and their
/// lengths, and how many bytes one receive would ask for.
fn seen(left: u64, bytes: &[u8]) -> (Vec<(u64, u64)>, usize) {
    let registry = Registry::new(false);
    registry.insert(&[Range { addr: BASE, len: 1000 * SIZE }], "*", true).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = Socket::new(Tracked::open(|| Ok(listener.accept()?.0)).unwrap(), None).unwrap();
    peer.write_all(bytes).unwrap();
    // A byte that is there says nothing of the next: waits until all have come.
    let mut all = vec![0; bytes.len()];
    while {
        let mut iov = Iov::new();
        iov.push_mut(&mut all);
        !matches!(socket.peek(&mut iov), Io::Moved(n) if n == bytes.len())
    } {}
    let held = registry.use_for_peer(BASE, 1, PeerAccess::BOTH).unwrap();
    let body = Body { held, addr: BASE, left, size: SIZE, v2: true };
    let (mut heads, mut scratch) = (vec![0; MOST * HEADER_LEN], Box::new([0; SCRATCH]));
    let check = |header: &Header| registry.use_for_peer(header.addr, header.size, PeerAccess::BOTH);
    let ahead = Ahead::look(&socket, &body, &mut heads, &mut scratch, check);
    let mut iov = Iov::new();
    let rest = ahead.ask(&mut iov, &mut heads).len();
    assert_eq!(rest, (MOST - ahead.len()) * HEADER_LEN);
    let asked = iov.bytes();
    let count = ahead.len();
    let bodies: Vec<_> = ahead.into_bodies().map(|body| (body.addr, body.left)).collect();
    assert_eq!(bodies.len(), count);
    (bodies, asked)
}

fn places(places: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    places.map(|place| (BASE + place * SIZE, SIZE)).collect()
}

#[test]
fn writes_that_have_come_are_seen_from_their_headers_on() {
    let body = vec![7; SIZE as usize];
    let each = HEADER_LEN + SIZE as usize;
    let all = [body.clone(), write(1), write(2)].concat();
    assert_eq!(seen(SIZE, &all), (places(1..3), 2 * each));
    assert_eq!(
        seen(5, &all[SIZE as usize - 5..]),
        (places(1..3), 2 * each),
        "most of the body was taken before"
    );
    // The last body has not come, or its header not as a whole, or nothing.
    assert_eq!(seen(SIZE, &all[..all.len() - SIZE as usize]), (places(1..3), 2 * each));
    assert_eq!(seen(SIZE, &all[..all.len() - SIZE as usize - 1]), (places(1..2), each));
    assert_eq!(seen(SIZE, &body), (vec![], 0));
    // More than one look takes.
    let many = (1..=MOST as u64 + 1).map(write).collect::<Vec<_>>().concat();
    assert_eq!(seen(SIZE, &[body, many].concat()), (places(1..MOST as u64 + 1), MOST * each));
}

#[test]
fn a_look_ends_before_what_may_not_be_put_in_place_and_behind_another_size() {
    let body = vec![7; SIZE as usize];
    let read = [body.clone(), write(1), head(Op::Read, BASE, SIZE), write(2)].concat();
    assert_eq!(seen(SIZE, &read).0, places(1..2));
    let strange = [body.clone(), write(1), write(5000), write(2)].concat();
    assert_eq!(seen(SIZE, &strange).0, places(1..2), "nobody registered that");
    let other =
        [body, write(1), head(Op::Write, BASE + 2 * SIZE, 3 * SIZE), vec![0; 3 * SIZE as usize], write(9)];
    let long = (BASE + 2 * SIZE, 3 * SIZE);
    assert_eq!(seen(SIZE, &other.concat()).0, [places(1..2), vec![long]].concat());
}

#[test]
fn a_look_fits_into_one_receive() {
    // The body under way, and the header behind all.
    assert_eq!(1 + 2 * MOST + 1, IOV_MAX);
}
