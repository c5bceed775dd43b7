//! One schedule: peers come and go, the store fails, the engine's callers open, use and close; in the end all is told, and nothing left.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep, Instant};

use super::door::{name, STORE_LIMIT};
use super::engine::{self, Engine};
use super::rules;
use super::shelf::{Kind, Shelf};
use super::Fault;
use crate::config::Config;
use crate::engine::segment::table::{Found, Segments, LINGER};
use crate::engine::segment::OPEN_LIMIT;
use crate::engine::segments::{ALL_LIMIT, REOPEN_LIMIT};
use crate::engine::submit::REFRESH_LIMIT;
use crate::runtime::control::Control;
use crate::sim::Choices;

/// Until then whoever waits has stopped to, the store's stream is open again, and every owner has looked after its key.
const SETTLED: Duration = Duration::from_secs(25);
/// What wakes up and travels inside the host.
const SLACK: Duration = Duration::from_millis(200);
/// The least time between two readings for submit calls that do not help.
const PAUSE: Duration = Duration::from_millis(100);
/// A descriptor in use is read again after this time, and what that takes.
const AGE_OF_USE: Duration = Duration::from_millis(5_500);

/// Gives the choices back, also when a rule is broken.
struct Lent<'a> {
    choices: &'a mut Choices,
    shelf: Arc<Mutex<Shelf>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        std::mem::swap(&mut self.shelf.lock().choices, self.choices);
    }
}

pub(super) fn run(choices: &mut Choices, fault: Option<Fault>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let own = std::mem::replace(choices, Choices::given(Vec::new()));
        let shelf = Arc::new(Mutex::new(Shelf::new(own, fault)));
        let _lent = Lent { choices, shelf: shelf.clone() };
        let peers = shelf.lock().peers.len();
        let engine = Engine {
            shelf: shelf.clone(),
            control: Arc::new(Control::of_this_loop()),
            segments: Arc::new(Segments::new(&Config::default())),
            doors: Mutex::default(),
            ids: Mutex::new(vec![None; peers]),
            opens: Mutex::new(vec![0; peers]),
            last_id: Mutex::new(0),
        };
        World { shelf, engine: Arc::new(engine), calls: Vec::new() }.live().await;
    });
}

struct World {
    shelf: Arc<Mutex<Shelf>>,
    engine: Arc<Engine>,
    calls: Vec<(&'static str, JoinHandle<()>)>,
}

impl World {
    async fn live(mut self) {
        tokio::spawn(engine::upkeep(self.shelf.clone()));
        let (steps, kind) = {
            let shelf = &mut *self.shelf.lock();
            (0..shelf.peers.len()).for_each(|peer| shelf.publish(peer));
            shelf.look_after();
            (shelf.choices.within(3, 40), shelf.kind)
        };
        if kind == Kind::Telling {
            tokio::spawn(engine::stream(self.shelf.clone()));
        }
        for _ in 0..steps {
            self.step().await;
            let pause_ms = self.shelf.lock().choices.pick(&[1, 1, 4, 40, 300, 1_200, 5_500]);
            sleep(Duration::from_millis(pause_ms)).await;
            rules::check(&self.engine);
        }
        self.settle().await;
        self.end().await;
    }

    async fn step(&mut self) {
        let weights = [8, 3, 6, 4, 4, 3, 1, 6, 3, 2, 2, 2, 1, 2, 4, 2, 2, 1, 3];
        let what = self.shelf.lock().choices.weighted(&weights);
        let peer = {
            let shelf = &mut *self.shelf.lock();
            shelf.choices.below(shelf.peers.len() as u32) as usize
        };
        match what {
            0 => self.open(peer),
            1 => self.open_fresh(peer),
            2 => self.submit(peer),
            3 => self.notify(peer),
            4 => self.connect(peer),
            5 => self.close(peer),
            6 => {
                let engine = self.engine.clone();
                self.call("syncSegmentCache", ALL_LIMIT, async move { engine.sync().await });
            }
            7 => {
                let shelf = &mut *self.shelf.lock();
                shelf.publish(peer);
                if shelf.choices.chance(700) {
                    shelf.look_after();
                }
            }
            8 | 9 => self.end_peer(peer, what == 9),
            10 => {
                let shelf = &mut *self.shelf.lock();
                shelf.peers[peer].is_stopped ^= true;
                shelf.choices.reach("a peer is stopped");
            }
            11 => {
                let shelf = &mut *self.shelf.lock();
                shelf.is_down ^= true;
                if shelf.is_down {
                    shelf.choices.reach("the store is down");
                    shelf.break_stream(false);
                }
            }
            12 => self.shelf.lock().empty(),
            13 => {
                let shelf = &mut *self.shelf.lock();
                let forgets = shelf.choices.chance(700);
                shelf.break_stream(forgets);
            }
            14 => {
                let shelf = &mut *self.shelf.lock();
                match shelf.choices.below(3) {
                    0 => shelf.is_slow ^= true,
                    1 => shelf.loses = shelf.choices.pick(&[0, 100, 500]),
                    _ => shelf.confuses = shelf.choices.pick(&[0, 300]),
                }
            }
            15 => self.cancel(),
            16 => self.stop().await,
            17 => self.engine.remove(peer),
            _ => {
                let several = self.shelf.lock().choices.within(2, 6);
                for _ in 0..several {
                    self.open(peer);
                    self.submit(peer);
                }
            }
        }
    }

    /// A call on a thread of its own.
    fn call(&mut self, what: &'static str, limit: Duration, call: impl Future<Output = ()> + Send + 'static) {
        let shelf = self.shelf.clone();
        let timed = async move {
            let (began, stopped) = (Instant::now(), shelf.lock().stopped);
            call.await;
            let shelf = &mut *shelf.lock();
            let took = began.elapsed().saturating_sub(shelf.stopped - stopped);
            if took > limit + SLACK {
                shelf.breaks(format!("{what} took {took:?}"));
            }
        };
        self.calls.retain(|(_, call)| !call.is_finished());
        self.calls.push((what, tokio::spawn(timed)));
    }

    fn open(&mut self, peer: usize) {
        let engine = self.engine.clone();
        // Two turns; or a reading, of which the store says how long it takes.
        self.call("openSegment", (2 * OPEN_LIMIT).max(STORE_LIMIT), async move {
            engine.opened(peer, false).await;
        });
    }

    fn open_fresh(&mut self, peer: usize) {
        let engine = self.engine.clone();
        self.call("open_segment_fresh", 2 * STORE_LIMIT, async move {
            engine.opened(peer, true).await;
        });
    }

    fn id(&self, peer: usize) -> Option<i32> {
        self.engine.ids.lock()[peer]
    }

    fn submit(&mut self, peer: usize) {
        let (engine, Some(id)) = (self.engine.clone(), self.id(peer)) else { return };
        self.call("submitTransfer", REOPEN_LIMIT + 2 * REFRESH_LIMIT + PAUSE, async move {
            let _ = engine.submit(id).await;
        });
    }

    fn notify(&mut self, peer: usize) {
        let (engine, Some(id)) = (self.engine.clone(), self.id(peer)) else { return };
        self.call("a notification", REOPEN_LIMIT + 2 * STORE_LIMIT, async move {
            let _ = engine.notify(id).await;
        });
    }

    fn connect(&mut self, peer: usize) {
        let (engine, Some(id)) = (self.engine.clone(), self.id(peer)) else { return };
        self.call("a connection", REOPEN_LIMIT + STORE_LIMIT, async move {
            let _ = engine.connect(id).await;
        });
    }

    fn close(&mut self, peer: usize) {
        if let Some(id) = self.id(peer) {
            let opens = &mut self.engine.opens.lock()[peer];
            *opens = opens.saturating_sub(1);
            self.engine.close(id);
        }
    }

    fn cancel(&mut self) {
        let place = self.shelf.lock().choices.below(64) as usize;
        let Some(place) = place.checked_rem(self.calls.len()) else { return };
        let (_, call) = self.calls.swap_remove(place);
        if !call.is_finished() {
            self.shelf.lock().choices.reach("a call is cancelled");
            call.abort();
        }
    }

    fn end_peer(&mut self, peer: usize, in_order: bool) {
        let ends_ms = {
            let shelf = &mut *self.shelf.lock();
            shelf.choices.reach(if in_order { "a peer leaves" } else { "a peer is killed" });
            shelf.end(peer, in_order);
            shelf.choices.pick(&[1, 4_000])
        };
        let engine = self.engine.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(ends_ms)).await;
            let doors: Vec<_> = engine.doors.lock().iter().map(|(_, door)| door.clone()).collect();
            for door in doors {
                let shelf = &mut *engine.shelf.lock();
                if door.link.leads_to().is_some_and(|process| !shelf.is_alive(process)) {
                    shelf.choices.reach("a connection ends");
                    door.link.end();
                }
            }
        });
    }

    /// The engine's process, while the world goes on.
    async fn stop(&mut self) {
        let took = {
            let shelf = &mut *self.shelf.lock();
            shelf.choices.reach("the engine is stopped");
            let took = Duration::from_millis(shelf.choices.pick(&[700, 8_000, 3_600_000]));
            shelf.stopped += took;
            shelf.tell(|| format!("the engine is stopped for {took:?}"));
            took
        };
        advance(took).await;
    }

    /// All faults end.
    async fn settle(&mut self) {
        {
            let shelf = &mut *self.shelf.lock();
            (shelf.is_down, shelf.is_slow, shelf.loses, shelf.confuses) = (false, false, 0, 0);
            shelf.peers.iter_mut().for_each(|peer| peer.is_stopped = false);
            shelf.look_after();
            shelf.tell(|| "all faults have ended".into());
        }
        sleep(SETTLED).await;
        rules::check(&self.engine);
        for (what, call) in &self.calls {
            assert!(call.is_finished(), "{what} does not end");
        }
    }

    fn living(&self) -> Vec<usize> {
        let shelf = self.shelf.lock();
        (0..shelf.peers.len()).filter(|peer| shelf.peers[*peer].process.is_some()).collect()
    }

    async fn end(&mut self) {
        let (living, kind) = (self.living(), self.shelf.lock().kind);
        let engine = self.engine.clone();
        if kind == Kind::Telling {
            for peer in &living {
                if let Some(segment) = engine.segments.by_name(&name(*peer)) {
                    rules::check_present(&segment, &engine.door(&segment), "the store has told", true);
                }
            }
        }
        rules::check(&engine);
        for peer in &living {
            let Some(segment) = engine.opened(*peer, false).await else {
                panic!("peer {peer} cannot be opened, and all faults have ended");
            };
            let door = engine.door(&segment);
            rules::check_present(&segment, &door, "opened", kind == Kind::Telling);
        }
        if kind == Kind::Plain {
            sleep(AGE_OF_USE).await;
            for peer in &living {
                let Ok(segment) = engine.segment(self.id(*peer).unwrap_or(-1)).await else {
                    panic!("the id of peer {peer} cannot be used, and all faults have ended");
                };
                sleep(SLACK).await;
                rules::check_present(&segment, &engine.door(&segment), "in use", true);
            }
        }
        for peer in &living {
            let Some(id) = self.id(*peer) else { continue };
            let submitted = engine.submit(id).await;
            let there = self.shelf.lock().peers[*peer].process;
            let told = engine.notify(id).await;
            assert!(
                told.as_ref().ok() == there.as_ref(),
                "a notification to peer {peer} comes to {told:?}, not to {there:?}"
            );
            let Ok(segment) = engine.segment(id).await else { panic!("{submitted:?}") };
            rules::check_present(&segment, &engine.door(&segment), "a submit call", true);
        }
        rules::check(&engine);
        self.close_all().await;
    }

    async fn close_all(&mut self) {
        let engine = &self.engine;
        let ids: Vec<_> = engine.ids.lock().clone();
        for (peer, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            // Once more, for what a use has opened.
            for _ in 0..=engine.opens.lock()[peer] {
                engine.close(*id);
            }
            engine.opens.lock()[peer] = 0;
        }
        sleep(2 * LINGER + SLACK).await;
        rules::check_empty(engine);
        let is_given_up = |id: &i32| matches!(engine.segments.find(*id), Some(Found::Closed(_)));
        if ids.iter().flatten().any(is_given_up) {
            self.shelf.lock().choices.reach("a segment is given up");
        }
        rules::check(engine);
    }
}
