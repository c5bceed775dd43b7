//! Short messages between two processes that look for them, without system calls: each side has a page that it alone writes and
//! the other maps to be read. A page has the messages of its owner, how many of the other side's the owner has taken, and
//! whether the owner looks for more. Who finds the other one asleep uses the socket, as do long messages.
//!
//! What is read is copied first and then checked as what comes out of the socket is, since the peer can write at any time.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::kernel::{self, Mapping};
use super::wire::{Kind, Message, FEW_BYTES};
use crate::error::Result;
use crate::memory::shared::{self, SharedMemory};
use crate::runtime::descriptors::is_scarce;
use crate::runtime::sync::atomic::{fence, Ordering::*};

/// Messages that have not been taken. Chosen: those of many threads with a request each; more go through the socket, several
/// at a time.
const SLOTS: u64 = 64;
/// Numbers of a message: its kind, those of an entry, and which one it is. A cache line.
const SLOT: usize = 8;
/// Where things are in a page, in numbers, each in a cache line of its own: the number of the connection while the owner has it.
const VALID: usize = 0;
/// 1 while the owner looks for messages.
const AWAKE: usize = SLOT;
/// How many messages of the other side the owner has taken.
const TAKEN: usize = 2 * SLOT;
/// The first message.
const FIRST: usize = 3 * SLOT;
/// Bytes of a page, which is made of the system's.
const BYTES: u64 = 8192;

/// Both pages, as one of the sides sees them. Calls take turns; the connection's lock sees to that.
pub(super) struct Ring {
    ours: SharedMemory,
    /// `None` until the peer has sent its own.
    theirs: Option<Mapping>,
    /// Messages of ours, and of theirs that were taken.
    sent: u64,
    taken: u64,
    /// How many of ours the peer had taken when that was last looked at.
    seen_taken: u64,
    is_awake: bool,
}

impl Ring {
    /// A page of ours for a connection with this number.
    pub(super) fn new(number: u64) -> Result<Self> {
        let ours = shared::unlisted(BYTES)?;
        let ring = Ring { ours, theirs: None, sent: 0, taken: 0, seen_taken: 0, is_awake: false };
        ring.set(VALID, number);
        Ok(ring)
    }

    /// Sends our page to the peer, once. An error also where the peer must not have it, and with the last descriptors, which are the
    /// host program's.
    pub(super) fn announce(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        if !self.ours.can_be_shared() || is_scarce(self.ours.fd()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut message = Message::<FEW_BYTES>::new(Kind::Ring);
        message.push(&[BYTES]);
        kernel::send_with(socket.as_raw_fd(), message.bytes(), self.ours.fd())?;
        self.ours.close();
        Ok(())
    }

    /// Takes the peer's page. `false`: it is none, or there is one.
    pub(super) fn attach(&mut self, fd: RawFd, len: u64) -> bool {
        if self.theirs.is_some() || len != BYTES {
            return false;
        }
        self.theirs = Mapping::of_messages(fd, len).ok();
        self.theirs.is_some()
    }

    /// The peer looks for messages, and there is room for one.
    pub(super) fn takes(&mut self) -> bool {
        let Some(theirs) = self.theirs.as_ref().filter(|theirs| theirs.number(AWAKE) != 0) else {
            return false;
        };
        if self.sent - self.seen_taken < SLOTS {
            return true;
        }
        let taken = theirs.number(TAKEN);
        // Anything else is nonsense.
        if (self.seen_taken..=self.sent).contains(&taken) {
            self.seen_taken = taken;
            // Nothing is written there before the peer has read it: pairs with the store in `take`.
            fence(Acquire);
        }
        self.sent - self.seen_taken < SLOTS
    }

    /// Writes a message, after [`Ring::takes`]. Once several are written: [`Ring::must_wake`].
    pub(super) fn put(&mut self, kind: Kind, entry: &[u64]) {
        debug_assert!(entry.len() < SLOT - 1 && self.sent - self.seen_taken < SLOTS);
        let at = slot(self.sent);
        self.set(at, kind as u64);
        entry.iter().enumerate().for_each(|(i, number)| self.set(at + 1 + i, *number));
        self.sent += 1;
        if let Some(number) = self.ours.number(at + SLOT - 1) {
            number.store(self.sent, Release);
        }
    }

    /// The peer fell asleep before it could see what was written: it has to be told through the socket.
    pub(super) fn must_wake(&self) -> bool {
        // Pairs with the one in `sleep`: one of the sides sees what the other one wrote.
        fence(SeqCst);
        self.theirs.as_ref().is_some_and(|theirs| theirs.number(AWAKE) == 0)
    }

    /// The next message of the peer: the number of its kind, and its numbers.
    pub(super) fn take(&mut self) -> Option<(u64, [u64; SLOT - 2])> {
        if !self.has_more() {
            return None;
        }
        fence(Acquire);
        let (theirs, at) = (self.theirs.as_ref()?, slot(self.taken));
        let kind = theirs.number(at);
        let entry = std::array::from_fn(|i| theirs.number(at + 1 + i));
        self.taken += 1;
        // The peer may write there again.
        if let Some(number) = self.ours.number(TAKEN) {
            number.store(self.taken, Release);
        }
        Some((kind, entry))
    }

    /// Messages of the peer, no more than a page holds: it may write them as fast as they are taken.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = (u64, [u64; SLOT - 2])> + '_ {
        std::iter::from_fn(|| self.take()).take(SLOTS as usize)
    }

    /// There is a message.
    pub(super) fn has_more(&self) -> bool {
        self.theirs
            .as_ref()
            .is_some_and(|theirs| theirs.number(slot(self.taken) + SLOT - 1) == self.taken + 1)
    }

    /// From now on somebody looks for messages often.
    pub(super) fn wake(&mut self) {
        if !self.is_awake {
            self.is_awake = true;
            self.set(AWAKE, 1);
        }
    }

    /// From now on nobody looks. `true`: there is a message that the peer may not tell of.
    pub(super) fn sleep(&mut self) -> bool {
        if self.is_awake {
            self.is_awake = false;
            self.set(AWAKE, 0);
            fence(SeqCst);
        }
        self.has_more()
    }

    /// How many messages were sent, and how many of them the peer has taken, as far as it says.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.sent, self.theirs.as_ref().map_or(0, |theirs| theirs.number(TAKEN)))
    }

    /// The peer has sent its page.
    pub(super) fn is_attached(&self) -> bool {
        self.theirs.is_some()
    }

    /// The peer still has the connection with this number, as it was when what was read last came.
    pub(super) fn peer_has(&self, number: u64) -> bool {
        fence(Acquire);
        self.theirs.as_ref().is_some_and(|theirs| theirs.number(VALID) == number)
    }

    /// We do not have the connection any more.
    pub(super) fn retract(&mut self) {
        self.set(VALID, 0);
        // Before the memory of the connection serves something else: pairs with the fence in `peer_has`.
        fence(Release);
        self.sleep();
    }

    fn set(&self, index: usize, number: u64) {
        self.ours.number(index).into_iter().for_each(|place| place.store(number, Relaxed));
    }
}

/// Where the message with this number is.
fn slot(number: u64) -> usize {
    FIRST + (number % SLOTS) as usize * SLOT
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn pair() -> [Ring; 2] {
        let [mut one, mut two] = [Ring::new(7).unwrap(), Ring::new(8).unwrap()];
        assert!(!one.takes() && !one.is_attached() && one.take().is_none());
        assert!(!one.attach(two.ours.fd(), BYTES + 1) && !one.attach(0, BYTES));
        assert!(one.attach(two.ours.fd(), BYTES) && two.attach(one.ours.fd(), BYTES));
        assert!(!one.attach(two.ours.fd(), BYTES), "it has one");
        [one, two]
    }

    #[test]
    fn a_page_that_the_peer_has_costs_no_descriptor() {
        let (socket, _other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let mut ring = Ring::new(7).unwrap();
        ring.announce(&socket).unwrap();
        assert!(ring.ours.fd() < 0 && ring.ours.number(VALID).is_some());
        assert!(ring.announce(&socket).is_err());
    }

    #[test]
    fn messages_come_in_order_and_once() {
        let [mut one, mut two] = pair();
        assert!(!one.takes(), "the other one sleeps");
        two.wake();
        for round in 0..3 * SLOTS {
            assert!(one.takes());
            one.put(Kind::Write, &[round, 2, 3, 4, 5]);
            assert!(!one.must_wake());
            assert_eq!(two.take(), Some((Kind::Write as u64, [round, 2, 3, 4, 5, 0])));
            assert_eq!(two.take(), None);
            assert_eq!(one.progress(), (round + 1, round + 1));
        }
    }

    #[test]
    fn no_message_is_written_over_one_that_was_not_taken() {
        let [mut one, mut two] = pair();
        two.wake();
        let fill = |one: &mut Ring, from: u64| {
            let mut next = from;
            while one.takes() {
                one.put(Kind::Ended, &[next, 0]);
                next += 1;
            }
            next - from
        };
        assert_eq!(fill(&mut one, 0), SLOTS);
        for _ in 0..5 {
            two.take().unwrap();
        }
        assert_eq!(fill(&mut one, SLOTS), 5);
        for number in 5..SLOTS + 5 {
            assert_eq!(two.take(), Some((Kind::Ended as u64, [number, 0, 0, 0, 0, 0])));
        }
        assert_eq!(one.progress(), (SLOTS + 5, SLOTS + 5));
        // What the peer cannot have taken is not believed.
        assert_eq!(fill(&mut one, 0), SLOTS);
        two.set(TAKEN, u64::MAX);
        assert!(!one.takes());
        two.set(TAKEN, 3);
        assert!(!one.takes());
    }

    #[test]
    fn a_peer_that_never_stops_is_not_listened_to_for_ever() {
        let [mut one, mut two] = pair();
        two.wake();
        one.put(Kind::Ended, &[0, 0]);
        let mut taken = 0;
        for _ in two.messages().take(1000) {
            taken += 1;
            assert!(one.takes());
            one.put(Kind::Ended, &[0, 0]);
        }
        assert_eq!(taken, SLOTS);
    }

    #[test]
    fn who_falls_asleep_sees_the_message_or_is_woken() {
        let [mut one, mut two] = pair();
        two.wake();
        assert!(one.takes());
        one.put(Kind::Write, &[1]);
        assert!(two.sleep(), "it is there");
        assert!(one.must_wake());
        assert!(two.take().is_some() && !two.sleep());
        // In threads, often.
        let rounds = 20_000;
        let (one, two) = (&mut one, &mut two);
        let woken = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..rounds {
                    while !one.takes() {
                        std::hint::spin_loop();
                    }
                    one.put(Kind::Write, &[1]);
                    if one.must_wake() {
                        woken.fetch_add(1, SeqCst);
                    }
                }
            });
            let mut came = 0;
            while came < rounds {
                two.wake();
                while two.take().is_some() {
                    came += 1;
                }
                let before = woken.load(SeqCst);
                if !two.sleep() && came < rounds {
                    // Asleep: a message that comes now is told of, or was refused.
                    while two.has_more() && woken.load(SeqCst) == before {
                        std::hint::spin_loop();
                    }
                }
            }
        });
    }

    #[test]
    fn a_connection_that_was_given_up_is_not_valid() {
        let [mut one, two] = pair();
        assert!(two.peer_has(7) && !two.peer_has(8));
        one.retract();
        assert!(!two.peer_has(7));
    }
}
