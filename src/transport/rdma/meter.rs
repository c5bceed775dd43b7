//! Bytes under way and measured bandwidth of a NIC or a rail.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A measurement takes at least that long, ns, and as many bytes; or, where they take longer, [`LONG_NS`]. Chosen: a call of
/// 128 MiB over eight ports of 400 Gbit/s, 0.3 ms, is measured more than once, and several chains of work requests count.
const SHORT_NS: u64 = 50_000;
const ENOUGH: u64 = 4 << 20;
/// Chosen: several slices even at 1 Gbit/s, and short enough to follow a rail that slows down.
const LONG_NS: u64 = 2_000_000;
/// The estimate never falls below the port's rate divided by this. Chosen: a slow rail gets hardly any work, but some,
/// by which its recovery is seen.
const FLOOR: u64 = 256;
/// What choices go by changes when the estimate differs by more than a part of so many, and is then a multiple of so many
/// parts of the port's rate. Chosen: measurements of equal ports differ by 1 or 2 %, and one slice in 64 on the wrong rail
/// makes a call longer by as much.
const STEPS: u64 = 16;

const GIB: u64 = 1 << 30;

/// Counters that any thread adds to. Threads that meet lose a measurement at the most.
pub(super) struct Meter {
    inflight: AtomicU64,
    /// Bytes per second, smoothed.
    estimate: AtomicU64,
    /// The same, without its noise, and the time that a GiB takes by it: choices multiply with it instead of dividing.
    rate: AtomicU64,
    ns_per_gib: AtomicU64,
    port_rate: u64,
    /// When bytes got under way on an idle link, or last arrived.
    since_ns: AtomicU64,
    /// Of the measurement under way: busy time, and bytes that arrived in it.
    window_ns: AtomicU64,
    window_bytes: AtomicU64,
}

impl Meter {
    /// `port_rate` in bytes per second stands for the bandwidth until something was measured.
    pub(super) fn new(port_rate: u64) -> Self {
        let port_rate = port_rate.max(1);
        Meter {
            inflight: AtomicU64::new(0),
            estimate: AtomicU64::new(port_rate),
            rate: AtomicU64::new(port_rate),
            ns_per_gib: AtomicU64::new(billions(GIB, port_rate)),
            port_rate,
            since_ns: AtomicU64::new(0),
            window_ns: AtomicU64::new(0),
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
        self.estimate.load(Relaxed)
    }

    /// `bytes` are on their way from now on.
    pub(super) fn begin(&self, bytes: u64, now_ns: u64) {
        if self.inflight.fetch_add(bytes, Relaxed) == 0 {
            self.since_ns.store(now_ns, Relaxed);
        }
    }

    /// `bytes` left without success.
    pub(super) fn withdraw(&self, bytes: u64) {
        self.inflight.fetch_sub(bytes, Relaxed);
    }

    /// `bytes` arrived. While there is more to do, the link was busy since it was last heard of. If there is nothing more,
    /// nobody knows when it was really through: then it was at least as fast as it seems.
    pub(super) fn end(&self, bytes: u64, now_ns: u64) {
        let before = self.inflight.fetch_sub(bytes, Relaxed);
        let took = now_ns.saturating_sub(self.since_ns.swap(now_ns, Relaxed));
        if before <= bytes {
            let least = billions(bytes, took);
            if least > self.estimate.load(Relaxed) {
                self.learn(least.min(self.port_rate));
            }
            return;
        }
        let moved = self.window_bytes.load(Relaxed) + bytes;
        let busy_ns = self.window_ns.load(Relaxed) + took;
        let is_enough = moved >= ENOUGH && busy_ns >= SHORT_NS || busy_ns >= LONG_NS;
        self.window_bytes.store(if is_enough { 0 } else { moved }, Relaxed);
        self.window_ns.store(if is_enough { 0 } else { busy_ns }, Relaxed);
        if is_enough {
            self.learn(billions(moved, busy_ns));
        }
    }

    fn learn(&self, measured: u64) {
        let smooth = (self.estimate.load(Relaxed) / 2).saturating_add(measured / 2);
        let estimate = smooth.max(self.port_rate / FLOOR).max(1);
        self.estimate.store(estimate, Relaxed);
        let rate = self.rate.load(Relaxed);
        if estimate.abs_diff(rate) > rate / STEPS {
            let rate = rounded(estimate, self.port_rate);
            self.rate.store(rate, Relaxed);
            self.ns_per_gib.store(billions(GIB, rate), Relaxed);
        }
    }

    /// Time until `bytes` more would be through, ns: what makes one rail a better choice than another.
    #[inline]
    pub(super) fn cost_ns(&self, bytes: u64) -> u64 {
        let queued = u128::from(self.inflight().saturating_add(bytes));
        ((queued * u128::from(self.ns_per_gib.load(Relaxed))) >> 30) as u64
    }

    /// Bytes that it moves within `ns`.
    pub(super) fn bytes_within(&self, ns: u64) -> u64 {
        (u128::from(self.rate.load(Relaxed)) * u128::from(ns) / 1_000_000_000) as u64
    }
}

/// Bytes per second, if `bytes` take so many nanoseconds; or nanoseconds, at so many bytes per second.
fn billions(bytes: u64, by: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(by.max(1))).unwrap_or(u64::MAX)
}

/// Small rates are left as they are: there a step is too much.
fn rounded(rate: u64, port_rate: u64) -> u64 {
    let step = (port_rate / STEPS).max(1);
    match rate / step < 4 {
        true => rate,
        false => rate.saturating_add(step / 2) / step * step,
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

    /// Batch by batch, each shorter than a measurement, and idle in between.
    fn batches(meter: &Meter, now: &mut u64, rate: u64, slices: u64, slice: u64) {
        for _ in 0..64 {
            meter.begin(slices * slice, *now);
            for _ in 0..slices {
                *now += slice * 1_000_000_000 / rate;
                meter.end(slice, *now);
            }
            *now += 300_000;
        }
    }

    #[test]
    fn p28_short_batches_are_measured_too() {
        let (meter, mut now) = (Meter::new(50_000_000_000), 0);
        batches(&meter, &mut now, 5_000_000_000, 2, 1 << 20);
        let rate = meter.bytes_per_second();
        assert!((4_900_000_000..5_100_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_rail_that_has_one_slice_at_a_time_is_seen_to_recover_but_not_to_be_slow() {
        let (meter, mut now) = (Meter::new(50_000_000_000), 0);
        // Perhaps nobody looked for the completion earlier.
        batches(&meter, &mut now, 5_000_000_000, 1, 1 << 20);
        assert_eq!(meter.bytes_per_second(), 50_000_000_000);
        batches(&meter, &mut now, 5_000_000_000, 8, 1 << 20);
        assert!(meter.bytes_per_second() < 6_000_000_000);
        batches(&meter, &mut now, 48_000_000_000, 1, 1 << 20);
        assert!(meter.bytes_per_second() > 40_000_000_000);
    }

    #[test]
    fn equal_ports_stay_equal_in_spite_of_noise() {
        let meters = [Meter::new(50_000_000_000), Meter::new(50_000_000_000)];
        for (meter, rate) in meters.iter().zip([49_900_000_000, 48_500_000_000]) {
            batches(meter, &mut 0, rate, 16, 1 << 20);
        }
        assert!(meters[0].bytes_per_second() > meters[1].bytes_per_second());
        assert_eq!(meters[0].cost_ns(1 << 30), meters[1].cost_ns(1 << 30));
    }
}
