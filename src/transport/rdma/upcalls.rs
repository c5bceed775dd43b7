//! The answers to what rails ask of the transport ([`Keeper`]); they come from files above the rails.

use std::sync::Arc;

use super::connect;
use super::connection::Connection;
use super::flight::{Flight, Keys, Lost};
use super::rail::events::Attempt;
use super::rail::{Keeper, Rail};
use super::recover::hand_back;
use super::route::Route;
use super::shared::Shared;
use crate::error::Error;

impl Keeper for Shared {
    fn now_ms(&self) -> u64 {
        self.now_ms()
    }

    fn random(&self) -> u32 {
        self.random()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped()
    }

    fn route(&self, link: u32) -> Option<Arc<dyn Route>> {
        self.link(link).map(|link| link.route().clone())
    }

    fn connect(&self, rail: Arc<Rail>, attempt: Attempt, route: Arc<dyn Route>) {
        if let Some(me) = self.me.get().and_then(std::sync::Weak::upgrade) {
            connect::start(me, rail, attempt, route);
        }
    }

    fn recover(&self, rail: &Rail, lost: Lost, cause: Option<Error>, keys: Keys) {
        hand_back(self, rail, lost, cause, keys);
    }

    fn give_up(&self, connection: &Arc<Connection>, cause: Error) {
        // The rail lets go of it now. What was posted on it comes back later, and the peer has to give its end up first.
        connection.queues.iter().for_each(|queue| queue.hold(connection.clone()));
        let take = |queue| self.destroyer.take(queue, Some(connection.clone()), None);
        match self.is_stopped() {
            // Flush completions are not waited for, and a thread has no time to ask the driver for them.
            true => connection.queues.iter().for_each(take),
            false => connection.stop(cause, self.now_ms()).into_iter().for_each(take),
        }
    }

    fn fail(&self, flights: Box<dyn Iterator<Item = Flight> + Send>, error: &Error) {
        self.destroyer.fail(flights, error);
    }

    fn disconnected(&self, rail: &Rail) {
        self.rails(&rail.nic).disconnected(rail);
    }

    fn look_again(&self, rail: &Rail) {
        self.rails(&rail.nic).restless.call_me(rail, rail.me());
    }

    fn starves(&self, rail: &Rail) {
        self.rails(&rail.nic).starving.call_me(rail, rail.me());
    }

    fn note_failure(&self, rail: &Rail, error: &Error) {
        self.note_failure(rail, error);
    }
}
