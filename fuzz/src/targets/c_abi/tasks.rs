//! What is known of the requests that were submitted: where their bytes are, and which others are in their way.

use super::arena::Arena;

/// A request.
pub struct Task {
    pub from: (u64, u64),
    pub to: (u64, u64),
    is_write: bool,
    /// What has to be at the destination once it is COMPLETED; `None` where others decide that as well.
    pub content: Option<Vec<u8>>,
    /// What was known of the destination before.
    before: Vec<Option<u8>>,
    pub state: State,
}

/// How far it is known to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum State {
    Running,
    Completed,
    Failed,
}

/// Every request of an input; none is taken out, so that numbers stay.
#[derive(Default)]
pub struct Tasks(pub Vec<Task>);

fn overlap(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 < other.0.saturating_add(other.1) && other.0 < one.0.saturating_add(one.1)
}

impl Tasks {
    /// Something may still be read or written for the task. A WRITE that failed may have bytes on their way.
    fn is_live(task: &Task) -> bool {
        task.state == State::Running || task.state == State::Failed && task.is_write
    }

    /// No request touches the range.
    pub fn is_quiet(&self, range: (u64, u64)) -> bool {
        !self
            .0
            .iter()
            .filter(|task| Self::is_live(task))
            .any(|t| overlap(t.from, range) || overlap(t.to, range))
    }

    /// A request is about to be submitted; gives its number.
    pub fn add(&mut self, arena: &mut Arena, local: u64, remote: u64, len: u64, is_write: bool) -> usize {
        let (from, to) = if is_write { (local, remote) } else { (remote, local) };
        let (from, to) = ((from, len), (to, len));
        if self.is_quiet(from) && !overlap(from, to) && len <= super::arena::USABLE as u64 {
            arena.fill(from.0, from.1);
        }
        let mut content = arena.content(from.0, from.1).filter(|_| !overlap(from, to));
        for other in self.0.iter_mut().filter(|task| Self::is_live(task)) {
            if overlap(other.to, to) || overlap(other.from, to) {
                other.content = None;
            }
            if overlap(other.to, to) || overlap(other.to, from) {
                content = None;
            }
        }
        let before = arena.forget(to.0, to.1);
        self.0.push(Task { from, to, is_write, content, before, state: State::Running });
        self.0.len() - 1
    }

    /// The call that was to submit those from number `first` on was refused.
    pub fn take_back(&mut self, arena: &mut Arena, first: usize) {
        while self.0.len() > first {
            self.0.pop().into_iter().for_each(|task| arena.remember(task.to.0, task.to.1, &task.before));
        }
    }

    /// A task is seen to have come to `state`.
    pub fn note(&mut self, arena: &mut Arena, number: usize, state: State) {
        let task = &mut self.0[number];
        if task.state == State::Running {
            task.state = state;
            if let Some(content) = task.content.take().filter(|_| state == State::Completed) {
                arena.expect(task.to.0, &content);
            }
        }
        assert_eq!(task.state, state, "a task that has ended has ended otherwise");
    }

    /// How a task ended is not known and never will be.
    pub fn lose(&mut self, number: usize) {
        let task = &mut self.0[number];
        (task.content, task.state) = (None, State::Failed);
    }

    /// Some WRITE has failed, so bytes of it may still come.
    pub fn has_trails(&self) -> bool {
        self.0.iter().any(|task| task.state == State::Failed && task.is_write)
    }
}
