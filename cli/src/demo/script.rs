//! The demo's story: when the load rises and falls, when one instance becomes slow, and what each
//! act must show.

use super::load::Leg;
use std::time::Duration;

/// The demo's service.
pub const SERVICE: &str = "demo";
/// Host name its requests carry.
pub const HOST: &str = "demo.localhost";
/// Service time of one request, ms.
pub const WORK_MS: u64 = 40;
/// Requests one instance serves at load 1.0: with 40 ms each, 200 a second.
pub const CONCURRENCY: u32 = 8;
/// Requests a second one instance serves at load 1.0.
pub const INSTANCE_RPS: f64 = 200.0;
/// The height of the load, in instances at load 1.0: four or five fit on the nodes the cap
/// pays for, and cannot serve it at the load they shall have.
const PEAK: f64 = 4.4;
/// How many times slower one instance becomes.
pub const SLOW_FACTOR: u32 = 5;
/// The balancer must have moved the load away from it within this.
pub const SLOW_PATIENCE: Duration = Duration::from_secs(5);
/// What is measured before and after.
pub const SLOW_BEFORE: Duration = Duration::from_secs(5);
/// See [`SLOW_BEFORE`].
pub const SLOW_AFTER: Duration = Duration::from_secs(3);
/// Seconds after the load's end for instances and nodes to go.
pub const QUIET_SECONDS: f64 = 12.0;
/// A whole demo is shorter than this, or something hangs.
pub const PATIENCE_AFTER_LOAD: Duration = Duration::from_secs(60);

/// The load's legs and the moment of slowness, for a demo of `seconds`.
#[derive(Debug, Clone)]
pub struct Script {
    /// The load.
    pub legs: Vec<Leg>,
    /// When one instance becomes slow, from the load's start.
    pub slow_at: Duration,
    /// When it is itself again.
    pub slow_until: Duration,
}

impl Script {
    /// The story in 60 s, stretched for longer demos.
    pub fn of(seconds: u32) -> Script {
        let stretch = (f64::from(seconds) - QUIET_SECONDS) / (60.0 - QUIET_SECONDS);
        let leg = |until: f64, times: f64| Leg {
            until: until * stretch,
            rate: (INSTANCE_RPS * times).max(10.0),
        };
        Script {
            legs: vec![
                leg(2.0, 0.1),
                // Slow enough for the window to follow: a jump would be a burst, answered at once
                // with more instances than the level needs.
                leg(19.0, 2.2),
                leg(34.0, 2.2),
                // More than this node and one bought one are good for, whatever was started before:
                // the second order must be wanted for the cap to hold it back.
                leg(36.0, PEAK),
                leg(41.0, PEAK),
                leg(44.0, 0.1),
                leg(48.0, 0.1),
            ],
            slow_at: Duration::from_secs_f64(25.0 * stretch),
            slow_until: Duration::from_secs_f64(34.0 * stretch),
        }
    }
}

/// The manifests: a service of known capacity, a priced kind of node, and a cap that pays for one
/// such node and not for two.
pub fn manifests(program: &str) -> String {
    format!(
        r#"kind: node-type
name: demo-small
provider: local
cpu: 500m
memory: 512MiB
price_per_hour: 0.36 EUR
billing_unit: 1s
billing_minimum: 60s
stop_lead: 0s
max_count: 3
---
kind: budget
monthly_cap: 0.0110 EUR
---
kind: service
name: {SERVICE}
min_instances: 0
max_instances: 8
run:
  command: ["{program}", demo-service, --port, "{{port}}", --work-ms, "{WORK_MS}", --concurrency, "{CONCURRENCY}"]
resources: {{cpu: 250m, memory: 64MiB}}
load: {{concurrency: {CONCURRENCY}, max_in_flight: 64, window: 5s, slow_start: 2s, period: 1s}}
lifecycle: {{idle_timeout: 5s, start_deadline: 10s, drain_deadline: 10s}}
route: {{hosts: [{HOST}]}}
"#
    )
}

/// What is printed first, so that nobody takes the demo's pace for the defaults.
pub const PACE: &str = "pace of this demo (not the defaults): window 5s, goal memory 5s, downs every 2s, \
idle time-out 5s, empty node leaves after 3s, quiet 3s after a start, billing unit 1s, billed at least 60s; \
prices are made up; requests take 40 ms and an instance serves 8 at once (200 a second)";

#[cfg(test)]
mod tests {
    use super::*;
    use wire::manifest::{Format, parse_text};

    #[test]
    fn the_manifests_can_be() {
        let manifests = parse_text(&manifests("/bin/tally"), Format::Yaml).unwrap();
        assert_eq!(manifests.len(), 3);
        for manifest in manifests {
            if let wire::manifest::Manifest::Service(service) = manifest {
                domain::ServiceSpec::try_from(service.as_ref()).unwrap();
            }
        }
    }

    #[test]
    fn slowness_is_measured_at_a_steady_load() {
        for seconds in [60, 90, 600] {
            let script = Script::of(seconds);
            let rate = |at: Duration| super::super::load::rate_at(&script.legs, at.as_secs_f64());
            let from = rate(script.slow_at.saturating_sub(SLOW_BEFORE));
            assert_eq!(from, rate(script.slow_at + SLOW_PATIENCE + SLOW_AFTER), "{seconds}");
        }
    }
}
