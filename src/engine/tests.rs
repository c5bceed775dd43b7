//! What is left of engines that are destroyed while other threads use them: nothing.

use std::sync::Weak;
use std::thread;

use super::submit::Request;
use super::*;
use crate::memory::Range;

const ENGINES: usize = 100;
const THREADS: usize = 4;
const LEN: u64 = 4096;
const TASKS: usize = 8;
/// A destroyed engine lets go within this, whatever the machine does meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

fn engine() -> Arc<Engine> {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    engine
}

fn register(engine: &Engine, bytes: &[u8]) -> u64 {
    let range = Range { addr: bytes.as_ptr() as u64, len: bytes.len() as u64 };
    engine.register(std::slice::from_ref(&range), "cpu:0", true).unwrap();
    range.addr
}

#[test]
fn only_an_engine_that_was_asked_to_is_released_at_shutdown() {
    let engine = engine();
    assert!(!engine.is_released_at_shutdown());
    engine.release_at_shutdown();
    assert!(engine.is_released_at_shutdown());
    engine.destroy();
}

/// Something that must not outlive its engine.
type Left = (&'static str, Box<dyn Fn() -> usize + Send>);

fn left<T: Send + Sync + 'static>(what: &'static str, value: &Arc<T>) -> Left {
    let value: Weak<T> = Arc::downgrade(value);
    (what, Box::new(move || value.strong_count()))
}

/// Makes batches and submits to them until the engine is gone. Some are waited for, some freed, some neither. A call is
/// counted in for many of them, so that it is inside at each step of `destroy`.
fn use_it(engine: &Arc<Engine>, target: i32, source: u64, offset: u64) -> Vec<Left> {
    let mut made = Vec::new();
    while let Ok(inside) = engine.enter() {
        for round in 0..32 {
            let Ok(id) = inside.allocate_batch(TASKS) else { break };
            let Ok(batch) = inside.batch(id) else { break };
            made.push(left("batch", &batch));
            drop(batch);
            let request = Request { opcode: round % 2, source, target, offset, len: LEN };
            let _ = inside.submit(id, TASKS, |_| request, None);
            if round % 3 != 0 {
                let _ = inside.wait_batch(id, Some(Duration::from_millis(1)));
            }
            if round % 4 != 0 {
                let _ = inside.free_batch(id);
            }
            thread::yield_now();
        }
    }
    made
}

#[test]
fn p14_engines_that_are_destroyed_under_traffic_leave_nothing() {
    let there = engine();
    let bytes = vec![0u8; LEN as usize];
    let offset = register(&there, &bytes);
    let mut all: Vec<Left> = Vec::new();
    for number in 0..ENGINES {
        let here = engine();
        let own = vec![0u8; 2 * LEN as usize];
        let source = register(&here, &own);
        let target = here.open_segment(&there.local.name).unwrap();
        all.extend([left("engine", &here), left("local", &here.local), left("segments", &here.segments)]);
        all.push(left("segment", &here.segment(target).unwrap()));
        let users: Vec<_> = (0..THREADS)
            .map(|thread| {
                let here = here.clone();
                // One of them copies inside the own segment.
                let (target, offset) = if thread == 0 { (0, source + LEN) } else { (target, offset) };
                thread::spawn(move || use_it(&here, target, source, offset))
            })
            .collect();
        // At different moments of the others' calls.
        (0..number % 10 * 100).for_each(|_| thread::yield_now());
        here.destroy();
        for user in users {
            all.extend(user.join().unwrap());
        }
    }
    there.destroy();
    // What a thread of an engine still holds when destroy returns, it lets go at once.
    let deadline = Instant::now() + LONGEST;
    let held = || all.iter().filter(|(_, count)| count() > 0).map(|(what, _)| *what).collect::<Vec<_>>();
    while !held().is_empty() && Instant::now() < deadline {
        thread::yield_now();
    }
    let batches = all.iter().filter(|(what, _)| *what == "batch").count();
    assert!(batches > ENGINES, "{batches} batches were made");
    assert!(held().is_empty(), "of {} things {} are left: {:?}", all.len(), held().len(), held());
}
