use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use parking_lot::MutexGuard;
use socket2::{Domain, Socket, Type};

use super::*;

/// There is one port per process: only one test may use it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

fn look(see: &mut dyn FnMut(&[std::sync::Arc<crate::engine::Engine>])) {
    see(&[]);
}

/// A port that nobody else gets while the socket lives, but that may be listened at.
fn held_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

fn config(port: u16) -> Config {
    Config { metric: true, metric_port: port, ..Config::default() }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /health HTTP/1.0\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.0 200")
}

/// Readers wait here.
static GATE: Mutex<()> = Mutex::new(());
static READERS: AtomicUsize = AtomicUsize::new(0);

fn look_slowly(see: &mut dyn FnMut(&[std::sync::Arc<crate::engine::Engine>])) {
    READERS.fetch_add(1, SeqCst);
    drop(GATE.lock());
    see(&[]);
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The last engine goes while a page is made, so its port takes a moment to close; a new engine waits for that.
#[test]
fn p18_an_engine_that_comes_while_the_last_one_goes_has_the_port() {
    let (_alone, (_held, port)) = (alone(), held_port());
    let last = join(&config(port), look_slowly);
    let gate = GATE.lock();
    let reader = std::thread::spawn(move || answers(port));
    wait_until("the page is asked for", || READERS.load(SeqCst) > 0);
    let closer = std::thread::spawn(move || drop(last));
    wait_until("the port is being closed", || SHARED.get().state.lock().closing);
    let (joined, member) = mpsc::channel();
    let opener = std::thread::spawn(move || joined.send(join(&config(port), look)));
    // Not there yet: it waits.
    let early = member.recv_timeout(CLOSING_LIMIT / 8);
    drop(gate);
    let _member = early.or_else(|_| member.recv()).unwrap();
    assert!(answers(port));
    let _ = (reader.join(), closer.join(), opener.join());
}

#[test]
fn p18_a_port_that_is_taken_is_served_once_it_is_free() {
    let _alone = alone();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let _member = join(&config(port), look);
    drop(other);
    wait_until("it is served", || answers(port));
}

#[test]
fn p18_other_settings_of_later_engines_are_told_of_once() {
    let (_alone, (_held, port), (_other, another)) = (alone(), held_port(), held_port());
    let _members = [port, port, another, another].map(|port| join(&config(port), look));
    let state = SHARED.get().state.lock();
    let open = state.open.as_ref().unwrap();
    assert!(open.differed && open.asked.port == port && state.members == 4);
    drop(state);
    assert!(answers(port) && !answers(another));
}
