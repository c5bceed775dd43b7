//! The connections of peers that are open: how many there may be, and which of them goes when there is one too many. The
//! thread that serves a connection publishes what it is at; the thread that listens decides.
//!
//! A client that keeps a connection for later requests does not expect it to be closed between two of them, and upstream's
//! does not send again. So whoever never asked for anything goes first, and the others go only for a source that has fewer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::reactor::Reactor;
use crate::runtime::crowd::{source_of, Crowd, Readiness, Source};
use crate::runtime::descriptors::FLOOR;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No complete request came, or one was refused.
    Silent,
    /// Between requests.
    Idle,
    /// A body or a reply is under way.
    Busy,
}

/// What a connection's thread publishes to the one that listens, and the other way round. Relaxed: nothing else hangs on it,
/// and [`Reactor::sweep`] orders `dismissed`.
struct State {
    /// The phase in the last two bits, and above them when it was noted, in microseconds of the table's clock.
    noted: AtomicU64,
    /// Its place is another's. It is to be closed.
    dismissed: AtomicBool,
}

struct Guest {
    number: u64,
    state: Arc<State>,
    reactor: Arc<Reactor>,
}

/// The open connections.
pub(super) struct Table {
    most: usize,
    began: Instant,
    /// Guards the connections that have a place, by number.
    open: Mutex<Crowd<u64, Guest>>,
    next: AtomicU64,
}

/// The place of one connection in the table.
pub(super) struct Place {
    number: u64,
    began: Instant,
    state: Arc<State>,
}

/// A connection that has a place.
pub(super) struct Admitted {
    pub place: Place,
    /// The thread to serve it: that of the connection that it displaced, which closes that one first.
    pub reactor: Arc<Reactor>,
    /// Another connection lost its place.
    pub displaced: bool,
}

impl Table {
    /// Room for `most` connections, which is at least one.
    pub(super) fn new(most: usize) -> Self {
        let (began, open, next) = (Instant::now(), Mutex::default(), AtomicU64::new(0));
        Table { most: most.max(1), began, open, next }
    }

    /// A place for a fresh connection from `address`. If there is none left, or descriptors are scarce, another connection
    /// loses its own; `None` if there is none to lose it. `next_reactor` names the thread if any will do.
    pub(super) fn admit(
        &self,
        address: IpAddr,
        is_scarce: bool,
        next_reactor: impl FnOnce() -> Arc<Reactor>,
    ) -> Option<Admitted> {
        let source = source_of(address);
        let state = Arc::new(State { noted: AtomicU64::new(0), dismissed: AtomicBool::new(false) });
        let number = self.next.fetch_add(1, Relaxed);
        let place = Place { number, began: self.began, state: state.clone() };
        let mut open = self.open.lock();
        let is_full = open.size() >= self.most || !open.has_memory();
        let mut displaced = None;
        if is_full || is_scarce && open.size() >= FLOOR {
            let newcomer = Source { address: source, count: open.count(source) };
            let share = Crowd::<u64, Guest>::share(self.most);
            let first = open.first_to_go(|from, guest| {
                let ready = ready(guest, from, &newcomer, share)?;
                (is_full || ready.class == SILENT_CLASS).then_some(ready)
            });
            displaced = Some(open.remove(first?)?);
        }
        let reactor = displaced.as_ref().map_or_else(next_reactor, |guest| guest.reactor.clone());
        open.insert(source, number, Guest { number, state, reactor: reactor.clone() });
        drop(open);
        displaced.iter().for_each(Guest::dismiss);
        Some(Admitted { place, reactor, displaced: displaced.is_some() })
    }

    /// Whether so few are open that scarce descriptors do not matter.
    pub(super) fn has_few(&self) -> bool {
        self.open.lock().size() <= FLOOR
    }

    /// No descriptor is left: a connection without a request loses its place, unless only few are open.
    pub(super) fn dismiss_silent(&self) {
        let mut open = self.open.lock();
        if open.size() <= FLOOR {
            return;
        }
        let first = open.first_to_go(|_, guest| (guest.phase() == Phase::Silent).then(|| silent(guest))?);
        let dismissed = first.and_then(|number| open.remove(number));
        drop(open);
        dismissed.iter().for_each(Guest::dismiss);
    }

    /// The connection is gone.
    pub(super) fn leave(&self, place: &Place) {
        self.open.lock().remove(place.number);
    }
}

const SILENT_CLASS: u8 = 2;

/// Whether and how gladly `guest` gives its place to a newcomer. One without a request gives it to its own source, or to a
/// source with fewer connections, so that a crowd cannot push out those who have just come. One between requests gives it
/// only to a source that has fewer afterwards too. One with a request under way gives it only if its source has more than a
/// share, and the newcomer's less.
fn ready(guest: &Guest, from: &Source, newcomer: &Source, share: usize) -> Option<Readiness> {
    let since = guest.state.noted.load(Relaxed) >> PHASE_BITS;
    match guest.phase() {
        Phase::Silent if from.address == newcomer.address || from.count > newcomer.count => silent(guest),
        Phase::Idle if from.count > newcomer.count + 1 => Some(Readiness { class: 1, since }),
        Phase::Busy if from.count > share && newcomer.count < share => Some(Readiness { class: 0, since }),
        _ => None,
    }
}

/// The oldest without a request goes first.
fn silent(guest: &Guest) -> Option<Readiness> {
    Some(Readiness { class: SILENT_CLASS, since: guest.number })
}

const PHASE_BITS: u32 = 2;

impl Guest {
    fn phase(&self) -> Phase {
        match self.state.noted.load(Relaxed) & ((1 << PHASE_BITS) - 1) {
            0 => Phase::Silent,
            1 => Phase::Idle,
            _ => Phase::Busy,
        }
    }

    fn dismiss(&self) {
        self.state.dismissed.store(true, Relaxed);
        self.reactor.sweep();
    }
}

impl Place {
    /// Says what the connection was at at `time`.
    pub(super) fn note(&self, phase: Phase, time: Instant) {
        let bits = match phase {
            Phase::Silent => 0,
            Phase::Idle => 1,
            Phase::Busy => 2,
        };
        let micros = time.saturating_duration_since(self.began).as_micros() as u64;
        self.state.noted.store(micros << PHASE_BITS | bits, Relaxed);
    }

    /// It lost its place.
    pub(super) fn is_dismissed(&self) -> bool {
        self.state.dismissed.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct World {
        table: Table,
        reactor: Arc<Reactor>,
        places: Vec<Place>,
    }

    impl World {
        fn new(most: usize) -> Self {
            let reactor = Reactor::new(Duration::ZERO).unwrap();
            World { table: Table::new(most), reactor, places: Vec::new() }
        }

        /// A connection from 10.0.0.`host`; `None` if it is refused, else the numbers of those dismissed so far.
        fn open(&mut self, host: u8, is_scarce: bool) -> Option<Vec<u64>> {
            let address = IpAddr::from([10, 0, 0, host]);
            let admitted = self.table.admit(address, is_scarce, || self.reactor.clone())?;
            self.places.push(admitted.place);
            Some(self.dismissed())
        }

        fn dismissed(&self) -> Vec<u64> {
            self.places.iter().filter(|place| place.is_dismissed()).map(|place| place.number).collect()
        }

        fn note(&self, number: u64, phase: Phase, seconds: u64) {
            let place = self.places.iter().find(|place| place.number == number).unwrap();
            place.note(phase, self.table.began + Duration::from_secs(seconds));
        }
    }

    #[test]
    fn whoever_never_asked_goes_first_and_whoever_asked_stays() {
        let mut world = World::new(4);
        for host in [1, 2, 2, 2] {
            assert_eq!(world.open(host, false), Some(vec![]));
        }
        world.note(1, Phase::Idle, 1);
        // Of 10.0.0.2, which has the most, the older one that did not ask.
        assert_eq!(world.open(1, false), Some(vec![2]));
        // Both have two now, and no newcomer pushes out others than its own.
        assert_eq!(world.open(1, false), Some(vec![0, 2]));
        assert_eq!(world.open(1, false), Some(vec![0, 2, 4]));
        assert_eq!(world.open(3, false), Some(vec![0, 2, 3, 4]));
        assert!(!world.places[1].is_dismissed());
    }

    #[test]
    fn a_crowd_does_not_push_out_those_who_have_just_come() {
        let mut world = World::new(4);
        for host in [1, 1, 1, 2] {
            assert!(world.open(host, false).is_some());
        }
        (0..3).for_each(|number| world.note(number, Phase::Idle, 1));
        assert_eq!(world.open(1, false), None);
        assert!(world.dismissed().is_empty());
    }

    #[test]
    fn idle_connections_go_only_to_those_who_have_fewer_and_the_longest_idle_first() {
        let mut world = World::new(4);
        for number in 0..4 {
            assert!(world.open(1, false).is_some());
            world.note(number, Phase::Idle, 10 - number);
        }
        assert_eq!(world.open(1, false), None);
        for (expected, number) in [(vec![3], 5), (vec![2, 3], 6)] {
            assert_eq!(world.open(2, false), Some(expected));
            world.note(number, Phase::Idle, 20);
        }
        // Two each.
        assert_eq!(world.open(2, false), None);
        assert_eq!(world.open(1, false), None);
        assert_eq!(world.open(3, false).map(|all| all.len()), Some(3));
    }

    #[test]
    fn an_idle_connection_stays_where_the_newcomer_would_have_as_many() {
        let mut world = World::new(3);
        for (number, host) in [(0, 1), (1, 1), (2, 2)] {
            assert!(world.open(host, false).is_some());
            world.note(number, Phase::Idle, number);
        }
        assert_eq!(world.open(2, false), None);
        assert_eq!(world.open(3, false), Some(vec![0]), "it has none yet");
    }

    #[test]
    fn requests_under_way_end_only_where_a_source_has_more_than_its_share() {
        let mut world = World::new(4);
        for (number, host) in [(0, 1), (1, 1), (2, 1), (3, 2)] {
            assert!(world.open(host, false).is_some());
            world.note(number, Phase::Busy, 10 + number);
        }
        assert_eq!(world.open(1, false), None);
        assert_eq!(world.open(3, false), Some(vec![0]));
        world.note(5, Phase::Busy, 20);
        assert_eq!(world.open(4, false), None);
    }

    #[test]
    fn where_descriptors_are_scarce_one_comes_for_one_that_goes() {
        let mut world = World::new(100);
        for number in 0..FLOOR as u64 {
            assert_eq!(world.open(1, true), Some(vec![]));
            world.note(number, Phase::Idle, 1);
        }
        assert_eq!(world.open(2, true), None);
        assert_eq!(world.open(2, false), Some(vec![]));
        let silent = FLOOR as u64 + 1;
        assert_eq!(world.open(2, true), Some(vec![silent]));
        world.table.dismiss_silent();
        assert_eq!(world.dismissed(), [silent, silent + 1]);
        world.table.dismiss_silent();
        assert_eq!(world.dismissed().len(), 2);
        // Those who leave make room.
        let place = world.places.remove(0);
        world.table.leave(&place);
        assert!(world.open(3, true).is_some());
    }
}
