//! For tests: this transport's part of an engine without the engine, and a connection to itself.

use super::*;
use crate::config::Config;
use crate::handshake::Notification;
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::control::Control;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::Host;
use crate::transport::offer::Offer;
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

/// What is shared by a transport of which nothing runs.
pub(in crate::transport::shm) fn shared() -> Arc<Shared> {
    let mut incarnation = [0; incarnation::LEN];
    getrandom::fill(&mut incarnation).unwrap();
    let nobody = Nobody {
        config: Arc::default(),
        control: Arc::new(Control::start().unwrap()),
        registry: Arc::default(),
        address: HostPort { host: "h".into(), port: 1 },
        incarnation,
    };
    Arc::new(Shared::new(&nobody).unwrap())
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
