//! The links of an installed transport, which segments own: who has to hear that a region is revoked, and that the end comes.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::{Class, Code, Error};

/// The links that are still there.
pub struct Links<L>(Mutex<State<L>>);

/// Guards the links; dead ones are swept when one is added.
struct State<L> {
    stopped: bool,
    live: Vec<Weak<L>>,
}

impl<L> Default for Links<L> {
    fn default() -> Self {
        Links(Mutex::new(State { stopped: false, live: Vec::new() }))
    }
}

impl<L> Links<L> {
    /// From now on `link` is one of them. `false`: the transport was stopped, and whoever adds the link closes it.
    #[must_use]
    pub fn add(&self, link: &Arc<L>) -> bool {
        let mut state = self.0.lock();
        state.live.retain(|link| link.strong_count() > 0);
        state.live.push(Arc::downgrade(link));
        !state.stopped
    }

    /// All of them.
    pub fn live(&self) -> Vec<Arc<L>> {
        self.0.lock().live.iter().filter_map(Weak::upgrade).collect()
    }

    /// The transport is stopped: from now on links are closed as they are made. Those that are there are still to be.
    pub fn stop(&self) -> Vec<Arc<L>> {
        self.0.lock().stopped = true;
        self.live()
    }
}

/// What requests fail with when the engine goes away.
pub fn stopping() -> Error {
    Error::new(Code::Socket, "the engine is being destroyed").permanent(Class::Canceled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(links: Vec<Arc<u32>>) -> Vec<u32> {
        links.iter().map(|link| **link).collect()
    }

    #[test]
    fn links_are_known_until_they_are_gone() {
        let links = Links::default();
        let (one, other) = (Arc::new(1), Arc::new(2));
        assert!(links.add(&one) && links.add(&other));
        assert_eq!(numbers(links.live()), [1, 2]);
        drop(other);
        assert_eq!(numbers(links.live()), [1]);
        let third = Arc::new(3);
        assert!(links.add(&third));
        assert_eq!(links.0.lock().live.len(), 2, "the dead one was swept");
    }

    #[test]
    fn each_link_hears_of_the_end_also_one_that_is_made_after_it() {
        let links = Links::default();
        let early = Arc::new(1);
        assert!(links.add(&early));
        assert_eq!(numbers(links.stop()), [1]);
        let late = Arc::new(2);
        assert!(!links.add(&late));
        assert_eq!(numbers(links.stop()), [1, 2]);
    }
}
