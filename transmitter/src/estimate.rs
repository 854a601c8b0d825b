//! From counters to rates: pure, over a short window, across wrap-arounds and restarts.

use crate::node::{BUSY_WHOLE, NodeReading};
use crate::sample::InstanceReading;
use domain::{InstanceId, Load, Mono};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::join::{InstanceMeasure, NodeMeasure};

/// Rates of instances are taken over this: shorter shows single requests, longer is late.
pub const WINDOW: Duration = Duration::from_secs(1);
/// Shortest span a rate is taken over; in less, a tick is a tenth of the truth.
pub const SPAN_MIN: Duration = Duration::from_millis(100);
/// Readings kept of an instance: a window of beats, and some that came early.
const READINGS_MAX: usize = 16;

/// How much a counter grew. A counter that fell below its last value began anew or, where that fits
/// better, went round at 32 bits, as some drivers count.
#[must_use]
pub fn grown(before: u64, now: u64) -> u64 {
    const ROUND: u64 = 1 << 32;
    if now >= before {
        return now - before;
    }
    // Near the top before and near the bottom now: it went round.
    if (ROUND / 4 * 3..ROUND).contains(&before) && now < ROUND / 4 {
        return ROUND - before + now;
    }
    now
}

fn thousandths(used: Duration, span: Duration) -> u32 {
    let millis = used.as_nanos().saturating_mul(1000) / span.as_nanos().max(1);
    u32::try_from(millis).unwrap_or(u32::MAX)
}

fn per_second(count: u64, span: Duration) -> u64 {
    let rate = u128::from(count).saturating_mul(1_000_000_000) / span.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// What an instance does to its limit; `None` without one.
#[must_use]
pub fn load(cpu_millis: u32, limit_millis: u32) -> Option<Load> {
    let share = u64::from(cpu_millis).saturating_mul(u64::from(Load::ONE));
    let share = share.checked_div(u64::from(limit_millis))?;
    Some(Load::from_ten_thousandths(u32::try_from(share).unwrap_or(u32::MAX)))
}

/// Remembers readings and tells rates.
#[derive(Debug, Default)]
pub struct Estimator {
    node: Option<(NodeReading, Mono)>,
    instances: BTreeMap<InstanceId, VecDeque<InstanceReading>>,
}

impl Estimator {
    /// The node's measure since the last call; `None` at the first.
    pub fn node(&mut self, reading: NodeReading, now: Mono) -> Option<NodeMeasure> {
        let (before, at) = self.node.replace((reading, now))?;
        let span = now.since(at);
        if span < SPAN_MIN {
            self.node = Some((before, at));
            return None;
        }
        let busy = u64::from(reading.busy.min(BUSY_WHOLE));
        let used = busy * u64::from(reading.cpus) * 1000 / u64::from(BUSY_WHOLE);
        Some(NodeMeasure {
            cpu_millis: u32::try_from(used).unwrap_or(u32::MAX),
            memory_bytes: reading.memory_bytes,
            disk_bytes: reading.disk_bytes,
            rx_bytes_per_second: per_second(grown(before.rx_bytes, reading.rx_bytes), span),
            tx_bytes_per_second: per_second(grown(before.tx_bytes, reading.tx_bytes), span),
        })
    }

    /// Measures of the instances that were read at least twice. Who is missing is forgotten.
    pub fn instances(
        &mut self,
        readings: &BTreeMap<InstanceId, InstanceReading>,
    ) -> Vec<InstanceMeasure> {
        self.instances.retain(|id, _| readings.contains_key(id));
        let mut measures = Vec::with_capacity(readings.len());
        for (id, reading) in readings {
            let kept = self.instances.entry(id.clone()).or_default();
            let restarted = |last: &InstanceReading| {
                last.origin != reading.origin || reading.cpu < last.cpu || reading.at < last.at
            };
            if kept.back().is_some_and(restarted) {
                kept.clear();
            }
            kept.push_back(*reading);
            // The newest reading that is a whole window old is the one to compare with.
            let old = |r: &InstanceReading| reading.at.since(r.at) >= WINDOW;
            while kept.len() > READINGS_MAX || kept.get(1).is_some_and(old) {
                kept.pop_front();
            }
            if let Some(measure) = kept.front().and_then(|first| measure(id, first, reading)) {
                measures.push(measure);
            }
        }
        measures
    }
}

fn measure(
    id: &InstanceId,
    first: &InstanceReading,
    last: &InstanceReading,
) -> Option<InstanceMeasure> {
    let span = last.at.since(first.at);
    if span < SPAN_MIN {
        return None;
    }
    let periods = grown(first.periods, last.periods);
    let throttled = grown(first.throttled, last.throttled).min(periods);
    let share = (u128::from(throttled) * 10_000).checked_div(u128::from(periods)).unwrap_or(0);
    Some(InstanceMeasure {
        instance: id.clone(),
        cpu_millis: thousandths(last.cpu.saturating_sub(first.cpu), span),
        memory_bytes: last.memory_bytes,
        throttled_share: u32::try_from(share).unwrap_or(10_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn node(busy: u32, rx: u64) -> NodeReading {
        NodeReading { busy, cpus: 2, rx_bytes: rx, ..NodeReading::default() }
    }

    fn reading(ms: u64, cpu_ms: u64, origin: u64) -> InstanceReading {
        let cpu = Duration::from_millis(cpu_ms);
        InstanceReading { at: at(ms), cpu, origin, ..InstanceReading::default() }
    }

    fn id() -> InstanceId {
        "shop-0123456789".parse().unwrap()
    }

    #[test]
    fn counters_grow_go_round_or_begin_anew() {
        let table = [
            (5, 9, 4),
            (5, 5, 0),
            (u64::from(u32::MAX) - 9, 20, 30),
            (1_000_000, 20, 20),
            (u64::MAX, 3, 3),
            (1 << 31, 5, 5),
        ];
        for (before, now, wanted) in table {
            assert_eq!(grown(before, now), wanted, "{before} -> {now}");
        }
    }

    #[test]
    fn the_node_uses_its_share_of_all_processors() {
        let mut estimator = Estimator::default();
        assert_eq!(estimator.node(node(100, 0), at(0)), None, "a first look has no span");
        let measure = estimator.node(node(500_000, 5000), at(1000)).unwrap();
        assert_eq!((measure.cpu_millis, measure.rx_bytes_per_second), (1000, 5000));
        assert_eq!(estimator.node(node(500_000, 5500), at(1050)), None, "too short a span");
        let measure = estimator.node(node(BUSY_WHOLE, 6000), at(3000)).unwrap();
        assert_eq!((measure.cpu_millis, measure.rx_bytes_per_second), (2000, 500));
    }

    #[test]
    fn an_instance_is_measured_over_a_window() {
        let mut estimator = Estimator::default();
        let mut step = |ms, cpu_ms, origin| {
            let measures = estimator.instances(&[(id(), reading(ms, cpu_ms, origin))].into());
            measures.first().map(|m| m.cpu_millis)
        };
        assert_eq!(step(0, 0, 1), None);
        assert_eq!(step(50, 25, 1), None, "too short a span");
        assert_eq!(step(250, 125, 1), Some(500));
        assert_eq!(step(500, 250, 1), Some(500));
        assert_eq!(step(1000, 500, 1), Some(500));
        assert_eq!(step(1250, 625, 1), Some(500));
        // Idle from now on: a second later nothing is left of the past.
        assert_eq!(step(2000, 625, 1), Some(125));
        assert_eq!(step(2250, 625, 1), Some(0));
        // Another process under the same id, with more time used than the last.
        assert_eq!(step(2500, 9000, 2), None);
        assert_eq!(step(3000, 9500, 2), Some(1000));
        // A counter that fell.
        assert_eq!(step(3250, 10, 2), None);
        assert_eq!(step(3500, 135, 2), Some(500));
    }

    #[test]
    fn throttling_is_a_share_of_periods() {
        let mut estimator = Estimator::default();
        let with = |ms, periods, throttled| {
            [(id(), InstanceReading { periods, throttled, ..reading(ms, 0, 0) })].into()
        };
        estimator.instances(&with(0, 10, 5));
        assert_eq!(estimator.instances(&with(1000, 20, 8))[0].throttled_share, 3000);
        assert_eq!(estimator.instances(&with(2000, 20, 8))[0].throttled_share, 0);
    }

    #[test]
    fn load_is_what_is_used_of_the_limit() {
        assert_eq!(load(250, 500).map(Load::ten_thousandths), Some(5000));
        assert_eq!(load(u32::MAX, 1), Some(Load::MAX));
        assert_eq!(load(250, 0), None);
    }

    proptest! {
        #[test]
        fn no_counters_panic(
            looks in proptest::collection::vec(any::<(u32, u64, u32)>(), 1..6),
            readings in proptest::collection::vec(any::<(u64, u64, u64, u64, u64)>(), 1..6),
        ) {
            let mut estimator = Estimator::default();
            for (busy, rx, ms) in looks {
                let measure = estimator.node(node(busy, rx), at(u64::from(ms)));
                prop_assert!(measure.is_none_or(|m| m.cpu_millis <= 2000));
            }
            for (ms, cpu, origin, periods, throttled) in readings {
                let r = InstanceReading { periods, throttled, ..reading(ms, cpu, origin % 2) };
                for measure in estimator.instances(&[(id(), r)].into()) {
                    prop_assert!(measure.throttled_share <= 10_000);
                }
            }
        }

        #[test]
        fn steady_use_is_measured_exactly(rate in 0u64..4000, beats in 2u64..40) {
            let mut estimator = Estimator::default();
            let mut last = None;
            for beat in 0..beats {
                let cpu = Duration::from_micros(beat * 250 * rate);
                let r = InstanceReading { cpu, ..reading(beat * 250, 0, 0) };
                last = estimator.instances(&[(id(), r)].into()).pop();
            }
            prop_assert_eq!(last.map(|m| u64::from(m.cpu_millis)), Some(rate));
        }
    }
}
