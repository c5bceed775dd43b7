//! Bytes under way and measured bandwidth of a NIC or a rail.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shortest time that is measured, ns. Chosen: long enough for several slices even at 1 Gbit/s, short enough to follow
/// a rail that slows down.
const WINDOW_NS: u64 = 2_000_000;
/// The estimate never falls below the port's rate divided by this. Chosen: a slow rail gets hardly any work, but some,
/// by which its recovery is seen.
const FLOOR: u64 = 256;

/// Counters that any thread adds to.
pub(super) struct Meter {
    inflight: AtomicU64,
    /// Bytes per second, smoothed.
    rate: AtomicU64,
    port_rate: u64,
    window_start_ns: AtomicU64,
    window_bytes: AtomicU64,
}

impl Meter {
    /// `port_rate` in bytes per second stands for the bandwidth until something was measured.
    pub(super) fn new(port_rate: u64) -> Self {
        let port_rate = port_rate.max(1);
        Meter {
            inflight: AtomicU64::new(0),
            rate: AtomicU64::new(port_rate),
            port_rate,
            window_start_ns: AtomicU64::new(0),
            window_bytes: AtomicU64::new(0),
        }
    }

    /// The rate assumed at first.
    pub(super) fn port_rate(&self) -> u64 {
        self.port_rate
    }

    /// Bytes posted or waiting.
    pub(super) fn inflight(&self) -> u64 {
        self.inflight.load(Relaxed)
    }

    /// Measured bytes per second.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// `bytes` are on their way from now on.
    pub(super) fn begin(&self, bytes: u64, now_ns: u64) {
        if self.inflight.fetch_add(bytes, Relaxed) == 0 {
            self.window_start_ns.store(now_ns, Relaxed);
            self.window_bytes.store(0, Relaxed);
        }
    }

    /// `bytes` left without success.
    pub(super) fn withdraw(&self, bytes: u64) {
        self.inflight.fetch_sub(bytes, Relaxed);
    }

    /// `bytes` arrived. Measures only while there is more to do: the rate of an idle link says nothing.
    pub(super) fn end(&self, bytes: u64, now_ns: u64) {
        let before = self.inflight.fetch_sub(bytes, Relaxed);
        self.window_bytes.fetch_add(bytes, Relaxed);
        let start = self.window_start_ns.load(Relaxed);
        let took = now_ns.saturating_sub(start);
        if took < WINDOW_NS || before <= bytes {
            return;
        }
        // Of several threads one closes the window.
        if self.window_start_ns.compare_exchange(start, now_ns, Relaxed, Relaxed).is_ok() {
            // Swapped, not subtracted: `begin` may have cleared it meanwhile.
            let moved = self.window_bytes.swap(0, Relaxed);
            let measured = (u128::from(moved) * 1_000_000_000 / u128::from(took)) as u64;
            let smooth = (self.rate.load(Relaxed) / 4 * 3).saturating_add(measured / 4);
            self.rate.store(smooth.max(self.port_rate / FLOOR).max(1), Relaxed);
        }
    }

    /// Time until `bytes` more would be through, ns: what makes one rail a better choice than another.
    pub(super) fn cost_ns(&self, bytes: u64) -> u64 {
        let queued = u128::from(self.inflight().saturating_add(bytes)) * 1_000_000_000;
        (queued / u128::from(self.bytes_per_second())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p28_the_estimate_follows_the_rate_while_busy_and_ignores_idle_time() {
        let meter = Meter::new(1_000_000_000);
        let mut now = 0;
        for _ in 0..64 {
            meter.begin(2_000_000, now);
            meter.begin(1, now);
            now += 10_000_000;
            // 2 MB in 10 ms.
            meter.end(2_000_000, now);
            meter.withdraw(1);
            now += 1_000_000_000;
        }
        let rate = meter.bytes_per_second();
        assert!((199_000_000..202_000_000).contains(&rate), "{rate}");
        assert_eq!(meter.inflight(), 0);
        let cost = meter.cost_ns(200_000_000);
        assert!((900_000_000..1_100_000_000).contains(&cost), "{cost}");
    }
}
