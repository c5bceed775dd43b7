//! The life of a lane, told as events and answers. Connections are numbers; reasons and errors are words.

use super::super::events::{Action, Event, Why};
use super::*;
use Action::{Ask, Begin, Close, Connect, Discard, HandBack, Refuse, Retire, Send, TakeDown};

type Told = Event<u32, &'static str, &'static str>;
type Answer = Option<Action<u32, &'static str, &'static str>>;

/// A lane, and the time at which it was made.
struct Lane {
    machine: Machine<u32, &'static str>,
    start: Instant,
}

impl Lane {
    fn new() -> Self {
        let limits = Limits { status_timeout: Duration::from_secs(30), min_rate: 1024, asks: true };
        Lane { machine: Machine::new(limits), start: Instant::now() }
    }

    /// A lane with one request, connected by connection 1 at `ms`.
    fn up(ms: u64) -> Self {
        let mut lane = Lane::new();
        assert_eq!(lane.unread(pushed(true)), Some(Connect));
        assert_eq!(lane.at(ms, Event::Attached(1)), Some(Begin));
        lane
    }

    /// What happens at `ms`.
    fn at(&mut self, ms: u64, event: Told) -> Answer {
        self.machine.on(event, || self.start + Duration::from_millis(ms))
    }

    /// What happens without a look at the clock.
    fn unread(&mut self, event: Told) -> Answer {
        self.machine.on(event, || panic!("the clock was read"))
    }

    fn tick(&mut self, ms: u64, awaited: Option<u64>) -> Answer {
        self.at(ms, Event::Tick { awaited, traffic: 0, paused: Duration::ZERO })
    }

    fn is_down(&self) -> bool {
        self.machine.connection().is_none() && self.machine.stage() == Stage::Down
    }
}

fn pushed(first: bool) -> Told {
    Event::Pushed { first }
}

fn replied(more: bool) -> Told {
    Event::Replied { spent: false, more }
}

fn spent(more: bool) -> Told {
    Event::Replied { spent: true, more }
}

fn abandoned(next: bool, stuck: Option<&'static str>) -> Told {
    Event::Abandoned { next, stuck }
}

fn overdue(bytes: u64, secs: u64) -> Answer {
    Some(TakeDown(1, Why::Overdue { bytes, allowed: Duration::from_secs(secs) }))
}

#[test]
fn the_first_request_connects_and_those_that_come_meanwhile_wait() {
    let mut lane = Lane::new();
    assert_eq!(lane.machine.stage(), Stage::Down);
    assert_eq!(lane.unread(pushed(true)), Some(Connect));
    assert_eq!(lane.machine.stage(), Stage::Rising);
    assert_eq!(lane.unread(pushed(false)), None);
    assert_eq!(lane.at(5, Event::Attached(1)), Some(Begin));
    assert_eq!((lane.machine.stage(), lane.machine.connection()), (Stage::Up, Some(&1)));
    assert_eq!(lane.unread(pushed(false)), Some(Send));
}

#[test]
fn all_may_leave_while_the_lane_connects_and_the_connection_is_kept_for_the_next() {
    let mut lane = Lane::new();
    lane.unread(pushed(true));
    assert_eq!(lane.unread(abandoned(false, None)), None);
    assert_eq!(lane.unread(pushed(true)), None, "the attempt is under way");
    assert_eq!(lane.at(5, Event::Attached(1)), Some(Begin));
}

#[test]
fn a_failed_attempt_hands_back_what_waits_and_the_next_request_tries_again() {
    let mut lane = Lane::new();
    lane.unread(pushed(true));
    let failed = lane.unread(Event::ConnectFailed("no route"));
    assert_eq!(failed, Some(HandBack { unwatched: None, error: "no route" }));
    assert!(lane.is_down());
    assert_eq!(lane.unread(Event::ConnectFailed("told twice")), None);
    assert_eq!(lane.unread(pushed(true)), Some(Connect));
}

#[test]
fn a_connection_that_cannot_be_watched_is_as_good_as_none() {
    let mut lane = Lane::up(5);
    let refused = lane.unread(Event::AttachRefused("no memory"));
    assert_eq!(refused, Some(HandBack { unwatched: Some(1), error: "no memory" }));
    assert!(lane.is_down());
    assert_eq!(lane.unread(pushed(true)), Some(Connect));
}

#[test]
fn a_connection_for_one_request_is_left_after_its_reply() {
    let mut lane = Lane::up(5);
    assert_eq!(lane.unread(spent(false)), Some(Retire { connection: 1, connect: false }));
    assert!(lane.is_down());
    assert_eq!(lane.unread(pushed(true)), Some(Connect));
    lane.at(6, Event::Attached(2));
    assert_eq!(lane.unread(spent(true)), Some(Retire { connection: 2, connect: true }));
    assert_eq!((lane.machine.connection(), lane.machine.stage()), (None, Stage::Rising));
    assert_eq!(lane.unread(pushed(false)), None, "there is an attempt already");
}

#[test]
fn a_dead_connection_is_taken_down_once() {
    let mut lane = Lane::up(5);
    assert_eq!(lane.unread(Event::Down("reset")), Some(TakeDown(1, Why::Down("reset"))));
    assert!(lane.is_down());
    assert_eq!(lane.unread(Event::Down("told twice")), None);
    assert_eq!(lane.unread(pushed(true)), Some(Connect));
}

#[test]
fn half_a_body_that_must_not_be_read_any_more_costs_the_connection() {
    let mut lane = Lane::up(5);
    assert_eq!(lane.unread(abandoned(false, None)), None);
    assert_eq!(lane.machine.connection(), Some(&1));
    let stuck = lane.unread(abandoned(true, Some("unregistered")));
    assert_eq!(stuck, Some(TakeDown(1, Why::Stuck("unregistered"))));
    assert!(lane.is_down());
}

#[test]
fn a_request_has_the_status_timeout_and_its_bytes_at_the_least_rate() {
    let limits = Limits { status_timeout: Duration::from_secs(30), min_rate: 1 << 20, asks: true };
    for (bytes, secs) in [(0, 30), ((1 << 20) - 1, 30), (1 << 20, 31), (10 << 30, 30 + 10 * 1024)] {
        assert_eq!(limits.allowed(bytes), Duration::from_secs(secs), "{bytes}");
    }
    let slow = Limits { status_timeout: Duration::MAX, min_rate: 1, asks: true };
    assert_eq!(slow.allowed(u64::MAX), Duration::MAX);
}

#[test]
fn the_deadline_counts_from_the_connection_for_what_waited_for_it() {
    let mut lane = Lane::up(100_000);
    assert_eq!(lane.tick(130_000, Some(8)), None, "30 s are over, but not exceeded");
    assert_eq!(lane.tick(130_001, Some(8)), overdue(8, 30));
    assert!(lane.is_down());
}

#[test]
fn the_deadline_starts_anew_with_each_reply() {
    let mut lane = Lane::up(0);
    assert_eq!(lane.at(29_000, replied(true)), None);
    assert_eq!(lane.tick(58_000, Some(8)), None);
    assert_eq!(lane.at(58_000, replied(true)), None);
    assert_eq!(lane.tick(88_001, Some(8)), overdue(8, 30));
}

#[test]
fn the_deadline_grows_with_the_bytes_of_the_request_that_has_its_turn() {
    let mut lane = Lane::up(0);
    assert_eq!(lane.tick(40_000, Some(10 * 1024)), None);
    assert_eq!(lane.tick(40_001, Some(10 * 1024)), overdue(10 * 1024, 40));
}

#[test]
fn an_idle_connection_has_no_deadline_and_a_later_request_has_its_own() {
    let mut lane = Lane::up(0);
    assert_eq!(lane.unread(replied(false)), None, "nobody has a turn");
    assert_eq!(lane.tick(1_000_000, None), None);
    assert_eq!(lane.at(2_000_000, pushed(true)), Some(Send));
    assert_eq!(lane.unread(pushed(false)), Some(Send), "not its turn");
    assert_eq!(lane.tick(2_030_000, Some(8)), None);
    assert_eq!(lane.tick(2_030_001, Some(8)), overdue(8, 30));
}

#[test]
fn the_next_request_begins_its_turn_when_the_first_is_taken_out_unsent() {
    let mut lane = Lane::up(0);
    assert_eq!(lane.at(29_000, abandoned(true, None)), None);
    assert_eq!(lane.tick(59_000, Some(8)), None);
    assert_eq!(lane.tick(59_001, Some(8)), overdue(8, 30));
}

fn silent(question: u32, traffic: u64) -> Told {
    Event::Silent { question, traffic }
}

/// A tick at which so much has moved since the beginning.
fn heard(ms: u64, lane: &mut Lane, traffic: u64) -> Answer {
    lane.at(ms, Event::Tick { awaited: Some(8), traffic, paused: Duration::ZERO })
}

#[test]
fn p03_a_peer_that_is_silent_for_a_second_is_asked_once_and_given_up_if_it_does_not_answer() {
    let mut lane = Lane::up(0);
    assert_eq!(heard(100, &mut lane, 7), None);
    assert_eq!(heard(1_099, &mut lane, 7), None, "not a second yet");
    assert_eq!(heard(1_100, &mut lane, 7), Some(Ask(1)));
    assert_eq!(heard(4_000, &mut lane, 7), None, "it was asked");
    assert_eq!(lane.unread(silent(1, 7)), Some(TakeDown(1, Why::Silent)));
    assert!(lane.is_down());
}

#[test]
fn a_connection_on_which_nothing_moves_ends_if_the_peer_cannot_be_reached_that_way() {
    let unreachable = |question, traffic| Event::Unreachable { question, traffic, down: "no route" };
    let mut lane = Lane::up(0);
    heard(0, &mut lane, 7);
    assert_eq!(heard(1_000, &mut lane, 7), Some(Ask(1)));
    assert_eq!(lane.unread(unreachable(1, 8)), None, "something moved");
    heard(1_100, &mut lane, 8);
    assert_eq!(heard(2_100, &mut lane, 8), Some(Ask(2)));
    assert_eq!(lane.unread(unreachable(1, 8)), None, "an answer to another question");
    assert_eq!(lane.unread(unreachable(2, 8)), Some(TakeDown(1, Why::Down("no route"))));
    assert!(lane.is_down());
}

#[test]
fn a_lane_can_be_connected_before_there_are_requests() {
    let mut lane = Lane::new();
    assert_eq!(lane.unread(Event::Wanted), Some(Connect));
    assert_eq!(lane.unread(Event::Wanted), None, "the attempt is under way");
    assert_eq!(lane.unread(pushed(true)), None);
    assert_eq!(lane.at(5, Event::Attached(1)), Some(Begin));
    assert_eq!(lane.unread(Event::Wanted), None, "there is a connection");
    lane.unread(Event::Closed("the end"));
    assert_eq!(lane.unread(Event::Wanted), None, "there will be none");
}

#[test]
fn a_peer_that_is_only_slow_is_asked_again_and_again() {
    let mut lane = Lane::up(0);
    heard(0, &mut lane, 7);
    assert_eq!(heard(1_000, &mut lane, 7), Some(Ask(1)));
    assert_eq!(lane.at(1_200, Event::Alive(1)), None);
    assert_eq!(heard(2_199, &mut lane, 7), None);
    assert_eq!(heard(2_200, &mut lane, 7), Some(Ask(2)));
    assert_eq!(lane.unread(silent(1, 7)), None, "an answer to another question");
    assert_eq!(lane.tick(30_001, Some(8)), overdue(8, 30), "its deadline stands");
}

#[test]
fn an_answer_counts_only_for_the_silence_that_it_was_asked_in() {
    let mut lane = Lane::up(0);
    heard(0, &mut lane, 7);
    assert_eq!(heard(1_000, &mut lane, 7), Some(Ask(1)));
    assert_eq!(heard(1_100, &mut lane, 8), None, "something moved");
    assert_eq!(lane.unread(silent(1, 7)), None);
    assert_eq!(heard(2_100, &mut lane, 8), Some(Ask(2)));
    assert_eq!(lane.tick(2_200, None), None, "nothing is awaited any more");
    assert_eq!(lane.unread(silent(2, 8)), None);
    heard(2_300, &mut lane, 8);
    assert_eq!(heard(3_300, &mut lane, 8), Some(Ask(3)));
    assert_eq!(lane.unread(Event::Down("reset")), Some(TakeDown(1, Why::Down("reset"))));
    lane.unread(pushed(true));
    lane.at(4_000, Event::Attached(2));
    assert_eq!(lane.unread(silent(3, 8)), None, "asked about another connection");
    assert_eq!(lane.machine.connection(), Some(&2));
}

#[test]
fn without_the_setting_nobody_is_asked() {
    let limits = Limits { status_timeout: Duration::from_secs(30), min_rate: 1024, asks: false };
    let mut lane = Lane { machine: Machine::new(limits), start: Instant::now() };
    lane.unread(pushed(true));
    lane.at(0, Event::Attached(1));
    assert_eq!([0, 10_000, 30_000].map(|ms| heard(ms, &mut lane, 7)), [None, None, None]);
}

#[test]
fn without_a_connection_time_has_no_meaning() {
    let mut lane = Lane::new();
    assert_eq!(lane.unread(Event::Tick { awaited: Some(8), traffic: 0, paused: Duration::ZERO }), None);
    lane.unread(pushed(true));
    assert_eq!(
        lane.unread(Event::Tick { awaited: Some(8), traffic: 0, paused: Duration::ZERO }),
        None,
        "the attempt has limits of its own"
    );
}

#[test]
fn a_closed_lane_refuses_what_comes_and_stays_closed() {
    let mut lane = Lane::up(0);
    assert_eq!(lane.unread(Event::Closed("destroyed")), Some(Close(Some(1), "destroyed")));
    assert!(lane.is_down());
    assert_eq!(lane.unread(Event::Closed("again")), None);
    assert_eq!(lane.unread(pushed(true)), Some(Refuse("destroyed")));
    for late in [
        spent(true),
        replied(true),
        Event::Down("reset"),
        Event::ConnectFailed("no route"),
        Event::AttachRefused("no memory"),
        abandoned(true, Some("unregistered")),
        Event::Tick { awaited: Some(8), traffic: 0, paused: Duration::ZERO },
    ] {
        assert_eq!(lane.unread(late.clone()), None, "{late:?}");
        assert!(lane.is_down());
    }
}

#[test]
fn a_connection_that_comes_after_the_end_is_closed() {
    let mut lane = Lane::new();
    lane.unread(pushed(true));
    assert_eq!(lane.unread(Event::Closed("destroyed")), Some(Close(None, "destroyed")));
    assert_eq!(lane.unread(Event::Attached(1)), Some(Discard(1)));
    assert!(lane.is_down());
}

#[test]
fn a_peer_that_moves_something_while_it_is_asked_is_not_given_up() {
    let mut lane = Lane::up(0);
    heard(0, &mut lane, 7);
    assert_eq!(heard(1_000, &mut lane, 7), Some(Ask(1)));
    // The reply came, the lane was idle since, and no tick told.
    assert_eq!(lane.unread(replied(false)), None);
    assert_eq!(lane.unread(silent(1, 8)), None);
    assert_eq!(lane.machine.connection(), Some(&1));
    assert_eq!(heard(5_000, &mut lane, 8), None, "a new silence");
    assert_eq!(heard(6_000, &mut lane, 8), Some(Ask(2)));
}

#[test]
fn the_time_in_which_this_process_is_stopped_does_not_count_against_the_peer() {
    let mut lane = Lane::up(0);
    assert_eq!(lane.tick(20_000, Some(8)), None);
    let paused = Duration::from_secs(60);
    assert_eq!(lane.at(80_000, Event::Tick { awaited: Some(8), traffic: 0, paused }), None);
    assert_eq!(lane.tick(80_999, Some(8)), None, "nor does it count as silence");
    assert_eq!(lane.tick(90_000, Some(8)), Some(Ask(1)));
    assert_eq!(lane.tick(90_001, Some(8)), overdue(8, 30));
    // A turn that began during the pause, or after it, has no more than the others.
    let mut lane = Lane::up(79_000);
    assert_eq!(lane.at(80_000, Event::Tick { awaited: Some(8), traffic: 0, paused }), None);
    assert_eq!(lane.tick(110_001, Some(8)), overdue(8, 30));
}
