//! The thread of one NIC (`mte-nic-<device>`): reaps when nobody polls, hears the device's events, and looks after what
//! takes too long.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use super::connection::Connection;
use super::errors::destroyed;
use super::flight::{fail_all, Flight, Keys, Loss};
use super::nic::Nic;
use super::queue::{Queue, State};
use super::rail::{Event, Owner, Rail};
use super::reap;
use super::recover::recover;
use super::shared::Shared;
use super::spread::spread;
use super::verbs::AsyncEvent;
use crate::error::{Class, Code, Error, Result};
use crate::runtime::{poll, thread};

/// Between two looks at deadlines, pauses and stalls, ms. Chosen: the shortest stall that can be set.
const SCAN_MS: u64 = 50;
/// Between two looks at what is seldom found, ms: at idle queue pairs, and in long waiting lists. Chosen: one such look a second
/// costs little, and what is found there can wait for it.
const THOROUGH_MS: u64 = 1000;
/// Idle queue pairs looked at each time, of each completion queue. Chosen: of 10^5 each has its turn twice a minute, and it costs
/// a thousandth of a processor. Those with something posted are looked at in every scan.
const IDLE_QUEUES: usize = 4096;
/// Waiting lists up to this length are looked at each time, longer ones once in [`THOROUGH_MS`]. Chosen: each look goes
/// through the whole list, 80 bytes a flight.
const FEW: usize = 4096;
/// Sleep while callers poll, ms. Chosen: if they stop, their completions wait no longer than that.
const SHORT_MS: i32 = 4;
/// Sleep while something is under way, ms. Chosen: until the next scan.
const BUSY_MS: i32 = 50;
/// Sleep while nothing is, ms. Chosen: four looks a second cost an idle process nothing.
const IDLE_MS: i32 = 250;
/// How long a stopped queue pair has for its flush completions, ms. Chosen: NICs flush within milliseconds. After
/// half a second the queue pair is destroyed, and its slices are posted elsewhere.
const DRAIN_MS: u64 = 500;
/// How long nothing completes on a queue pair before it is stopped for a request that was given up. Chosen: the NIC ends
/// what it can carry within milliseconds, which harms no neighbour.
const GIVE_UP_MS: u64 = 100;
/// Between two looks for a port or GID that is missing, ms. Chosen: an address often comes a moment after its port.
const REFRESH_MS: u64 = 100;

/// Of `enum ibv_event_type`, this and the next: the peer did on a queue pair what it must not, and the device has
/// stopped the queue pair.
const QP_REQ_ERR: u32 = 2;
const QP_ACCESS_ERR: u32 = 3;

/// Starts the thread.
pub(super) fn start(shared: &Arc<Shared>, nic: &Arc<Nic>) -> Result<JoinHandle<()>> {
    let mut name = format!("mte-nic-{}", nic.name);
    // The kernel's limit; device names are ASCII.
    name.truncate(15);
    let (weak, of, nic, broken) = (Arc::downgrade(shared), Arc::downgrade(shared), nic.clone(), nic.clone());
    thread::spawn(
        &name,
        move || run(&weak, &nic),
        move || {
            broken.deactivate("its thread failed inside the library", true);
            let text = format!("the thread of NIC {} failed inside the library; report the log", broken.name);
            if let Some(shared) = of.upgrade() {
                abandon(
                    &shared,
                    &broken,
                    shared.rails(&broken).all(),
                    &Error::new(Code::Context, text).permanent(Class::Internal),
                );
            }
        },
    )
}

/// Takes every connection of `rails` away, and fails what is posted on the NIC or waits for them. What is posted fails
/// when its queue pair is destroyed, which is not waited for.
pub(super) fn abandon(shared: &Shared, nic: &Nic, rails: Vec<Arc<Rail>>, error: &Error) {
    for queue in nic.completions.iter().flat_map(|completions| completions.queues()) {
        let connection = queue.owner::<Owner>().and_then(|owner| owner.connection.upgrade());
        let cause = error.clone();
        shared.destroyer.take(&queue, connection, Some(Box::new(move |flights| fail_all(flights, &cause))));
    }
    rails.iter().for_each(|rail| rail.feed(Event::Stopped(error.clone())));
}

fn run(shared: &Weak<Shared>, nic: &Arc<Nic>) {
    let (mut next_scan, mut next_thorough) = (0, 0);
    while let Some(shared) = shared.upgrade().filter(|shared| !shared.is_stopped()) {
        events(&shared, nic);
        reap::poll(&shared, nic);
        read_mail(&shared, nic);
        let now = shared.now_ms();
        if now >= next_scan {
            scan(&shared, nic, now, now >= next_thorough);
            next_scan = now + SCAN_MS;
            if now >= next_thorough {
                next_thorough = now + THOROUGH_MS;
            }
        }
        let wait = prepare_to_sleep(&shared, nic);
        drop(shared);
        sleep(nic, wait);
    }
}

/// Arms the completion queues unless callers poll; returns how long to sleep, ms.
fn prepare_to_sleep(shared: &Arc<Shared>, nic: &Arc<Nic>) -> i32 {
    let posted = nic.outstanding() > 0;
    if !posted {
        nic.relied_on.store(false, Ordering::SeqCst);
    }
    let polled = nic.polled.swap(false, Ordering::Relaxed);
    // Also while nothing is posted: whoever has just polled is likely to post the next, and with the queues armed each short
    // batch would wake us.
    if polled && !nic.relied_on.load(Ordering::SeqCst) {
        nic.armed.store(false, Ordering::SeqCst);
        // Whoever relies on us from now on finds `armed` false and wakes us.
        if !nic.relied_on.load(Ordering::SeqCst) {
            return SHORT_MS;
        }
    }
    for completions in &nic.completions {
        if let Err(error) = completions.arm() {
            nic.note(error.text());
        }
    }
    if let Err(error) = shared.inbox(nic).arm() {
        nic.note(error.text());
    }
    nic.armed.store(true, Ordering::SeqCst);
    // What came before they were armed causes no event.
    if reap::poll(shared, nic) | read_mail(shared, nic) {
        return 0;
    }
    // What waits for a rail counts too: a pause may end.
    if posted || nic.meter.inflight() > 0 {
        BUSY_MS
    } else {
        IDLE_MS
    }
}

/// Hands over the notifications that came; `false` if there were none.
fn read_mail(shared: &Shared, nic: &Nic) -> bool {
    shared.inbox(nic).poll(|notification| {
        let why = match notification.map(|notification| shared.host.notified(notification)) {
            Some(true) => return,
            Some(false) => "there is no room for it (MC_NOTIFY_QUEUE_MAX, MC_NOTIFY_QUEUE_BYTES)",
            None => "it is malformed, or there is no memory for it",
        };
        if shared.log.admit("notification", &nic.name) {
            tracing::warn!("a notification that came over {} is lost: {why}", nic.name);
        }
    })
}

fn sleep(nic: &Nic, wait_ms: i32) {
    // Those of a removed device are readable for ever.
    let device = |fd: RawFd| if nic.is_gone() { -1 } else { fd };
    let fds: [RawFd; 3] = [device(nic.channel.fd()), device(nic.context.async_fd()), nic.wakeup.fd()];
    let ready = poll::readable(fds, wait_ms);
    if ready[0] {
        if let Err(error) = nic.channel.drain() {
            nic.note(error.text());
        }
    }
    if ready[2] {
        nic.wakeup.clear();
    }
}

fn events(shared: &Arc<Shared>, nic: &Arc<Nic>) {
    let mut stopped = HashMap::new();
    while !nic.is_gone() {
        match nic.context.next_event() {
            Ok(Some(event)) => hear(shared, nic, &event, &mut stopped),
            Ok(None) => break,
            // EIO once the device is removed.
            Err(error) => {
                lose(shared, nic, error.text(), true);
                break;
            }
        }
    }
    if !stopped.is_empty() {
        lose_stopped(nic, &stopped);
    }
}

/// Gives up the connections of queue pairs that the device has stopped, by number with the event's name. All at once: a peer that
/// goes may stop very many, and none is found without a look at every one.
fn lose_stopped(nic: &Nic, stopped: &HashMap<u32, String>) {
    for queue in nic.completions.iter().flat_map(|completions| completions.queues()) {
        let Some(event) = stopped.get(&queue.number()) else { continue };
        let owner = queue.owner::<Owner>();
        let Some((owner, connection)) = owner.and_then(|it| Some((it, it.connection.upgrade()?))) else {
            continue;
        };
        // Once, however many of its queue pairs have stopped.
        if owner.rail.connection().is_some_and(|current| current == connection) {
            let text = format!("{}: the device reported {event}", owner.rail.name());
            let error = Error::new(Code::Endpoint, text).transient(Class::Network);
            owner.rail.feed(Event::Lost(connection, error));
        }
    }
}

/// `stopped`: gets the queue pairs that the device has stopped.
fn hear(shared: &Arc<Shared>, nic: &Arc<Nic>, event: &AsyncEvent, stopped: &mut HashMap<u32, String>) {
    tracing::info!("NIC {}: {}", nic.name, event.name());
    let ours = |port: u8| port == nic.port_number;
    match event {
        AsyncEvent::QpFatal { qp_number }
        | AsyncEvent::QpOther { qp_number, event: QP_REQ_ERR | QP_ACCESS_ERR } => {
            // Without room the scan finds it: nothing completes on it any more.
            let room = stopped.try_reserve(1);
            if room.is_ok() {
                stopped.insert(*qp_number, event.name());
            }
        }
        AsyncEvent::DeviceFatal => lose(shared, nic, "the device failed", true),
        AsyncEvent::CqError => lose(shared, nic, "a completion queue overran or failed", true),
        AsyncEvent::PortError(port) if ours(*port) => {
            lose(shared, nic, "the port is down", false);
            nic.refresh_at_ms.store(shared.now_ms() + REFRESH_MS, Ordering::Relaxed);
        }
        AsyncEvent::PortActive(port) | AsyncEvent::GidChange(port) | AsyncEvent::LidChange(port)
            if ours(*port) =>
        {
            refresh(shared, nic);
        }
        _ => {}
    }
}

/// Takes a NIC out of use: what it carries goes elsewhere, and peers are told.
fn lose(shared: &Arc<Shared>, nic: &Arc<Nic>, why: &str, for_good: bool) {
    let was_active = nic.deactivate(why, for_good);
    for rail in shared.rails(nic).all() {
        rail.feed(Event::PortDown(of_nic(&rail, why)));
    }
    if was_active {
        shared.host.republish();
    }
}

fn of_nic(rail: &Rail, why: &str) -> Error {
    let text = format!("{}: {why}", rail.name());
    Error::new(Code::Endpoint, text).transient(Class::Device).peer(&rail.peer)
}

/// Reads port and GID again. A NIC that is back carries data again at once; one whose GID moved needs new connections.
fn refresh(shared: &Arc<Shared>, nic: &Arc<Nic>) {
    let before = nic.port();
    match nic.refresh(&shared.config) {
        Ok(changed) => {
            nic.refresh_at_ms.store(0, Ordering::Relaxed);
            let now = nic.port();
            if before.gid != now.gid {
                for rail in shared.rails(nic).all() {
                    *rail.moved.lock() = Default::default();
                    if let Some(connection) = rail.connection() {
                        let error = of_nic(&rail, "its GID changed");
                        rail.feed(Event::Lost(connection, error));
                    }
                }
            }
            if changed {
                tracing::info!("NIC {} is usable with GID {}", nic.name, super::gid::text(&now.gid.bytes));
                shared.rails(nic).all().iter().for_each(|rail| rail.feed(Event::PortUp));
                shared.host.republish();
            }
        }
        Err(error) => {
            if !nic.is_gone() {
                lose(shared, nic, error.text(), false);
                nic.refresh_at_ms.store(shared.now_ms() + REFRESH_MS, Ordering::Relaxed);
            }
        }
    }
}

/// `thorough`: look at what costs more too.
fn scan(shared: &Arc<Shared>, nic: &Arc<Nic>, now: u64, thorough: bool) {
    let due = nic.refresh_at_ms.load(Ordering::Relaxed);
    if due != 0 && now >= due {
        refresh(shared, nic);
    }
    let moment = Instant::now();
    for completions in &nic.completions {
        completions.busy().each(|queue| {
            if !shared.is_stopped() {
                look_after(shared, queue, now, moment);
            }
            queue.outstanding() > 0
        });
        let idle = if thorough { completions.some(IDLE_QUEUES) } else { Vec::new() };
        for queue in idle.iter().filter(|queue| queue.outstanding() == 0) {
            if shared.is_stopped() {
                return;
            }
            look_after(shared, queue, now, moment);
        }
    }
    nic.meter.forget();
    shared.rails(nic).restless.each(|rail| {
        if shared.is_stopped() {
            return true;
        }
        if rail.has_waiting() && (thorough || rail.waiting.len() <= FEW) {
            let is_over =
                |flight: &Flight| flight.is_expired(moment) || flight.is_revoked() || flight.is_given_up();
            let late = rail.take_waiting(is_over);
            let late = late.into_iter().map(|flight| (flight, Loss::Flushed)).collect();
            recover(shared, rail, late, None, Keys::Good);
        }
        spread(shared, rail);
        rail.tick(now);
        rail.has_to_tick()
    });
    if thorough {
        shared.rails(nic).sweep();
        shared.inbox(nic).sweep();
    }
}

/// A queue that drains for too long is destroyed; one on which something is too late, or where nothing moves, is
/// stopped.
fn look_after(shared: &Arc<Shared>, queue: &Arc<Queue>, now: u64, moment: Instant) {
    let Some(owner) = queue.owner::<Owner>() else { return };
    if let State::Draining(since) = queue.state() {
        if now.saturating_sub(since) >= DRAIN_MS {
            let (of, rail) = (Arc::downgrade(shared), owner.rail.clone());
            let connection = owner.connection.upgrade();
            let posted_on = connection.clone();
            let then = move |flights| come_back(&of, &rail, posted_on.as_deref(), flights);
            shared.destroyer.take(queue, connection, Some(Box::new(then)));
        }
        return;
    }
    let Some(connection) = owner.connection.upgrade() else {
        // Nobody can post on it or give it up any more.
        queue.stop(now);
        return;
    };
    if queue.any(|flight| flight.is_expired(moment)) {
        let text = format!("{}: a request on it ran out of time", owner.rail.name());
        return owner.rail.feed(Event::Lost(connection, stalled(text, &owner.rail)));
    }
    if let Some((since, bytes)) = queue.stalled_since() {
        if now.saturating_sub(since) >= GIVE_UP_MS && queue.any(Flight::is_given_up) {
            let text = format!("{}: a request on it was canceled", owner.rail.name());
            let why = Error::new(Code::Endpoint, text).transient(Class::Canceled).peer(&owner.rail.peer);
            return owner.rail.interrupt(&connection, why);
        }
        let limit = shared.config.rdma_stall_timeout.as_millis() as u64
            + bytes.saturating_mul(1000) / shared.config.rdma_min_rate;
        if now.saturating_sub(since) >= limit {
            let text = format!("{}: no completion for {} ms", owner.rail.name(), now - since);
            owner.rail.feed(Event::Lost(connection, stalled(text, &owner.rail)));
        }
    }
}

/// No completion told of `flights`, and their queue pair is gone.
fn come_back(shared: &Weak<Shared>, rail: &Rail, posted_on: Option<&Connection>, flights: Vec<Flight>) {
    let Some(shared) = shared.upgrade() else { return fail_all(flights, &destroyed()) };
    if !flights.is_empty() {
        shared.stats.destroyed_without_completion.fetch_add(1, Ordering::Relaxed);
    }
    let lost = flights.into_iter().map(|flight| (flight, Loss::Unknown)).collect();
    recover(&shared, rail, lost, posted_on, Keys::Good);
}

fn stalled(text: String, rail: &Rail) -> Error {
    Error::new(Code::Endpoint, text).transient(Class::Timeout).peer(&rail.peer)
}
