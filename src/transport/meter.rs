//! Bytes under way and measured bandwidth of a NIC or a rail, for the transports that choose by it.

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
/// parts of the port's rate. Chosen: measurements of equal ports differ by a few per cent, more where batches are short, and
/// one slice in 16 on the wrong rail makes a call longer by as much.
const STEPS: u64 = 8;

/// A single transfer tells how slow a link is if it has at least as many bytes as the port moves in a second divided by
/// this. Chosen: 10 µs, against which its latency is small.
const TELLING: u64 = 100_000;
/// An estimate that nothing confirms grows by a part of so many of the port's rate in each look. Chosen: a rail that was slow
/// and gets no work is tried again within seconds.
const FORGET: u64 = 64;
const GIB: u64 = 1 << 30;

/// Counters that any thread adds to. Threads that meet lose a measurement at the most.
pub struct Meter {
    inflight: AtomicU64,
    /// Bytes per second, smoothed.
    estimate: AtomicU64,
    /// The same, without its noise, and the time that a GiB takes by it: choices multiply with it instead of dividing.
    rate: AtomicU64,
    ns_per_gib: AtomicU64,
    port_rate: u64,
    /// When bytes got under way on an idle link, and what has arrived since.
    began_ns: AtomicU64,
    arrived: AtomicU64,
    /// When bytes got under way on an idle link, or last arrived.
    since_ns: AtomicU64,
    /// Of the measurement under way: busy time, and bytes that arrived in it.
    window_ns: AtomicU64,
    window_bytes: AtomicU64,
    /// `since_ns` at the last look, or up to when an idle link was let grow.
    seen_ns: AtomicU64,
}

impl Meter {
    /// `port_rate` in bytes per second stands for the bandwidth until something was measured.
    pub fn new(port_rate: u64) -> Self {
        let port_rate = port_rate.max(1);
        Meter {
            inflight: AtomicU64::new(0),
            estimate: AtomicU64::new(port_rate),
            rate: AtomicU64::new(port_rate),
            ns_per_gib: AtomicU64::new(billions(GIB, port_rate)),
            port_rate,
            began_ns: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            since_ns: AtomicU64::new(0),
            window_ns: AtomicU64::new(0),
            window_bytes: AtomicU64::new(0),
            seen_ns: AtomicU64::new(0),
        }
    }

    /// The rate assumed at first.
    pub fn port_rate(&self) -> u64 {
        self.port_rate
    }

    /// Bytes posted or waiting.
    pub fn inflight(&self) -> u64 {
        self.inflight.load(Relaxed)
    }

    /// Measured bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        self.estimate.load(Relaxed)
    }

    /// `bytes` are on their way from now on.
    pub fn begin(&self, bytes: u64, now_ns: u64) {
        if self.inflight.fetch_add(bytes, Relaxed) == 0 {
            self.since_ns.store(now_ns, Relaxed);
            self.began_ns.store(now_ns, Relaxed);
            self.arrived.store(0, Relaxed);
        }
    }

    /// `bytes` left without success.
    pub fn withdraw(&self, bytes: u64) {
        self.inflight.fetch_sub(bytes, Relaxed);
    }

    /// `bytes` arrived; at `looked_ns` somebody looked last and found nothing. While there is more to do, the link was busy
    /// since it was last heard of. If there is nothing more, it may have been through long before: it has moved all that came
    /// since it was idle, in that time at the most, and not what came just now before somebody looked.
    pub fn end(&self, bytes: u64, now_ns: u64, looked_ns: u64) {
        let before = self.inflight.fetch_sub(bytes, Relaxed);
        let since = self.since_ns.swap(now_ns, Relaxed);
        let arrived = self.arrived.load(Relaxed) + bytes;
        self.arrived.store(arrived, Relaxed);
        let took = now_ns.saturating_sub(since);
        if before <= bytes {
            let estimate = self.estimate.load(Relaxed);
            let least = billions(arrived, now_ns.saturating_sub(self.began_ns.load(Relaxed)));
            let least = least.min(self.port_rate);
            if least > estimate {
                return self.learn(least);
            }
            let most = billions(bytes, looked_ns.saturating_sub(since));
            if most < estimate / 4 * 3 && bytes >= self.port_rate / TELLING {
                self.learn(most.max(least));
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

    /// Choices go by less than the port's rate.
    #[inline]
    pub fn is_low(&self) -> bool {
        self.rate.load(Relaxed) < self.port_rate
    }

    /// Time has passed. An estimate that is low and was not tried again since the last look grows.
    pub fn forget(&self) {
        let since = self.since_ns.load(Relaxed);
        if self.seen_ns.swap(since, Relaxed) == since {
            self.grow(1);
        }
    }

    /// As [`Meter::forget`] with a look in each `period_ns`, for those who look only when they choose.
    pub fn forget_since(&self, now_ns: u64, period_ns: u64) {
        if self.inflight() > 0 {
            return;
        }
        let seen = self.seen_ns.load(Relaxed);
        let from = self.since_ns.load(Relaxed).max(seen);
        let looks = now_ns.saturating_sub(from) / period_ns.max(1);
        // Of threads that meet one lets it grow.
        let next = from + looks * period_ns;
        if looks > 0 && self.seen_ns.compare_exchange(seen, next, Relaxed, Relaxed).is_ok() {
            self.grow(looks.min(FORGET));
        }
    }

    fn grow(&self, looks: u64) {
        let estimate = self.estimate.load(Relaxed);
        if estimate < self.port_rate && self.inflight() == 0 {
            let more = (self.port_rate / FORGET).saturating_mul(looks);
            self.adopt(estimate.saturating_add(more).min(self.port_rate));
        }
    }

    fn learn(&self, measured: u64) {
        let smooth = (self.estimate.load(Relaxed) / 2).saturating_add(measured / 2);
        self.adopt(smooth.max(self.port_rate / FLOOR).max(1));
    }

    fn adopt(&self, estimate: u64) {
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
    pub fn cost_ns(&self, bytes: u64) -> u64 {
        let queued = u128::from(self.inflight().saturating_add(bytes));
        ((queued * u128::from(self.ns_per_gib.load(Relaxed))) >> 30) as u64
    }

    /// Bytes that it moves in a millisecond.
    #[inline]
    pub fn bytes_per_ms(&self) -> u64 {
        self.rate.load(Relaxed) / 1000
    }
}

/// Bytes per second, if `bytes` take so many nanoseconds; or nanoseconds, at so many bytes per second.
fn billions(bytes: u64, by: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(by.max(1))).unwrap_or(u64::MAX)
}

/// Small rates are left as they are: there a step is too much. A rate a little above the port's is the port's, because no
/// port is faster than it says; more means that it does not know.
fn rounded(rate: u64, port_rate: u64) -> u64 {
    let step = (port_rate / STEPS).max(1);
    match rate / step {
        0 | 1 => rate,
        steps if (STEPS..STEPS + 2).contains(&steps) => port_rate,
        _ => rate.saturating_add(step / 2) / step * step,
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
            meter.end(2_000_000, now, 0);
            meter.withdraw(1);
            now += 1_000_000_000;
        }
        let rate = meter.bytes_per_second();
        assert!((199_000_000..202_000_000).contains(&rate), "{rate}");
        assert_eq!(meter.inflight(), 0);
        let cost = meter.cost_ns(200_000_000);
        assert!((900_000_000..1_100_000_000).contains(&cost), "{cost}");
    }

    #[test]
    fn a_rail_at_the_rate_of_its_port_is_not_low() {
        let meter = Meter::new(1_000_000_000);
        assert!(!meter.is_low());
        meter.begin(200_000_000, 0);
        meter.begin(1, 0);
        meter.end(200_000_000, 1_000_000_000, 0);
        assert!(meter.is_low());
    }

    /// Nobody looked before the transfer was through, or somebody looks all the time.
    const RARELY: fn(u64) -> u64 = |_| 0;
    const OFTEN: fn(u64) -> u64 = |now| now - 100;

    /// Batch by batch, each shorter than a measurement, and idle in between.
    fn batches(meter: &Meter, now: &mut u64, rate: u64, slices: u64, slice: u64, looked: fn(u64) -> u64) {
        for _ in 0..64 {
            meter.begin(slices * slice, *now);
            for _ in 0..slices {
                *now += slice * 1_000_000_000 / rate;
                meter.end(slice, *now, looked(*now));
            }
            *now += 300_000;
        }
    }

    #[test]
    fn p28_short_batches_are_measured_too() {
        let (meter, mut now) = (Meter::new(50_000_000_000), 0);
        batches(&meter, &mut now, 5_000_000_000, 2, 1 << 20, RARELY);
        let rate = meter.bytes_per_second();
        assert!((4_900_000_000..5_100_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_rail_that_has_one_slice_at_a_time_is_slow_if_somebody_looked_and_is_seen_to_recover() {
        let (meter, mut now) = (Meter::new(50_000_000_000), 0);
        batches(&meter, &mut now, 5_000_000_000, 1, 1 << 20, RARELY);
        assert_eq!(meter.bytes_per_second(), 50_000_000_000);
        batches(&meter, &mut now, 2_000_000_000, 1, 4096, OFTEN);
        assert_eq!(meter.bytes_per_second(), 50_000_000_000, "that is latency");
        batches(&meter, &mut now, 5_000_000_000, 1, 1 << 20, OFTEN);
        assert!(meter.bytes_per_second() < 7_000_000_000);
        batches(&meter, &mut now, 48_000_000_000, 1, 1 << 20, RARELY);
        assert!(meter.bytes_per_second() > 40_000_000_000);
    }

    #[test]
    fn what_is_found_together_at_the_end_does_not_look_fast() {
        let (meter, mut now) = (Meter::new(1_250_000_000), 0);
        for _ in 0..64 {
            meter.begin(8 << 20, now);
            // Two queue pairs, found by one look each time, at 100 MB/s.
            for _ in 0..8 {
                now += 10 * (1 << 20);
                meter.end(1 << 19, now, now - 100);
                meter.end(1 << 19, now + 500, now - 100);
            }
            now += 1_000_000;
        }
        let rate = meter.bytes_per_second();
        assert!((95_000_000..107_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_slow_rail_that_gets_no_work_is_tried_again() {
        let (meter, mut now) = (Meter::new(50_000_000_000), 0);
        batches(&meter, &mut now, 5_000_000_000, 8, 1 << 20, RARELY);
        let slow = meter.bytes_per_second();
        meter.forget();
        assert_eq!(meter.bytes_per_second(), slow, "it was just measured");
        meter.begin(1, now);
        (0..100).for_each(|_| meter.forget());
        assert_eq!(meter.bytes_per_second(), slow, "it has work");
        meter.withdraw(1);
        (0..100).for_each(|_| meter.forget());
        assert_eq!(meter.bytes_per_second(), 50_000_000_000);
        assert_eq!(meter.cost_ns(50_000_000), Meter::new(50_000_000_000).cost_ns(50_000_000));
    }

    #[test]
    fn a_slow_rail_grows_by_the_time_in_which_it_had_no_work_however_late_somebody_looks() {
        const SECOND: u64 = 1_000_000_000;
        let (meter, mut now) = (Meter::new(64_000_000_000), 0);
        batches(&meter, &mut now, 5_000_000_000, 8, 1 << 20, RARELY);
        let slow = meter.bytes_per_second();
        meter.forget_since(now + SECOND / 2, SECOND);
        assert_eq!(meter.bytes_per_second(), slow, "it was just measured");
        meter.begin(1, now);
        meter.forget_since(now + 9 * SECOND, SECOND);
        assert_eq!(meter.bytes_per_second(), slow, "it has work");
        meter.withdraw(1);
        let now = now + 9 * SECOND;
        meter.begin(1, now);
        meter.withdraw(1);
        meter.forget_since(now + 5 * SECOND / 2, SECOND);
        assert_eq!(meter.bytes_per_second(), slow + 2_000_000_000);
        meter.forget_since(now + 5 * SECOND / 2, SECOND);
        assert_eq!(meter.bytes_per_second(), slow + 2_000_000_000, "once for each second");
        meter.forget_since(now + 3 * SECOND, SECOND);
        assert_eq!(meter.bytes_per_second(), slow + 3_000_000_000);
        meter.forget_since(now + 1000 * SECOND, SECOND);
        assert_eq!(meter.bytes_per_second(), 64_000_000_000);
    }

    #[test]
    fn equal_ports_stay_equal_in_spite_of_noise() {
        let meters = [Meter::new(50_000_000_000), Meter::new(50_000_000_000)];
        for (meter, rate) in meters.iter().zip([49_900_000_000, 48_500_000_000]) {
            batches(meter, &mut 0, rate, 16, 1 << 20, RARELY);
        }
        assert!(meters[0].bytes_per_second() > meters[1].bytes_per_second());
        assert_eq!(meters[0].cost_ns(1 << 30), meters[1].cost_ns(1 << 30));
        // Completions of some time that are found together look like more than there can be.
        batches(&meters[0], &mut 0, 57_000_000_000, 16, 1 << 20, RARELY);
        assert!(meters[0].bytes_per_second() > 56_000_000_000);
        assert_eq!(meters[0].cost_ns(1 << 30), meters[1].cost_ns(1 << 30));
    }

    #[test]
    fn rates_are_multiples_of_an_eighth_but_for_small_ones_and_those_about_the_ports() {
        for (rate, expected) in
            [(5, 5), (199, 199), (270, 300), (740, 700), (760, 800), (800, 800), (990, 800), (1010, 1000)]
        {
            assert_eq!(rounded(rate, 800), expected, "{rate}");
        }
    }
}
