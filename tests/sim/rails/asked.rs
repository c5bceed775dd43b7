//! The side that is asked: connection requests of the peer, its word that it is ready, and ends that it gives up. The order of the
//! steps is that of `accept.rs`.

use super::super::{By, Event};
use super::jobs::{Answer, Job, Kind, Question, Step};
use super::nic::State;
use super::world::{Happens, World};
use super::Fault;

impl World<'_> {
    /// As `accept::answer` does it.
    pub(super) fn answer(&mut self, side: usize, asked: u32, question: Question) {
        let own = self.hosts[side].incarnation;
        let is_for_other = |to: u64| to != own && self.fault != Some(Fault::AnyIncarnation);
        match question {
            Question::Descriptor => self.send_answer(side, asked, Answer::Incarnation(own)),
            Question::Withdraw { pair } => {
                let ends = (1..=self.pairs.len() as u32).filter(|end| {
                    let end = &self.pairs[*end as usize - 1];
                    (end.side, end.epoch) == (side, self.hosts[side].epoch) && end.peer == Some(pair)
                });
                for end in ends.collect::<Vec<_>>() {
                    self.feed(side, Event::Interrupted(end, "the peer gave it up"));
                    match self.fault == Some(Fault::LateWithdrawal) {
                        true => self.plan(5_000_000, Happens::Stop(end)),
                        false => self.stop_pair(end),
                    }
                }
                self.send_answer(side, asked, Answer::Incarnation(own));
            }
            _ if !self.hosts[side].port_up => self.send_answer(side, asked, Answer::Refused("inactive")),
            Question::Connect { to, .. } | Question::Ready { to, .. } if is_for_other(to) => {
                self.choices.reach("a successor is asked");
                self.send_answer(side, asked, Answer::Refused("stale"));
            }
            Question::Ready { pair, .. } => {
                let connection = self.hosts[side].machine.connection().copied();
                let known = connection.filter(|known| self.pair(*known).peer == Some(pair));
                match known {
                    Some(known) => {
                        if self.fault != Some(Fault::NoReady) {
                            self.feed(side, Event::Ready(known));
                        }
                        self.send_answer(side, asked, Answer::Done);
                    }
                    None => self.send_answer(side, asked, Answer::Refused("no connection")),
                }
            }
            Question::Connect { pair, own, number, .. } => {
                let kind = Kind::Join { asked, to_pair: pair, incarnation: own, number };
                self.begin(side, Job::new(kind));
            }
        }
    }

    pub(super) fn join(
        &mut self,
        id: u32,
        side: usize,
        step: Step,
        pair: Option<u32>,
        request: (u32, u32, u64, u64),
    ) {
        let (asked, theirs, incarnation, number) = request;
        match step {
            Step::Begin => self.lock(side, id, Step::Locked),
            Step::Locked => {
                let admits = self.hosts[side].asked.admits(incarnation, Some(number));
                let current = self.hosts[side].machine.connection().copied();
                let current = current.filter(|current| self.pair(*current).state == State::Open);
                let is_to = current.is_some_and(|current| self.pair(current).peer == Some(theirs));
                if !admits && !is_to && self.fault != Some(Fault::AnyOrder) {
                    self.choices.reach("a request is overtaken");
                    self.unlock(side, id);
                    return self.send_answer(side, asked, Answer::Refused("no connection"));
                }
                match current.map(|current| (current, self.pair(current).peer)) {
                    Some((current, Some(known))) if known == theirs => {
                        self.unlock(side, id);
                        return self.answer_with(side, asked, current);
                    }
                    Some((current, Some(_))) if self.fault == Some(Fault::KeepsOld) => {
                        self.unlock(side, id);
                        return self.answer_with(side, asked, current);
                    }
                    Some((current, Some(known))) => {
                        // Which of two engines is the later one nobody can tell.
                        let is_same = self.pair(current).incarnation == incarnation;
                        assert!(
                            !is_same || known < theirs,
                            "a connection makes room for one that was given up"
                        );
                        self.choices.reach("the peer connects anew");
                        self.feed(side, Event::Interrupted(current, "the peer connected anew"));
                        self.give_up(current);
                    }
                    Some((current, None)) => {
                        self.choices.reach("both ask at once");
                        self.jobs[id as usize].pair = Some(current);
                        return self.driver(id, Step::Connected);
                    }
                    None => {}
                }
                self.driver(id, Step::Made);
            }
            Step::Made => {
                let made = self.open_pair(side);
                self.feed(side, Event::Made { connection: made, by: By::Peer });
                if self.hosts[side].machine.connection() != Some(&made) {
                    self.unlock(side, id);
                    return self.send_answer(side, asked, Answer::Refused("busy"));
                }
                self.jobs[id as usize].pair = Some(made);
                self.driver(id, Step::Connected);
            }
            Step::Connected => {
                let Some(ours) = pair else { return };
                if self.pair(ours).state != State::Open {
                    self.feed(side, Event::Interrupted(ours, "the queue pair is gone"));
                    self.unlock(side, id);
                    return self.send_answer(side, asked, Answer::Refused("busy"));
                }
                self.pair(ours).peer = Some(theirs);
                self.pair(ours).incarnation = incarnation;
                self.feed(side, Event::Accepted(ours));
                self.unlock(side, id);
                self.answer_with(side, asked, ours);
            }
            Step::Asked | Step::Connect | Step::Ready => unreachable!("steps of attempts"),
        }
    }

    fn answer_with(&mut self, side: usize, asked: u32, pair: u32) {
        let requests = self.hosts[side].requests;
        self.send_answer(side, asked, Answer::Pair(pair, requests));
    }
}
