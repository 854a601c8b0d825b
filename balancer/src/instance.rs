//! One instance as all cores of this balancer know it: counters, written without a lock.

use crossbeam_utils::CachePadded;
use domain::{InstanceId, Mono};
use picker::{Latency, Outcomes};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What all cores of this balancer know of one instance from their own requests. Numbers are
/// written without a lock; a lost update of a decayed count costs nothing.
#[derive(Debug, Default)]
struct Seen {
    in_flight: AtomicU32,
    /// Requests that only wait for their clients, and are not among those in flight.
    aside: AtomicU32,
    kernel_flows: AtomicU32,
    failures_in_row: AtomicU32,
    window_ok: AtomicU32,
    window_total: AtomicU32,
    /// Decayed counts: ok in the high half, total in the low one, as single-precision bits.
    counts: AtomicU64,
    /// The weighted run of failures, as single-precision bits.
    failures: AtomicU32,
    latency: AtomicU32,
    last_outcome: AtomicU64,
    last_picked: AtomicU64,
    picked: AtomicU64,
    answered: AtomicU64,
    heard: AtomicU64,
    heard_at: AtomicU64,
    heard_own: AtomicU32,
    /// The last answer to a probe: requests in flight in the high half, latency in the low one, as
    /// single-precision bits.
    probed: AtomicU64,
    probed_at: AtomicU64,
    /// Averages of latency by requests in flight, single-precision seconds; 0: none yet.
    latencies: [AtomicU32; LATENCIES],
}

/// Averages of latency kept: 0 requests in flight, 1 and 2, 3 to 6, and so on, 127 and more.
const LATENCIES: usize = 8;
/// The part of a new answer in them.
const LATENCY_PART: f64 = 0.125;

/// One instance, shared by all cores.
#[derive(Debug)]
pub struct Instance {
    /// Which one.
    pub id: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
    /// A number of this process that no other instance has or had.
    pub serial: u64,
    /// What it is hashed by: the same in every balancer, and whatever comes and goes.
    pub key: u64,
    seen: CachePadded<Seen>,
    /// A load that came in an answer's header and waits to be recorded, packed by `orca`; 0: none.
    pub header_load: AtomicU64,
}

/// Microseconds of this process.
pub fn micros(at: Mono) -> u64 {
    u64::try_from(at.0.as_micros()).unwrap_or(u64::MAX)
}

/// The moment of a count of [`micros`].
pub fn mono(micros: u64) -> Mono {
    Mono(Duration::from_micros(micros))
}

#[expect(clippy::cast_possible_truncation, reason = "estimates need no more than single precision")]
fn narrow(x: f64) -> u32 {
    (x as f32).to_bits()
}

fn widen(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

impl Instance {
    /// An instance about which nothing is known yet.
    #[must_use]
    pub fn new(id: InstanceId, address: SocketAddr, serial: u64) -> Instance {
        Instance {
            key: picker::hash::key(id.as_str().as_bytes()),
            id,
            address,
            serial,
            seen: CachePadded::new(Seen::default()),
            header_load: AtomicU64::new(0),
        }
    }

    /// Counts a request that is about to go there; false, and not counted, when another core took
    /// the last place in the meantime.
    #[must_use]
    pub fn enter(&self, max_in_flight: u32, now: Mono) -> bool {
        let kernel = self.seen.kernel_flows.load(Relaxed);
        if self.seen.in_flight.fetch_add(1, Relaxed).saturating_add(kernel) >= max_in_flight {
            self.seen.in_flight.fetch_sub(1, Relaxed);
            return false;
        }
        self.seen.last_picked.store(micros(now), Relaxed);
        self.seen.picked.store(self.picked().wrapping_add(1), Relaxed);
        true
    }

    /// Counts a request that is over, however it ended.
    pub fn leave(&self) {
        self.seen.in_flight.fetch_sub(1, Relaxed);
    }

    /// A request only waits for its client from now on: it takes no place any more, as long as at
    /// most `most` are so. False: it keeps its place.
    #[must_use]
    pub fn step_aside(&self, most: u32) -> bool {
        if self.seen.aside.fetch_add(1, Relaxed) >= most {
            self.seen.aside.fetch_sub(1, Relaxed);
            return false;
        }
        self.leave();
        true
    }

    /// Counts a request that had stepped aside and is over.
    pub fn leave_aside(&self) {
        self.seen.aside.fetch_sub(1, Relaxed);
    }

    /// Requests that stepped aside.
    #[must_use]
    pub fn aside(&self) -> u32 {
        self.seen.aside.load(Relaxed)
    }

    /// This balancer's requests there now, without those that stepped aside.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.seen.in_flight.load(Relaxed).saturating_add(self.seen.kernel_flows.load(Relaxed))
    }

    /// Takes the number of connections that the kernel passes to it by itself.
    pub fn take_kernel_flows(&self, n: u32) {
        self.seen.kernel_flows.store(n, Relaxed);
    }

    /// Requests that went there since this balancer knows it.
    #[must_use]
    pub fn picked(&self) -> u64 {
        self.seen.picked.load(Relaxed)
    }

    /// When the last one went there.
    #[must_use]
    pub fn last_picked(&self) -> Mono {
        mono(self.seen.last_picked.load(Relaxed))
    }

    /// Notes what it said of itself in an answer that just came, packed by `orca`.
    pub fn hear(&self, said: u64) {
        self.seen.heard.store(said, Relaxed);
        self.seen.heard_own.store(self.in_flight(), Relaxed);
        // The answer's end was recorded a moment ago, and its clock reading serves.
        self.seen.heard_at.store(self.seen.last_outcome.load(Relaxed).max(1), Relaxed);
    }

    /// What it last said in an answer, when, and what this balancer had there then. Two answers
    /// at once may mix, which an estimate bears.
    #[must_use]
    pub fn heard(&self) -> Option<(u64, Mono, u32)> {
        let at = self.seen.heard_at.load(Relaxed);
        let own = self.seen.heard_own.load(Relaxed);
        (at > 0).then(|| (self.seen.heard.load(Relaxed), mono(at), own))
    }

    /// Notes its answer to a probe.
    pub fn probed(&self, in_flight: u32, latency: f64, now: Mono) {
        let packed = (u64::from(in_flight) << 32) | u64::from(narrow(latency));
        self.seen.probed.store(packed, Relaxed);
        self.seen.probed_at.store(micros(now).max(1), Relaxed);
    }

    /// Its last answer to a probe: requests in flight, latency in seconds, when.
    #[must_use]
    pub fn last_probe(&self) -> Option<(u32, f64, Mono)> {
        let at = self.seen.probed_at.load(Relaxed);
        let packed = self.seen.probed.load(Relaxed);
        let in_flight = u32::try_from(packed >> 32).unwrap_or(u32::MAX);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
        let latency = widen(packed as u32);
        (at > 0).then_some((in_flight, latency, mono(at)))
    }

    /// How long its answers take with about so many requests there, in seconds.
    #[must_use]
    pub fn latency_at(&self, in_flight: u32) -> Option<f64> {
        let wanted = latency_place(in_flight);
        let known = |place: usize| {
            let bits = self.seen.latencies[place].load(Relaxed);
            (bits > 0).then(|| widen(bits))
        };
        // What was seen with fewer is the better guess, with more the only other one.
        (0..=wanted).rev().find_map(known).or_else(|| (wanted + 1..LATENCIES).find_map(known))
    }

    /// Requests answered since this balancer knows it.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.seen.answered.load(Relaxed)
    }

    /// How its requests ended so far.
    #[must_use]
    pub fn outcomes(&self) -> Outcomes {
        let counts = self.seen.counts.load(Relaxed);
        Outcomes {
            ok: widen((counts >> 32) as u32),
            #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
            total: widen(counts as u32),
            failures: widen(self.seen.failures.load(Relaxed)),
            last: mono(self.seen.last_outcome.load(Relaxed)),
        }
    }

    /// Its answers' latency.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency {
            seconds: widen(self.seen.latency.load(Relaxed)),
            at: mono(self.seen.last_outcome.load(Relaxed)),
        }
    }

    /// Records how one request ended: whether well, and how long its answer's head took.
    pub fn record(&self, ok: bool, took: Duration, now: Mono) {
        let latency = self.latency().after(took, ok, now);
        let outcomes = self.outcomes().after(ok, now);
        let seen = &self.seen;
        let counts = (u64::from(narrow(outcomes.ok)) << 32) | u64::from(narrow(outcomes.total));
        seen.counts.store(counts, Relaxed);
        seen.failures.store(narrow(outcomes.failures), Relaxed);
        seen.latency.store(narrow(latency.seconds), Relaxed);
        seen.last_outcome.store(micros(now), Relaxed);
        let place = &seen.latencies[latency_place(self.in_flight())];
        let (old, new) = (widen(place.load(Relaxed)), took.as_secs_f64());
        let mean = if old > 0.0 { old + (new - old) * LATENCY_PART } else { new };
        place.store(narrow(mean.max(1e-9)), Relaxed);
        seen.window_total.store(seen.window_total.load(Relaxed).saturating_add(1), Relaxed);
        if ok {
            seen.failures_in_row.store(0, Relaxed);
            seen.window_ok.store(seen.window_ok.load(Relaxed).saturating_add(1), Relaxed);
            seen.answered.store(seen.answered.load(Relaxed).wrapping_add(1), Relaxed);
        } else {
            seen.failures_in_row.fetch_add(1, Relaxed);
        }
    }

    /// Failures in a row, and the window's ok and total, for the judge.
    #[must_use]
    pub fn window(&self) -> (u32, u32, u32) {
        let total = self.seen.window_total.load(Relaxed);
        let ok = self.seen.window_ok.load(Relaxed).min(total);
        (self.seen.failures_in_row.load(Relaxed), ok, total)
    }

    /// Begins a new window of counts; `forgive` also ends the run of failures.
    pub fn new_window(&self, forgive: bool) {
        self.seen.window_ok.store(0, Relaxed);
        self.seen.window_total.store(0, Relaxed);
        if forgive {
            self.seen.failures_in_row.store(0, Relaxed);
        }
    }
}

fn latency_place(in_flight: u32) -> usize {
    let bits = u32::BITS - in_flight.saturating_add(1).leading_zeros();
    usize::try_from(bits.saturating_sub(1)).unwrap_or(LATENCIES).min(LATENCIES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_views() {
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        let now = Mono(Duration::from_secs(5));
        assert!(instance.enter(1, now) && !instance.enter(1, now));
        instance.record(false, Duration::from_millis(3), now);
        instance.record(true, Duration::from_millis(3), now);
        instance.record(false, Duration::from_millis(3), now);
        assert_eq!(instance.in_flight(), 1);
        assert_eq!(instance.window(), (1, 1, 3));
        let outcomes = instance.outcomes();
        assert!((outcomes.ok - 1.0).abs() < 1e-6 && (outcomes.total - 3.0).abs() < 1e-6);
        assert!((outcomes.failures - 1.5).abs() < 1e-6);
        assert_eq!(outcomes.last, now);
        instance.leave();
        instance.new_window(true);
        assert_eq!((instance.in_flight(), instance.window()), (0, (0, 0, 0)));
    }

    #[test]
    fn latency_is_kept_by_requests_in_flight() {
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        let now = Mono(Duration::from_secs(5));
        assert_eq!(instance.latency_at(3), None);
        for _ in 0..4 {
            assert!(instance.enter(9, now));
        }
        instance.record(true, Duration::from_millis(80), now);
        instance.record(true, Duration::from_millis(160), now);
        let near = |in_flight, seconds: f64| {
            assert!((instance.latency_at(in_flight).unwrap() - seconds).abs() < 1e-6);
        };
        near(4, 0.09);
        near(200, 0.09);
        near(0, 0.09);
        (0..4).for_each(|_| instance.leave());
        instance.record(true, Duration::from_millis(10), now);
        near(2, 0.01);
        assert_eq!([0, 1, 2, 3, 6, 7, u32::MAX].map(latency_place), [0, 1, 1, 2, 2, 3, 7]);
    }
}
