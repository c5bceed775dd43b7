//! For tests: this transport's part of an engine without the engine, and a connection to itself.

use super::*;
use crate::config::Config;
use crate::handshake::{ConnectionMessage, Notification};
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::control::Control;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Host, Offered};
use crate::transport::offer::Offer;
use crate::transport::shm::link::ShmLink;
use crate::transport::shm::reactor::Reactor;
use crate::transport::shm::wire::{self, Kind, Message, FEW_BYTES, MOST_BYTES};

struct Nobody {
    config: Arc<Config>,
    control: Arc<Control>,
    registry: Arc<Registry>,
    address: HostPort,
    incarnation: [u8; incarnation::LEN],
}

#[rustfmt::skip]
impl Host for Nobody {
    fn config(&self) -> &Arc<Config> { &self.config }
    fn control(&self) -> &Arc<Control> { &self.control }
    fn registry(&self) -> &Arc<Registry> { &self.registry }
    fn name(&self) -> &str { "nobody" }
    fn address(&self) -> &HostPort { &self.address }
    fn incarnation(&self) -> &[u8; incarnation::LEN] { &self.incarnation }
    fn republish(&self) {}
    fn notified(&self, _: Notification) -> bool { false }
    fn opened_as(&self, _: &str, _: &dyn Fn(&dyn Offer) -> bool) -> Option<String> { None }

    fn read(&self, _: &str) -> BoxFuture<'_, Result<SegmentDesc>> {
        Box::pin(std::future::pending())
    }
}

fn nobody() -> Nobody {
    let mut incarnation = [0; incarnation::LEN];
    getrandom::fill(&mut incarnation).unwrap();
    Nobody {
        config: Arc::default(),
        control: Arc::new(Control::start().unwrap()),
        registry: Arc::default(),
        address: HostPort { host: "h".into(), port: 1 },
        incarnation,
    }
}

/// What is shared by a transport of which nothing runs.
pub(in crate::transport::shm) fn shared() -> Arc<Shared> {
    Arc::new(Shared::new(&nobody()).unwrap())
}

/// A connection to an engine that is `shared` too, and its other end, where the greeting waits.
pub(in crate::transport::shm) fn pair(shared: &Arc<Shared>) -> (Connection, Tracked<Socket>) {
    let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    listener.bind(&address(&shared.incarnation).unwrap()).unwrap();
    listener.listen(1).unwrap();
    let connection = attempt(shared, "the test", &shared.incarnation).unwrap();
    let other = Tracked::open(|| {
        let (other, _) = listener.accept()?;
        other.set_nonblocking(true)?;
        Ok(other)
    });
    (connection, other.unwrap())
}

#[rustfmt::skip]
impl Route for Nobody {
    fn peer(&self) -> &str { "nobody" }
    fn offer(&self) -> Offered { Offered { offer: None, version: 0 } }
    fn refresh(&self) -> BoxFuture<'_, Result<()>> { Box::pin(std::future::pending()) }
    fn rpc_address(&self) -> BoxFuture<'_, Result<HostPort>> { Box::pin(std::future::pending()) }
    fn probe(&self) -> BoxFuture<'_, Result<()>> { Box::pin(std::future::pending()) }
    fn by_way_of(&self, _: std::net::IpAddr) -> Arc<dyn Route> { Arc::new(nobody()) }

    fn exchange(&self, _: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>> {
        Box::pin(std::future::pending())
    }
}

/// A link to nobody, whose thread does not run.
pub(in crate::transport::shm) fn link(shared: &Arc<Shared>) -> Arc<ShmLink> {
    shared.threads.set(vec![Reactor::new(Duration::ZERO).unwrap()]);
    ShmLink::new(shared, Arc::new(nobody()))
}

/// Sends so many messages with one entry each.
pub(in crate::transport::shm) fn send(socket: &Socket, kind: Kind, entry: &[u64], count: usize) {
    let mut message = Message::<FEW_BYTES>::new(kind);
    message.push(entry);
    for _ in 0..count {
        socket.send_with_flags(message.bytes(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).unwrap();
    }
}

/// Kinds of what has come.
pub(in crate::transport::shm) fn received(socket: &Socket) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut room = [0; MOST_BYTES];
    while let Ok((len, _)) = kernel::receive(socket.as_raw_fd(), &mut room) {
        kinds.extend(wire::decode(&room[..len]).map(|(kind, _)| kind));
    }
    kinds
}
