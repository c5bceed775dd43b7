//! One schedule: engines come and go, the store fails, and in the end all that live have what they published.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::engine::{self, keys, Host};
use super::shelf::Shelf;
use super::Fault;
use crate::sim::Choices;

const NAMES: [&str; 2] = ["a", "b"];
/// Most engines of a schedule.
const MOST: usize = 6;
/// By then those that publish and leave have done so, in 80 s at the most, and every other one has looked after its keys since.
const SETTLED: Duration = Duration::from_secs(120);

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
        let lent = Lent { choices, shelf: shelf.clone() };
        let world = World { shelf, tasks: Vec::new() };
        world.live().await;
        drop(lent);
    });
}

struct World {
    shelf: Arc<Mutex<Shelf>>,
    tasks: Vec<AbortHandle>,
}

impl World {
    async fn live(mut self) {
        let steps = self.shelf.lock().choices.within(2, 14);
        for _ in 0..steps {
            self.step();
            let pause_ms = self.shelf.lock().choices.pick(&[1, 40, 1_500, 12_000, 45_000]);
            sleep(Duration::from_millis(pause_ms)).await;
            self.check();
        }
        {
            let shelf = &mut *self.shelf.lock();
            (shelf.is_down, shelf.loses) = (false, 0);
            shelf.hosts.iter().for_each(|host| host.go_on());
        }
        sleep(SETTLED).await;
        self.check();
        self.check_end();
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    fn check(&self) {
        let broken = self.shelf.lock().broken.take();
        if let Some(text) = broken {
            panic!("{text}");
        }
    }

    fn step(&mut self) {
        let what = self.shelf.lock().choices.weighted(&[6, 2, 2, 2, 2, 2, 2]);
        match what {
            0 => self.start(),
            1 => self.kill(),
            2 => self.stop(),
            3 => self.shelf.lock().hosts.iter().for_each(|host| host.go_on()),
            4 => {
                let shelf = &mut *self.shelf.lock();
                shelf.is_down ^= true;
                if shelf.is_down {
                    shelf.choices.reach("the store is down");
                }
            }
            5 => self.shelf.lock().empty(),
            _ => {
                let shelf = &mut *self.shelf.lock();
                shelf.loses = shelf.choices.pick(&[0, 100, 500]);
            }
        }
    }

    fn start(&mut self) {
        let (host, versions, leaves) = {
            let shelf = &mut *self.shelf.lock();
            if shelf.hosts.len() == MOST {
                return;
            }
            let name = shelf.choices.pick(&NAMES);
            if shelf.hosts.iter().any(|host| host.name == name && host.is_alive()) {
                shelf.choices.reach("two engines want one name");
            }
            let host = Host::new(shelf.hosts.len(), name);
            shelf.hosts.push(host.clone());
            (host, shelf.choices.within(1, 4), shelf.choices.chance(400))
        };
        let life = engine::live(self.shelf.clone(), host, versions, leaves);
        self.tasks.push(tokio::spawn(life).abort_handle());
    }

    fn some_host(&self) -> Option<Arc<Host>> {
        let shelf = &mut *self.shelf.lock();
        let number = (shelf.choices.below(64) as usize).checked_rem(shelf.hosts.len())?;
        Some(shelf.hosts[number].clone())
    }

    fn kill(&mut self) {
        if let Some(host) = self.some_host().filter(|host| host.is_alive()) {
            self.shelf.lock().choices.reach("an engine is killed");
            host.kill();
            self.tasks[host.number].abort();
        }
    }

    fn stop(&mut self) {
        if let Some(host) = self.some_host().filter(|host| host.is_alive()) {
            self.shelf.lock().choices.reach("an engine is stopped");
            host.stop();
        }
    }

    /// Whoever has the name in the end lives, and the descriptor there is the last one that it has published.
    fn check_end(&self) {
        let shelf = &mut *self.shelf.lock();
        for name in NAMES {
            let [rpc, ram] = keys(name);
            let is_owner = |host: &&Arc<Host>| {
                host.name == name && host.is_alive() && !host.has_left() && host.published.lock()[0].is_some()
            };
            let living: Vec<_> = shelf.hosts.iter().filter(is_owner).cloned().collect();
            let Some(owner) = shelf.writer(&rpc) else {
                assert!(
                    living.is_empty(),
                    "nobody has the name '{name}', which engine {} claimed",
                    living[0].number
                );
                continue;
            };
            let owner = shelf.hosts[owner].clone();
            // What a dead engine left expires some time later.
            if !owner.is_alive() || owner.has_left() {
                assert!(living.is_empty(), "'{name}' leads to engine {}, which is gone", owner.number);
                continue;
            }
            let last = owner.published.lock()[1].clone();
            if let Some(last) = last {
                let there = shelf.value(&ram);
                let is_there = there.as_ref() == Some(&last);
                assert!(
                    is_there,
                    "the descriptor of '{name}' is not the last one that engine {} published",
                    owner.number
                );
            }
        }
    }
}
