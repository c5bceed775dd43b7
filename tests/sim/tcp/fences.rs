//! What happens to requests whose lane has ended (`link.rs`, `fence.rs`): the peer is asked to close its end of the connection;
//! then WRITEs are sent again and trails end.

use super::lanes::error;
use super::peer::Kind;
use super::wire::Chunk;
use super::world::{Happening, World};
use super::Fault;
use crate::error::Error;
use crate::transport::slice::{canceled, Slice, Trail};
use crate::transport::tcp::parked::keep_trail;
use crate::transport::tcp::request::Request;

/// `fence::WORD_LIMIT` and `fence::FOLLOW_LIMIT`.
const WORD_US: u64 = 2_000_000;
const FOLLOW_US: u64 = 60_000_000;
const PAUSE_US: u64 = 500_000;

/// A question that the peer has yet to answer.
pub(super) struct Fence {
    ticket: u64,
    mark: u64,
    /// The process that had the connection.
    start: u64,
    /// The requests have been taken back; only trails are followed.
    trails: Option<Vec<Trail>>,
    deadline_us: u64,
    /// Counts questions: the answer to an earlier one says nothing.
    round: u32,
    over: bool,
}

/// What comes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It arrives at the peer.
    Asked {
        answer_is_lost: bool,
    },
    Answered {
        closed: bool,
    },
    /// Nobody listens.
    Refused,
    /// The exchange failed, and is tried again.
    Failed,
    /// The time is up.
    Late,
}

impl World<'_> {
    pub(super) fn follow(
        &mut self,
        mark: u64,
        start: u64,
        behind: Vec<(Request, Error)>,
        trails: Vec<Trail>,
    ) {
        self.stale = true;
        if self.fault == Some(Fault::Lost) {
            return behind
                .into_iter()
                .for_each(|(mut request, _)| std::mem::forget(request.take_slice(false)));
        }
        let ticket = match self.parked.park(behind, trails) {
            Ok(ticket) => ticket,
            Err((mut behind, _lost)) => {
                behind.iter_mut().for_each(|(request, _)| request.lose_trail());
                let failed = behind.into_iter().map(|(request, _)| (request, error("stopping"))).collect();
                return self.fail_all(failed);
            }
        };
        self.parked.abandon(Slice::is_given_up, |request| request.fail(canceled()));
        let deadline_us = self.agenda.now_us() + WORD_US;
        self.fences.push(Fence { ticket, mark, start, trails: None, deadline_us, round: 0, over: false });
        self.ask_to_close(self.fences.len() - 1);
    }

    fn ask_to_close(&mut self, fence: usize) {
        let it = &mut self.fences[fence];
        it.round += 1;
        let (round, left_us) = (it.round, it.deadline_us.saturating_sub(self.agenda.now_us()));
        let delay_us = self.choices.pick(&[100, 2_000, 300_000]);
        self.agenda.plan(left_us, Happening::Fence { fence, round, said: Said::Late });
        if self.is_cut || self.choices.chance(self.loses) {
            self.choices.reach("a word is lost");
            // Either nothing comes back, or the connection fails.
            if self.choices.chance(500) {
                self.agenda.plan(delay_us, Happening::Fence { fence, round, said: Said::Failed });
            }
            return;
        }
        let answer_is_lost = self.choices.chance(self.loses);
        self.agenda.plan(delay_us, Happening::Fence { fence, round, said: Said::Asked { answer_is_lost } });
    }

    pub(super) fn fence_goes_on(&mut self, fence: usize, round: u32, said: Said) {
        let it = &self.fences[fence];
        if let Said::Asked { answer_is_lost } = said {
            return self.word_asked(fence, round, answer_is_lost);
        }
        if it.over || it.round != round {
            return;
        }
        let is_followed = it.trails.is_some();
        match said {
            Said::Answered { closed } => self.word(fence, closed, true),
            Said::Refused if !is_followed => self.word(fence, false, false),
            Said::Late => self.word(fence, false, false),
            _ if self.agenda.now_us() + PAUSE_US >= it.deadline_us => self.word(fence, false, false),
            _ => {
                // The pause, and the next question.
                self.fences[fence].round += 1;
                let round = self.fences[fence].round;
                let again = Said::Asked { answer_is_lost: self.choices.chance(self.loses) };
                self.agenda.plan(PAUSE_US, Happening::Fence { fence, round, said: again });
                let left_us = self.fences[fence].deadline_us - self.agenda.now_us();
                self.agenda.plan(left_us, Happening::Fence { fence, round, said: Said::Late });
            }
        }
    }

    /// The question is at the peer's port.
    fn word_asked(&mut self, fence: usize, round: u32, answer_is_lost: bool) {
        if !self.peer.alive {
            return self.agenda.plan(50, Happening::Fence { fence, round, said: Said::Refused });
        }
        if self.peer.stopped {
            // The kernel keeps it; whoever asked may have gone away.
            return self.postponed.push(Happening::Fence {
                fence,
                round,
                said: Said::Asked { answer_is_lost },
            });
        }
        let Fence { mark, start, .. } = self.fences[fence];
        let meant = self.peer.start == start && self.kind == Kind::Ours;
        if meant && self.fault != Some(Fault::FalseWord) {
            for number in 0..self.wires.len() {
                let wire = &mut self.wires[number];
                if wire.serving.mark == mark {
                    let before = wire.back.len();
                    wire.close_there(Chunk::Reset);
                    self.plan_back(number, before);
                }
            }
        }
        if answer_is_lost || self.is_cut {
            self.choices.reach("a word is lost");
            return;
        }
        let delay_us = self.choices.pick(&[100, 50_000]);
        self.agenda.plan(delay_us, Happening::Fence { fence, round, said: Said::Answered { closed: meant } });
    }

    /// The end of the question: the peer has confirmed, or has not.
    fn word(&mut self, fence: usize, closed: bool, answered: bool) {
        let it = &mut self.fences[fence];
        if let Some(trails) = it.trails.take() {
            it.over = true;
            if closed {
                self.choices.reach("a trail ends by the peer's word");
                trails.into_iter().for_each(Trail::end);
            }
            return;
        }
        let (mut behind, mut trails) = self.parked.take(it.ticket);
        self.say(|| {
            format!("word of the peer: closed {closed}, answered {answered}, {} WRITEs", behind.len())
        });
        if closed {
            self.send_again(behind.into_iter().map(|(request, _)| request).collect());
            if !trails.is_empty() {
                self.choices.reach("a trail ends by the peer's word");
            }
            trails.into_iter().for_each(Trail::end);
            self.fences[fence].over = true;
            return;
        }
        for (request, _) in &mut behind {
            keep_trail(&mut trails, request);
        }
        self.fail_all(behind);
        if trails.is_empty() {
            self.fences[fence].over = true;
            return;
        }
        let it = &mut self.fences[fence];
        it.trails = Some(trails);
        it.deadline_us = self.agenda.now_us() + FOLLOW_US;
        self.ask_to_close(fence);
    }

    /// Sends requests of a dead lane again.
    pub(super) fn send_again(&mut self, requests: Vec<Request>) {
        self.stale = true;
        if !requests.is_empty() {
            let lane = self.choose();
            self.push(lane, requests);
        }
    }

    /// The lane that has least to do.
    pub(super) fn choose(&self) -> usize {
        (0..self.lanes.len()).min_by_key(|lane| self.cost(*lane)).unwrap_or(0)
    }

    /// Fails requests, and gives the other slices of their tasks up.
    pub(super) fn fail_all(&mut self, failed: Vec<(Request, Error)>) {
        let mut orphans = false;
        for (request, error) in failed {
            orphans |= request.slice().is_some_and(Slice::has_siblings);
            request.fail(error);
        }
        if orphans {
            self.abandon(Slice::is_given_up, &canceled());
        }
    }

    /// A lane has no connection for what waits on it.
    pub(super) fn connect_failed(&mut self, failed: usize, waiting: Vec<Request>, error: Error) {
        self.stale = true;
        let is_up = |lane: &usize| *lane != failed && self.lanes[*lane].machine.connection().is_some();
        let other =
            (0..self.lanes.len()).filter(is_up).min_by_key(|lane| self.lanes[*lane].pipeline.load_bytes());
        match other {
            Some(lane) => self.push(lane, waiting),
            None => self.fail_all(waiting.into_iter().map(|request| (request, error.clone())).collect()),
        }
    }
}
