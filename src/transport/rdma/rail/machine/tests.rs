//! The life of a rail, told as events and answers. Connections are numbers, errors words.

use super::*;
use Action::{Connect, Expire, HandBack, Probe, Pump, Report, Stop, Vacate};

type Rail = Machine<u32, &'static str>;

fn at(ms: u64) -> Now {
    Now { ms, random: 0 }
}

fn rail() -> Rail {
    let pauses = Pauses { most: Duration::from_secs(30), least: Duration::ZERO };
    Machine::new(pauses, true)
}

/// A rail that carries data on connection 1, its first attempt.
fn up() -> Rail {
    let mut rail = rail();
    assert_eq!(rail.on(Event::Wanted, at(0)), [Connect(Attempt(1))]);
    assert_eq!(rail.on(Event::Made { connection: 1, by: By::Own(Attempt(1)) }, at(1)), []);
    assert_eq!(rail.on(Event::Connected(Attempt(1), 1), at(2)), [Pump]);
    rail
}

/// A rail that failed at 1000 ms, for the first time.
fn failed() -> Rail {
    let mut rail = up();
    rail.on(Event::Lost(1, "cable"), at(1000));
    rail
}

/// A failed rail whose attempt number 2 has made connection 2.
fn failed_and_connecting() -> Rail {
    let mut rail = failed();
    assert_eq!(rail.on(Event::Tick { waiting: true, used_ms: 1000 }, at(1100)), [Connect(Attempt(2))]);
    assert_eq!(rail.on(Event::Made { connection: 2, by: By::Own(Attempt(2)) }, at(1101)), []);
    rail
}

fn pause_of(rail: &Rail, now_ms: u64) -> u64 {
    match rail.phase() {
        Phase::Paused { retry_at_ms } => retry_at_ms - now_ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_rail_connects_when_it_is_wanted_and_carries_data_without_proof() {
    let rail = up();
    assert_eq!((rail.up(), rail.is_trusted(), rail.failed()), (Some(&1), true, 0));
}

#[test]
fn what_is_wanted_meanwhile_begins_nothing_new() {
    let mut rail = rail();
    assert_eq!(rail.on(Event::Wanted, at(0)), [Connect(Attempt(1))]);
    assert_eq!(rail.on(Event::Wanted, at(1)), []);
    rail.on(Event::Made { connection: 1, by: By::Own(Attempt(1)) }, at(1));
    assert_eq!(rail.on(Event::Wanted, at(2)), []);
    rail.on(Event::Connected(Attempt(1), 1), at(2));
    assert_eq!(rail.on(Event::Wanted, at(3)), [Pump], "it came up meanwhile");
}

#[test]
fn a_lost_connection_is_stopped_and_what_waits_goes_elsewhere() {
    let mut rail = up();
    let actions = rail.on(Event::Lost(1, "cable"), at(1000));
    let because = Why::Because("cable");
    assert_eq!(actions, [Stop(1, because), Vacate, Report("cable"), HandBack(Loss::Flushed, Some("cable"))]);
    assert_eq!(
        (rail.up(), rail.is_trusted(), rail.failed(), rail.last_error()),
        (None, false, 1, Some(&"cable"))
    );
    assert_eq!(pause_of(&rail, 1000), 100);
    let again = rail.on(Event::Lost(1, "late"), at(1001));
    assert_eq!(again, [Stop(1, Why::Because("late"))], "told twice, it is one failure");
    assert_eq!(rail.failed(), 1);
}

#[test]
fn what_is_handed_back_is_judged_by_the_failure_that_it_waited_for() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    let refused =
        Event::AttemptFailed { attempt: Attempt(1), connection: None, usable: false, cause: "refused" };
    let failure = rail.on(refused, at(1));
    // Another thread, before the actions are performed.
    rail.on(Event::TakenAway("evicted"), at(1));
    assert_eq!(rail.last_error(), Some(&"evicted"));
    assert_eq!(failure, [Report("refused"), HandBack(Loss::Unconnected, Some("refused"))]);
}

#[test]
fn a_failed_rail_waits_and_proves_itself_before_it_carries_data() {
    let mut rail = failed();
    assert_eq!(rail.on(Event::Wanted, at(1099)), []);
    let mut rail = failed_and_connecting();
    assert_eq!(rail.on(Event::Connected(Attempt(2), 2), at(1102)), [Probe(2)]);
    assert_eq!((rail.up(), rail.connection()), (None, Some(&2)));
    assert_eq!(rail.on(Event::Probed { connection: 2, all: true }, at(1102)), []);
    assert_eq!(rail.on(Event::Wanted, at(1103)), []);
    assert_eq!(rail.on(Event::Proved(2), at(1104)), [Pump]);
    assert_eq!((rail.up(), rail.is_trusted()), (Some(&2), true));
}

#[test]
fn queue_pairs_without_room_get_their_probe_later() {
    let mut rail = failed_and_connecting();
    rail.on(Event::Connected(Attempt(2), 2), at(1102));
    rail.on(Event::Probed { connection: 2, all: false }, at(1102));
    assert_eq!(rail.on(Event::Tick { waiting: false, used_ms: 0 }, at(1110)), [Probe(2)]);
    rail.on(Event::Probed { connection: 2, all: true }, at(1110));
    assert_eq!(rail.on(Event::Tick { waiting: false, used_ms: 0 }, at(1120)), []);
}

#[test]
fn pauses_double_up_to_two_seconds_and_the_settings_bound_them() {
    let pauses = |most, least| {
        let (most, least) = (Duration::from_millis(most), Duration::from_millis(least));
        let mut rail: Rail = Machine::new(Pauses { most, least }, true);
        let mut now = 0;
        [0; 8].map(|_| {
            assert!(matches!(rail.on(Event::Wanted, at(now))[..], [Connect(_)]));
            let attempt = rail.attempt.unwrap();
            let failure = Event::AttemptFailed { attempt, connection: None, usable: false, cause: "no" };
            assert_eq!(rail.on(failure, at(now)), [Report("no"), HandBack(Loss::Unconnected, Some("no"))]);
            let pause = pause_of(&rail, now);
            now += pause;
            pause
        })
    };
    assert_eq!(pauses(30_000, 0), [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    assert_eq!(pauses(500, 0), [100, 200, 400, 500, 500, 500, 500, 500]);
    assert_eq!(pauses(30_000, 5000), [5000; 8]);
}

#[test]
fn when_both_sides_connect_at_once_the_last_connection_stays() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    rail.on(Event::Made { connection: 1, by: By::Own(Attempt(1)) }, at(1));
    assert_eq!(rail.on(Event::Made { connection: 2, by: By::Peer }, at(2)), [Stop(1, Why::Renewed)]);
    rail.on(Event::Accepted(2), at(3));
    let late = rail.on(Event::Connected(Attempt(1), 1), at(4));
    assert_eq!(late, [Stop(1, Why::Unwanted)], "the peer has forgotten that one");
    assert_eq!(rail.on(Event::Ready(2), at(5)), [Pump]);
    assert_eq!(rail.up(), Some(&2));
}

#[test]
fn a_failed_attempt_leaves_a_connection_that_the_peer_asked_for() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    rail.on(Event::Made { connection: 2, by: By::Peer }, at(2));
    let failure =
        Event::AttemptFailed { attempt: Attempt(1), connection: Some(2), usable: true, cause: "busy" };
    assert_eq!(rail.on(failure, at(3)), []);
    assert_eq!(rail.connection(), Some(&2));
    rail.on(Event::Accepted(2), at(4));
    assert_eq!(rail.on(Event::Ready(2), at(5)), [Pump]);
}

#[test]
fn a_failed_attempt_leaves_the_connection_that_took_its_place() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    rail.on(Event::Made { connection: 1, by: By::Own(Attempt(1)) }, at(1));
    assert_eq!(rail.on(Event::Made { connection: 2, by: By::Peer }, at(2)), [Stop(1, Why::Renewed)]);
    let failure =
        Event::AttemptFailed { attempt: Attempt(1), connection: Some(1), usable: false, cause: "busy" };
    assert_eq!(rail.on(failure, at(3)), [Stop(1, Why::Because("busy"))]);
    assert_eq!((rail.connection(), rail.failed()), (Some(&2), 0));
}

#[test]
fn a_peer_that_never_says_ready_is_given_up() {
    let mut rail = rail();
    rail.on(Event::Made { connection: 1, by: By::Peer }, at(0));
    rail.on(Event::Accepted(1), at(100));
    let tick = || Event::Tick { waiting: false, used_ms: 0 };
    assert_eq!(rail.on(tick(), at(10_099)), []);
    assert_eq!(rail.on(tick(), at(10_100)), [Expire(1)]);
    let actions = rail.on(Event::Overdue(1, "silent"), at(10_100));
    assert_eq!(actions[..2], [Stop(1, Why::Because("silent")), Vacate]);
    assert_eq!((rail.connection(), rail.failed()), (None, 1));
}

#[test]
fn a_connection_that_is_taken_away_blames_nobody() {
    let mut rail = up();
    assert_eq!(rail.on(Event::TakenAway("evicted"), at(5)), [Stop(1, Why::Because("evicted")), Vacate]);
    assert_eq!((rail.phase(), rail.failed(), rail.is_trusted()), (&Phase::Idle, 0, true));
    assert_eq!(rail.on(Event::Wanted, at(6)), [Connect(Attempt(2))]);
}

#[test]
fn a_rail_that_loses_its_connection_while_it_is_proved_still_has_to_be_proved() {
    let mut rail = failed_and_connecting();
    rail.on(Event::Connected(Attempt(2), 2), at(1102));
    rail.on(Event::TakenAway("evicted"), at(1103));
    assert_eq!((pause_of(&rail, 1103), rail.is_trusted(), rail.failed()), (1000, false, 1));
    let unused = Event::Tick { waiting: false, used_ms: 0 };
    assert_eq!(rail.on(unused, at(70_000)), [], "nobody has used it for a minute");
    let used = Event::Tick { waiting: false, used_ms: 69_000 };
    assert_eq!(rail.on(used, at(70_000)), [Connect(Attempt(3))]);
}

#[test]
fn an_interruption_of_another_connection_changes_nothing() {
    let mut rail = up();
    assert_eq!(rail.on(Event::Interrupted(9, "other"), at(5)), []);
    assert_eq!(rail.up(), Some(&1));
    let actions = rail.on(Event::Interrupted(1, "mine"), at(6));
    assert_eq!(actions, [Stop(1, Why::Because("mine")), Vacate]);
}

#[test]
fn while_the_port_is_down_nothing_begins_and_nothing_waits() {
    let mut rail = up();
    let actions = rail.on(Event::PortDown("no link"), at(1000));
    assert_eq!(actions[..2], [Stop(1, Why::Because("no link")), Vacate]);
    assert_eq!(rail.on(Event::Wanted, at(9000)), []);
    let tick = || Event::Tick { waiting: true, used_ms: 9000 };
    assert_eq!(rail.on(tick(), at(9000)), [HandBack(Loss::Flushed, Some("no link"))]);
    let asked = rail.on(Event::Made { connection: 2, by: By::Peer }, at(9001));
    assert_eq!(asked, [Stop(2, Why::Unwanted)]);
    rail.on(Event::PortUp, at(9100));
    assert_eq!(rail.on(tick(), at(9100)), [Connect(Attempt(2))], "the pause is over");
}

#[test]
fn an_attempt_without_queue_pairs_fails_with_its_port() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    let actions = rail.on(Event::PortDown("no link"), at(1));
    assert_eq!(actions, [Report("no link"), HandBack(Loss::Unconnected, Some("no link"))]);
    assert_eq!((pause_of(&rail, 1), rail.last_error()), (100, Some(&"no link")));
    let late = rail.on(Event::Made { connection: 1, by: By::Own(Attempt(1)) }, at(2));
    assert_eq!(late, [Stop(1, Why::Unwanted)]);
    let unwanted =
        Event::AttemptFailed { attempt: Attempt(1), connection: None, usable: false, cause: "unwanted" };
    assert_eq!(rail.on(unwanted, at(3)), []);
    assert_eq!((rail.failed(), rail.last_error()), (1, Some(&"no link")));
    for at_rest in [Phase::Idle, Phase::Stopped] {
        let mut rail = self::rail();
        rail.phase = at_rest.clone();
        assert_eq!(rail.on(Event::PortDown("no link"), at(1)), []);
        assert_eq!((rail.phase(), rail.failed()), (&at_rest, 0));
    }
}

#[test]
fn an_attempt_goes_on_with_other_queue_pairs() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    rail.on(Event::Made { connection: 1, by: By::Own(Attempt(1)) }, at(1));
    let actions = rail.on(Event::StartedOver(Attempt(1), 1, "bad path"), at(2));
    assert_eq!(actions, [Stop(1, Why::Because("bad path")), Vacate]);
    assert_eq!(rail.on(Event::Made { connection: 2, by: By::Own(Attempt(1)) }, at(3)), []);
    assert_eq!(rail.on(Event::Connected(Attempt(1), 2), at(4)), [Pump]);
}

#[test]
fn an_attempt_that_was_abandoned_only_has_its_connection_stopped() {
    let mut rail = up();
    rail.on(Event::Lost(1, "cable"), at(1000));
    assert_eq!(rail.on(Event::Wanted, at(1100)), [Connect(Attempt(2))]);
    rail.on(Event::TakenAway("evicted"), at(1101));
    for late in [
        Event::Made { connection: 5, by: By::Own(Attempt(2)) },
        Event::Connected(Attempt(2), 5),
        Event::StartedOver(Attempt(2), 5, "x"),
        Event::AttemptFailed { attempt: Attempt(2), connection: Some(5), usable: false, cause: "x" },
    ] {
        let actions = rail.on(late, at(1102));
        assert!(matches!(actions[..], [Stop(5, _)]), "{actions:?}");
        assert_eq!((rail.failed(), rail.connection()), (1, None));
    }
    assert_eq!(rail.on(Event::Unreachable(Attempt(2)), at(1103)), []);
}

#[test]
fn without_a_link_that_leads_there_the_rail_rests() {
    let mut rail = rail();
    rail.on(Event::Wanted, at(0));
    assert_eq!(rail.on(Event::Unreachable(Attempt(1)), at(1)), []);
    assert_eq!((rail.phase(), rail.failed()), (&Phase::Idle, 0));
}

#[test]
fn a_stopped_rail_fails_what_comes_and_takes_no_connection() {
    let mut rail = up();
    let actions = rail.on(Event::Stopped("destroyed"), at(5));
    assert_eq!(actions, [Stop(1, Why::Because("destroyed")), Vacate, Action::Fail("destroyed")]);
    assert_eq!(rail.on(Event::Wanted, at(6)), [Action::Fail("destroyed")]);
    assert_eq!(rail.on(Event::Made { connection: 2, by: By::Peer }, at(7)), [Stop(2, Why::Unwanted)]);
    rail.on(Event::PortUp, at(8));
    rail.on(Event::TakenAway("late"), at(8));
    assert_eq!(rail.on(Event::Tick { waiting: false, used_ms: 8 }, at(9)), []);
    assert_eq!(rail.phase(), &Phase::Stopped);
}
