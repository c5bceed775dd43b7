//! Notifications that peers sent, until the caller fetches them.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::config::Config;
use crate::handshake::Notification;

/// A bounded queue. Any thread.
pub struct Notifications {
    /// Guards the queue; never held across I/O.
    queue: Mutex<Queue>,
    most: usize,
    most_bytes: usize,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Notification>,
    /// Those that were put back, the oldest first: they are older than `messages`.
    returned: VecDeque<VecDeque<Notification>>,
    /// Text in `messages`.
    bytes: usize,
}

impl Notifications {
    /// An empty queue, as long as the settings allow.
    pub fn new(config: &Config) -> Self {
        Notifications {
            queue: Mutex::default(),
            most: config.notify_queue_max,
            most_bytes: config.notify_queue_bytes,
        }
    }

    /// Adds one; `false` if there is no room for it.
    pub fn add(&self, notification: Notification) -> bool {
        let mut queue = self.queue.lock();
        let bytes = queue.bytes.saturating_add(text_bytes(&notification));
        let returned: usize = queue.returned.iter().map(VecDeque::len).sum();
        let full = queue.messages.len() + returned >= self.most || bytes > self.most_bytes;
        if full || queue.messages.try_reserve(1).is_err() {
            return false;
        }
        queue.bytes = bytes;
        queue.messages.push_back(notification);
        true
    }

    /// Takes every one; if some were put back, those only.
    pub fn take(&self) -> VecDeque<Notification> {
        let mut queue = self.queue.lock();
        let taken = queue.returned.pop_front().unwrap_or_else(|| std::mem::take(&mut queue.messages));
        queue.bytes -= taken.iter().map(text_bytes).sum::<usize>();
        taken
    }

    /// Puts some back in front, after the caller could not be given them. The lists are not joined: there is no memory.
    pub fn put_back(&self, taken: VecDeque<Notification>) {
        let mut queue = self.queue.lock();
        queue.bytes += taken.iter().map(text_bytes).sum::<usize>();
        queue.returned.push_front(taken);
    }
}

fn text_bytes(notification: &Notification) -> usize {
    notification.name.len() + notification.message.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p39_the_notification_queue_is_bounded() {
        let config = Config { notify_queue_max: 2, notify_queue_bytes: 100, ..Config::default() };
        let queue = Notifications::new(&config);
        let note = |name: &str| Notification { name: name.into(), message: String::new() };
        assert!(queue.add(note("a")) && queue.add(note("b")) && !queue.add(note("c")));
        let taken = queue.take();
        assert!(queue.add(note("c")));
        queue.put_back(taken);
        assert!(!queue.add(note("d")), "those that were put back count too");
        let names = || queue.take().into_iter().map(|n| n.name).collect::<Vec<_>>();
        assert_eq!((names(), names()), (vec!["a".into(), "b".into()], vec!["c".to_string()]));
        assert!(names().is_empty());
        let large = Notification { name: "x".into(), message: "y".repeat(config.notify_queue_bytes) };
        assert!(!queue.add(large) && queue.add(note("d")));
    }
}
