//! What time changes on a rail, on the thread of its NIC.

use super::*;

impl Rail {
    /// Traffic that goes elsewhere, because this rail failed, would use it again.
    pub(in super::super) fn want(&self, route: &Arc<dyn Route>) {
        // Once between two looks: this is the data path.
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
            self.state.lock().route = Some(Arc::downgrade(route));
        }
    }

    /// Time has passed. For the NIC thread.
    pub(in super::super) fn tick(&self, now_ms: u64) {
        if self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(false, Ordering::Relaxed);
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
        self.meter.forget();
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        self.feed(Event::Tick { waiting: self.has_waiting(), used_ms });
    }

    /// Whether time changes something here, so that it is to be looked at again.
    pub(in super::super) fn has_to_tick(&self) -> bool {
        self.has_waiting() || self.meter.is_low() || !self.state.lock().machine.is_settled()
    }
}
