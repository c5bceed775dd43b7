//! How a step begins in the world.

use super::*;

impl World {
    pub(super) fn begin(&mut self, step: Step) -> Option<()> {
        let which = step.which;
        match step.what {
            What::Submit => {
                self.flights += 1;
                self.used_ms = self.now_ms;
                self.waiting.push_back(self.flights);
                self.threads.push(Thread::new([Todo::Act(Action::Pump)]));
            }
            What::Perform => {
                let count = self.threads.len();
                (count > 0).then(|| self.perform(usize::from(which) % count))?;
            }
            What::Make if !self.is_making() => {
                let place = self.task(which)?;
                let Task { attempt, used } = self.tasks[place];
                let known = self.machine.connection().copied();
                match known.filter(|known| self.at(*known).is_open()) {
                    _ if used.is_some() => {}
                    _ if !self.machine.is_current(attempt) => self.end_task(place, None, false, UNWANTED),
                    Some(known) => self.tasks[place].used = Some(known),
                    None => self.make(By::Own(attempt)),
                }
            }
            What::Connect => {
                let place = self.task(which)?;
                let connection = self.tasks[place].used?;
                let task = self.tasks.swap_remove(place);
                self.counted = self.machine.connection().is_some();
                self.happen(Event::Connected(task.attempt, connection), None);
            }
            What::StartOver => {
                let place = self.task(which)?;
                let task = &mut self.tasks[place];
                let (attempt, connection) = (task.attempt, task.used.take()?);
                self.happen(Event::StartedOver(attempt, connection, "bad path"), Some(attempt));
            }
            What::GiveUp | What::GiveUpUsable => {
                let place = self.task(which)?;
                let used = self.tasks[place].used;
                let is_open = used.is_some_and(|used| self.at(used).is_open());
                let usable = is_open && matches!(step.what, What::GiveUpUsable);
                self.end_task(place, used, usable, "refused");
            }
            What::TimeOut => {
                let count = self.tasks.len();
                let place = (count > 0).then(|| usize::from(which) % count)?;
                let used = self.tasks[place].used;
                let is_open = used.is_some_and(|used| self.at(used).is_open());
                self.end_task(place, used, is_open, "no answer");
            }
            What::Abort => {
                let counts = self.attempt;
                self.tasks.retain(|task| counts == Some(task.attempt));
            }
            What::Ask if !self.is_making() => {
                let known = self.machine.connection().copied();
                match known.filter(|known| self.at(*known).is_open()) {
                    Some(known) if which & 1 == 0 => self.happen(Event::Accepted(known), None),
                    Some(_) => self.happen(Event::TakenAway("connected anew"), None),
                    None => self.make(By::Peer),
                }
            }
            What::Accept => {
                let connection = self.some(which)?;
                self.happen(Event::Accepted(connection), None);
                self.counted = self.machine.connection().is_some();
            }
            What::Ready => self.happen(Event::Ready(self.some(which)?), None),
            What::Arrive => {
                let connection = self.some(which)?;
                let found = self.at(connection);
                if found.arrived < found.probes && found.is_open() {
                    found.arrived += 1;
                    if found.arrived == QUEUES {
                        self.happen(Event::Proved(connection), None);
                    }
                }
            }
            What::Break => {
                let connection = self.some(which)?;
                self.at(connection).broken = true;
                let lost = Event::Lost(connection, "bad completion");
                self.threads.push(Thread::new([Todo::Feed(lost)]));
            }
            What::Lose => self.happen(Event::Lost(self.some(which)?, "cable"), None),
            What::Interrupt => self.happen(Event::Interrupted(self.some(which)?, "ours"), None),
            What::Flush => self.flush(self.some(which)?, 1),
            What::Retire => self.happen(Event::TakenAway("evicted"), None),
            What::PortDown => {
                self.port_up = false;
                self.happen(Event::PortDown("no link"), None);
            }
            What::PortUp => {
                self.port_up = true;
                self.happen(Event::PortUp, None);
            }
            What::Wait => {
                self.now_ms += u64::from(step.ms);
                self.tick();
            }
            What::Make | What::Ask => {}
            What::Room => self.room = which % (QUEUES + 1),
            What::Route => self.has_route = which & 3 != 0,
        }
        Some(())
    }
}
