use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustls::ClientConnection;
use socket2::SockRef;

use super::*;
use crate::tls::certificates::{Set, Who};
use crate::tls::Port;

/// Both ends of a connection, which do not block.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    [&near, &far].into_iter().for_each(|end| end.set_nonblocking(true).unwrap());
    (near, far)
}

fn server() -> Session {
    Session::new(Set::get().tls(Who::One).server(Port::Data).unwrap().into(), &[])
}

fn client() -> ClientConnection {
    Set::get().tls(Who::Two).client(Port::Data, "127.0.0.1").unwrap()
}

/// What a receive of at most `room` bytes brings.
fn take(session: &mut Session, end: &TcpStream, room: usize) -> Result<Vec<u8>, Io> {
    let mut bytes = vec![0; room];
    let mut iov = Iov::new();
    iov.push_mut(&mut bytes);
    match session.recv(end.as_raw_fd(), &iov) {
        Io::Moved(count) => {
            bytes.truncate(count);
            Ok(bytes)
        }
        other => Err(other),
    }
}

/// As [`take`], once something has come.
fn come(session: &mut Session, end: &TcpStream, room: usize) -> Result<Vec<u8>, Io> {
    loop {
        match take(session, end, room) {
            Err(Io::WouldBlock) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// Two sessions that are through with their beginning.
fn begun() -> ((Session, TcpStream), (Session, TcpStream)) {
    let (near, far) = pair();
    let (mut asks, mut serves) = (Session::new(client().into(), &[]), server());
    // The client speaks first, which a receive does not make it do.
    asks.flush(near.as_raw_fd()).unwrap();
    while asks.is_beginning() || serves.is_beginning() {
        assert!(matches!(take(&mut serves, &far, 1), Err(Io::WouldBlock)));
        assert!(matches!(take(&mut asks, &near, 1), Err(Io::WouldBlock)));
    }
    ((asks, near), (serves, far))
}

/// A client that writes what it encrypts by hand.
struct ByHand {
    tls: ClientConnection,
    stream: TcpStream,
}

impl ByHand {
    fn encrypted(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// One whose beginning goes to `session` in pieces of `step` bytes.
    fn begun(step: usize) -> (Self, Session, TcpStream) {
        let (stream, far) = pair();
        let (mut hand, mut session) = (ByHand { tls: client(), stream }, server());
        while hand.tls.is_handshaking() || session.is_beginning() {
            for piece in hand.encrypted().chunks(step) {
                hand.stream.write_all(piece).unwrap();
                assert!(matches!(take(&mut session, &far, 1), Err(Io::WouldBlock)));
            }
            // What came late.
            assert!(matches!(take(&mut session, &far, 1), Err(Io::WouldBlock)));
            let mut answer = [0; 4096];
            if let Ok(count) = hand.stream.read(&mut answer) {
                let mut come = &answer[..count];
                while !come.is_empty() {
                    hand.tls.read_tls(&mut come).unwrap();
                    hand.tls.process_new_packets().unwrap();
                }
            }
        }
        (hand, session, far)
    }

    fn record(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        self.encrypted()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn p40_bytes_arrive_in_order_however_little_the_kernel_takes_and_has() {
    let ((mut asks, near), (mut serves, far)) = begun();
    SockRef::from(&near).set_send_buffer_size(4096).unwrap();
    SockRef::from(&far).set_recv_buffer_size(4096).unwrap();
    let sent = pattern(700_001);
    let (mut told, mut come, mut blocked) = (0, Vec::new(), 0);
    // Pieces of one byte and of many; receives of one byte and of many.
    for turn in 0.. {
        if told < sent.len() {
            let mut iov = Iov::new();
            let mut at = told;
            for piece in [1, 24, 1, 40_000, 24, 3, 100_000] {
                let end = (at + piece).min(sent.len());
                iov.push(&sent[at..end]);
                at = end;
            }
            match asks.send(near.as_raw_fd(), &iov) {
                Io::Moved(count) => told += count,
                Io::WouldBlock => blocked += 1,
                other => panic!("{other:?}"),
            }
        }
        if let Ok(bytes) = take(&mut serves, &far, [1, 5, 20_000, 3, 70_000][turn % 5]) {
            come.extend(bytes);
        }
        assert!(told <= come.len() + (8 << 20), "no end of what is taken");
        if come.len() == sent.len() && told == sent.len() {
            break;
        }
    }
    assert!(come == sent && blocked > 0, "{blocked} refusals");
}

#[test]
fn p40_the_last_byte_is_told_as_sent_only_when_the_kernel_has_all() {
    let ((mut asks, near), (mut serves, far)) = begun();
    let bytes = pattern(16 << 20);
    let mut told = 0;
    loop {
        let mut iov = Iov::new();
        iov.push(&bytes[told..]);
        match asks.send(near.as_raw_fd(), &iov) {
            Io::Moved(count) => told += count,
            Io::WouldBlock => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(asks.is_held && asks.tls.wants_write() && told < bytes.len());
    // A request of which one byte would be encrypted is not begun: its first byte waits.
    let mut iov = Iov::new();
    iov.push(&bytes[..10]);
    iov.push(&bytes[..24]);
    assert_eq!((iov.begun_before(10), iov.begun_before(11), iov.begun_before(34)), (10, 1, 24));
    // What the peer takes makes room, and then the byte is told first.
    let count = loop {
        let _ = take(&mut serves, &far, 1 << 20);
        let mut iov = Iov::new();
        iov.push(&bytes[told..told + 1]);
        match asks.send(near.as_raw_fd(), &iov) {
            Io::Moved(count) => break count,
            Io::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(count == 1 && !asks.is_held && !asks.tls.wants_write());
}

/// A plain socket tells how many bytes went before an error, so what may have arrived is never taken for unsent.
#[test]
fn p40_records_that_went_before_an_error_are_told_as_sent() {
    let ((mut asks, near), (serves, far)) = begun();
    drop((serves, far));
    // The first record is taken and answered by a reset, which the second one meets.
    let sent = pattern(3 * RECORD);
    let send = |asks: &mut Session| {
        let mut iov = Iov::new();
        iov.push(&sent);
        asks.send(near.as_raw_fd(), &iov)
    };
    let first = send(&mut asks);
    assert!(matches!(first, Io::Moved(count) if count == RECORD), "{first:?}");
    let second = send(&mut asks);
    assert!(matches!(second, Io::Failed(_)), "{second:?}");
}

/// However much there is, the thread turns to its other connections in between.
#[test]
fn p40_a_call_moves_a_bounded_part() {
    let ((mut asks, near), (mut serves, far)) = begun();
    let sent = pattern(8 << 20);
    std::thread::scope(|scope| {
        let (sent, near) = (&sent, &near);
        scope.spawn(move || {
            let mut told = 0;
            while told < sent.len() {
                let mut iov = Iov::new();
                iov.push(&sent[told..]);
                match asks.send(near.as_raw_fd(), &iov) {
                    Io::Moved(count) => {
                        assert!(count <= ROUNDS * RECORD + 1, "{count} sent at once");
                        told += count;
                    }
                    Io::WouldBlock => std::thread::yield_now(),
                    other => panic!("{other:?}"),
                }
            }
        });
        let mut come = Vec::new();
        while come.len() < sent.len() {
            match take(&mut serves, &far, sent.len()) {
                Ok(bytes) => {
                    assert!(bytes.len() <= (ROUNDS + 1) * INBOX, "{} received at once", bytes.len());
                    come.extend(bytes);
                }
                Err(Io::WouldBlock) => std::thread::yield_now(),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(come == *sent);
    });
}

#[test]
fn p40_what_comes_byte_by_byte_is_understood() {
    let (mut hand, mut session, far) = ByHand::begun(1);
    let (record, mut got) = (hand.record(b"a request"), Vec::new());
    let (last, others) = record.split_last().unwrap();
    for byte in others {
        hand.stream.write_all(&[*byte]).unwrap();
        got.push(take(&mut session, &far, 100));
    }
    assert!(got.iter().all(|got| matches!(got, Err(Io::WouldBlock))), "not before the record is whole");
    hand.stream.write_all(&[*last]).unwrap();
    assert_eq!(come(&mut session, &far, 100).unwrap(), b"a request");
}

#[test]
fn p40_what_is_decrypted_already_is_told_of_without_the_kernel() {
    let (mut hand, mut session, far) = ByHand::begun(512);
    let record = hand.record(b"a record");
    hand.stream.write_all(&record).unwrap();
    assert_eq!(come(&mut session, &far, 3).unwrap(), b"a r");
    assert!(session.has_more());
    assert_eq!(take(&mut session, &far, 100).unwrap(), b"ecord");
    assert!(!session.has_more());
    assert!(matches!(take(&mut session, &far, 100), Err(Io::WouldBlock)));
}

#[test]
fn p40_the_end_is_the_end_announced_or_not_and_what_came_before_is_delivered() {
    for announced in [true, false] {
        let (mut hand, mut session, far) = ByHand::begun(512);
        let mut last = hand.record(b"last words");
        if announced {
            hand.tls.send_close_notify();
            last.extend(hand.encrypted());
        }
        hand.stream.write_all(&last).unwrap();
        drop(hand);
        assert_eq!(come(&mut session, &far, 100).unwrap(), b"last words");
        for _ in 0..2 {
            assert!(matches!(come(&mut session, &far, 100), Err(Io::Eof)), "{announced}");
        }
    }
    // In the middle of a record nothing of it is delivered.
    let (mut hand, mut session, far) = ByHand::begun(512);
    let cut = hand.record(b"never");
    hand.stream.write_all(&cut[..cut.len() - 1]).unwrap();
    drop(hand);
    assert!(matches!(come(&mut session, &far, 100), Err(Io::Eof)));
}

#[test]
fn p40_no_changed_byte_is_delivered() {
    let len = ByHand::begun(512).0.record(b"payment").len();
    for at in 5..len {
        let (mut hand, mut session, far) = ByHand::begun(512);
        let mut record = hand.record(b"payment");
        record[at] ^= 1;
        hand.stream.write_all(&record).unwrap();
        let Err(Io::Failed(error)) = come(&mut session, &far, 100) else { panic!("byte {at} is believed") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}");
    }
}

#[test]
fn p40_garbage_where_tls_begins_is_an_error() {
    for garbage in [&[0; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 9]] {
        let (mut near, far) = pair();
        near.write_all(garbage).unwrap();
        let mut session = server();
        assert!(matches!(come(&mut session, &far, 100), Err(Io::Failed(_))), "{garbage:?}");
        assert!(session.is_beginning());
    }
}

#[test]
fn p40_memory_that_is_gone_is_a_fault_and_takes_no_byte_along() {
    let ((mut asks, near), (mut serves, far)) = begun();
    let mut iov = Iov::new();
    iov.push_raw(4096, 100);
    assert!(matches!(asks.send(near.as_raw_fd(), &iov), Io::Fault));
    let mut iov = Iov::new();
    iov.push(b"some");
    iov.push_raw(4096, 100);
    assert!(matches!(asks.send(near.as_raw_fd(), &iov), Io::Moved(4)));
    let mut iov = Iov::new();
    iov.push_raw(4096, 100);
    let received = loop {
        match serves.recv(far.as_raw_fd(), &iov) {
            Io::WouldBlock => std::thread::yield_now(),
            other => break other,
        }
    };
    assert!(matches!(received, Io::Fault), "{received:?}");
    assert!(serves.has_more(), "nobody waits for the kernel, which has nothing");
    assert_eq!(take(&mut serves, &far, 100).unwrap(), b"some", "elsewhere");
}

#[test]
fn p40_who_shows_no_certificate_or_a_wrong_one_is_not_served() {
    for (who, words) in [(Who::Nobody, "missing"), (Who::Expired, "expired"), (Who::Foreign, "no authority")]
    {
        let (near, far) = pair();
        let mut session = server();
        let config = Arc::new(Set::get().stranger(who));
        let mut hand = ByHand {
            tls: ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap(),
            stream: near,
        };
        let error = loop {
            let said = hand.encrypted();
            hand.stream.write_all(&said).unwrap();
            match take(&mut session, &far, 1) {
                Err(Io::WouldBlock) => {}
                Err(Io::Failed(error)) => break error,
                other => panic!("{who:?}: {other:?}"),
            }
            let mut answer = [0; 4096];
            if let Ok(count) = hand.stream.read(&mut answer) {
                let mut come = &answer[..count];
                while !come.is_empty() {
                    hand.tls.read_tls(&mut come).unwrap();
                    hand.tls.process_new_packets().unwrap();
                }
                // It may say what it wants at once.
                hand.tls.writer().write_all(b"x").unwrap();
            }
        };
        assert!(session.is_beginning(), "{who:?}");
        let why = crate::tls::Distrust::of(&error).unwrap();
        assert!(why.to_string().contains(words), "{who:?}: {why}");
    }
}
