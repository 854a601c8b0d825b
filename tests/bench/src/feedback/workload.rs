//! The workloads: how many instances of which kind, how much work requests ask for, how they come.

use std::time::Duration;

use fastrand::Rng;

use crate::sleep::Phase;

/// What is wrong with instances, or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Speeds 0.5, 1, 1, 2.
    Speeds,
    /// Two of all are sixteen times slower.
    Sixteenth,
    /// Each is five times slower for about a second about every ten.
    Antagonists,
    /// A tenth of them answers 500 at once.
    FailFast,
    /// A quarter of them is five times slower in its first seconds of the measurement.
    Cold,
    /// On a quarter of them half of the workers do other people's work, which only their loads say.
    Foreign,
}

/// One workload.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Instances behind each contender.
    pub instances: usize,
    /// Requests that each works on at once.
    pub workers: usize,
    /// Mean work of a request, milliseconds.
    pub mean_ms: f64,
    /// Share of long requests, and their work as a multiple of the mean; the others are as short as
    /// the mean demands.
    pub long: (f64, f64),
    /// Offered work as a share of what all instances can do.
    pub load: f64,
    /// Proxies of each contender; the generator takes them in turn.
    pub balancers: usize,
    /// What is wrong.
    pub trouble: Trouble,
    /// Those who run it, when it is a test of ours against ours: the quiet one first.
    pub alone: Option<[&'static str; 2]>,
}

/// 90 % of requests 0.2 times the mean, 10 % 8.2 times: B-01.
const HEAVY: (f64, f64) = (0.1, 8.2);
/// 90 % 0.5 times the mean, 10 % 5.5 times.
const MIXED: (f64, f64) = (0.1, 5.5);

const PLAIN: Workload = Workload {
    name: "",
    what: "",
    instances: 16,
    workers: 2,
    mean_ms: 50.0,
    long: MIXED,
    load: 0.8,
    balancers: 1,
    trouble: Trouble::None,
    alone: None,
};

/// All, in the order of research and report.
pub const ALL: [Workload; 13] = [
    Workload {
        name: "heavy-80",
        what: "heavy-tailed work, equal instances, load 0.8",
        instances: 8,
        workers: 4,
        long: HEAVY,
        ..PLAIN
    },
    Workload {
        name: "heavy-90",
        what: "heavy-tailed work, equal instances, load 0.9",
        instances: 8,
        workers: 4,
        long: HEAVY,
        load: 0.9,
        ..PLAIN
    },
    Workload {
        name: "heavy-80-by-3",
        what: "the first with 3 balancers",
        instances: 8,
        workers: 4,
        long: HEAVY,
        balancers: 3,
        ..PLAIN
    },
    Workload { name: "speeds", what: "speeds 0.5, 1, 1, 2", trouble: Trouble::Speeds, ..PLAIN },
    Workload {
        name: "speeds-by-3",
        what: "speeds 0.5, 1, 1, 2 with 3 balancers",
        trouble: Trouble::Speeds,
        balancers: 3,
        ..PLAIN
    },
    Workload {
        name: "sixteenth",
        what: "2 of 16 instances 16 times slower",
        trouble: Trouble::Sixteenth,
        ..PLAIN
    },
    Workload {
        name: "antagonists",
        what: "each instance 5 times slower for 1 s about every 10 s",
        load: 0.7,
        trouble: Trouble::Antagonists,
        ..PLAIN
    },
    Workload {
        name: "fail-fast",
        what: "2 of 20 instances answer 500 at once",
        instances: 20,
        trouble: Trouble::FailFast,
        ..PLAIN
    },
    Workload {
        name: "cold",
        what: "a quarter of the instances 5 times slower for the first 4 s",
        load: 0.7,
        trouble: Trouble::Cold,
        ..PLAIN
    },
    Workload {
        name: "foreign",
        what: "other people's work on a quarter of the instances",
        workers: 4,
        mean_ms: 100.0,
        trouble: Trouble::Foreign,
        ..PLAIN
    },
    Workload {
        name: "long",
        what: "requests of 500 ms on average, 3 balancers",
        workers: 8,
        mean_ms: 500.0,
        trouble: Trouble::Speeds,
        balancers: 3,
        ..PLAIN
    },
    Workload {
        name: "churn",
        what: "one instance starts or stops every 2 s at load 0.5 (B-02)",
        instances: 10,
        workers: 4,
        load: 0.5,
        alone: Some(["tally:feedback", "tally:feedback@churn"]),
        ..PLAIN
    },
    Workload {
        name: "unready",
        what: "one more instance is in the routes and does not listen (B-07)",
        instances: 8,
        workers: 4,
        alone: Some(["tally:feedback", "tally:feedback@unready"]),
        ..PLAIN
    },
];

/// How one instance is made in one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Making {
    /// Speed.
    pub speed: f64,
    /// Slow times.
    pub phases: Vec<Phase>,
    /// Workers that are taken.
    pub foreign: usize,
    /// Answers 500.
    pub fails: bool,
}

/// One request of a run: when it comes and how much work it asks for.
pub type Arrival = (Duration, u32);

impl Workload {
    /// How the instances of a run are made; the same for every contender.
    #[must_use]
    pub fn makings(&self, warm_up: Duration, end: Duration, seed: u64) -> Vec<Making> {
        let mut rng = Rng::with_seed(seed ^ 0x5eed);
        let plain = Making { speed: 1.0, phases: Vec::new(), foreign: 0, fails: false };
        let one = |index: usize| {
            let mut making = plain.clone();
            match self.trouble {
                Trouble::None => {}
                Trouble::Speeds => making.speed = [0.5, 1.0, 1.0, 2.0][index % 4],
                Trouble::Sixteenth if index < 2 => making.speed = 1.0 / 16.0,
                Trouble::FailFast if index < self.instances / 10 => making.fails = true,
                Trouble::Foreign if index.is_multiple_of(4) => making.foreign = self.workers / 2,
                Trouble::Cold if index.is_multiple_of(4) => making.phases.push(Phase {
                    from: warm_up,
                    until: warm_up + Duration::from_secs(4),
                    factor: 0.2,
                }),
                Trouble::Antagonists => making.phases = antagonists(&mut rng, end),
                Trouble::Sixteenth | Trouble::FailFast | Trouble::Foreign | Trouble::Cold => {}
            }
            making
        };
        (0..self.instances).map(one).collect()
    }

    /// Requests a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let never = Duration::ZERO;
        let makings = self.makings(never, never, 0);
        let able = makings.iter().filter(|making| !making.fails);
        let workers: f64 = able.map(|m| m.speed * whole(self.workers - m.foreign)).sum();
        self.load * workers * 1000.0 / self.mean_ms
    }

    /// The requests of a run, the same for every contender: a Poisson stream.
    #[must_use]
    pub fn arrivals(&self, end: Duration, seed: u64) -> Vec<Arrival> {
        let mut rng = Rng::with_seed(seed);
        let rate = self.rate();
        let (share, long) = self.long;
        let short = (1.0 - share * long) / (1.0 - share);
        let mut arrivals = Vec::new();
        let mut at = 0.0;
        loop {
            at += -(1.0 - rng.f64()).ln() / rate;
            if at >= end.as_secs_f64() {
                return arrivals;
            }
            let multiple = if rng.f64() < share { long } else { short };
            let work = multiple * self.mean_ms * 1000.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounded from both sides"
            )]
            let micros = work.clamp(1.0, 1e9) as u32;
            arrivals.push((Duration::from_secs_f64(at), micros));
        }
    }
}

/// Slow for about a second about every ten.
fn antagonists(rng: &mut Rng, end: Duration) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut at = 9.0 * rng.f64();
    while at < end.as_secs_f64() {
        let length = 0.5 + rng.f64();
        phases.push(Phase {
            from: Duration::from_secs_f64(at),
            until: Duration::from_secs_f64(at + length),
            factor: 0.2,
        });
        at += length + 4.5 + 9.0 * rng.f64();
    }
    phases
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn whole(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_from_loads_and_capacities() {
        let by_name = |name| ALL.into_iter().find(|w| w.name == name).unwrap();
        // 8 instances x 4 workers / 50 ms x 0.8
        assert!((by_name("heavy-80").rate() - 512.0).abs() < 1e-6);
        // 18 healthy ones x 2 workers / 50 ms x 0.8
        assert!((by_name("fail-fast").rate() - 576.0).abs() < 1e-6);
    }

    #[test]
    fn arrivals_have_the_wanted_rate_and_mean_and_repeat() {
        let end = Duration::from_secs(200);
        for workload in ALL {
            let arrivals = workload.arrivals(end, 7);
            assert_eq!(arrivals, workload.arrivals(end, 7));
            let count = whole(arrivals.len());
            assert!((count / 200.0 / workload.rate() - 1.0).abs() < 0.05, "{}", workload.name);
            let sum: f64 = arrivals.iter().map(|(_, micros)| f64::from(*micros)).sum();
            let mean = sum / count / 1000.0;
            assert!((mean / workload.mean_ms - 1.0).abs() < 0.1, "{}: {mean}", workload.name);
        }
    }

    #[test]
    fn slow_phases_are_in_order_and_apart() {
        let phases = antagonists(&mut Rng::with_seed(3), Duration::from_secs(100));
        assert!(phases.len() > 5);
        assert!(phases.windows(2).all(|pair| pair[0].until < pair[1].from));
    }
}
