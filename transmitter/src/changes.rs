//! Which loads are worth sending: those that moved, and each at least every second.

use domain::{InstanceId, Load, LoadSource, Mono};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::join::InstanceMeasure;
use wire::node_file::NodeFileInstance;
use wire::report::Report;

/// Smaller moves say nothing: two hundredths of the limit.
pub const MOVE_MIN: u16 = Load::ONE / 50;
/// Each instance is told about at least this often, less half a beat, so that the beat that comes a
/// little early does not let a second one pass.
pub const SEND_EVERY: Duration = Duration::from_millis(875);

/// What was last told of each instance.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<InstanceId, (Load, Mono)>);

/// Whether the transmitter speaks for an instance: it has a limit, and no declared source is
/// against it.
#[must_use]
pub fn speaks_for(instance: &NodeFileInstance) -> bool {
    let source = instance.load_source.as_str();
    let asked = source == "auto" || source == LoadSource::Cgroup.as_str();
    asked && instance.limits.cpu_millis > 0
}

impl Told {
    /// The reports to send now.
    pub fn due(
        &mut self,
        instances: &[NodeFileInstance],
        measures: &[InstanceMeasure],
        now: Mono,
    ) -> Vec<Report> {
        let measures: BTreeMap<&InstanceId, &InstanceMeasure> =
            measures.iter().map(|m| (&m.instance, m)).collect();
        self.0.retain(|id, _| measures.contains_key(id));
        let mut due = Vec::new();
        for instance in instances.iter().filter(|instance| speaks_for(instance)) {
            let Some(measure) = measures.get(&instance.id) else { continue };
            let Some(load) = crate::estimate::load(measure.cpu_millis, instance.limits.cpu_millis)
            else {
                continue;
            };
            let quiet = self.0.get(&instance.id).is_some_and(|(last, at)| {
                let moved = load.ten_thousandths().abs_diff(last.ten_thousandths());
                moved <= MOVE_MIN && now.since(*at) < SEND_EVERY
            });
            if quiet {
                continue;
            }
            self.0.insert(instance.id.clone(), (load, now));
            due.push(Report {
                service: instance.service.to_string(),
                instance: instance.id.to_string(),
                load: load.ratio(),
                in_flight: None,
                rps: None,
                eps: None,
                seq: None,
                token: Some(instance.load_token.clone()),
                source: Some(LoadSource::Cgroup.as_str().to_owned()),
            });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::assignment::Limits;
    use wire::node_file::CgroupPaths;

    fn instance(source: &str, cpu_millis: u32) -> NodeFileInstance {
        NodeFileInstance {
            id: "shop-0123456789".parse().unwrap(),
            service: "shop".parse().unwrap(),
            cgroups: CgroupPaths::default(),
            pid: None,
            load_source: source.to_owned(),
            load_token: "t".to_owned(),
            limits: Limits { cpu_millis, memory_bytes: 0 },
        }
    }

    fn measure(cpu_millis: u32) -> InstanceMeasure {
        let instance = "shop-0123456789".parse().unwrap();
        InstanceMeasure { instance, cpu_millis, memory_bytes: 0, throttled_share: 0 }
    }

    #[test]
    fn only_sources_that_ask_and_limits_that_stand_count() {
        let table = [
            ("auto", 100, true),
            ("cgroup", 100, true),
            ("auto", 0, false),
            ("pushed", 100, false),
            ("header", 100, false),
            ("balancer", 100, false),
        ];
        for (source, limit, wanted) in table {
            assert_eq!(speaks_for(&instance(source, limit)), wanted, "{source} {limit}");
        }
    }

    #[test]
    fn what_moved_is_sent_and_all_each_second() {
        let mut told = Told::default();
        let list = [instance("auto", 1000)];
        let mut due = |ms, cpu| {
            let now = Mono(Duration::from_millis(ms));
            told.due(&list, &[measure(cpu)], now).first().map(|r| r.load)
        };
        assert_eq!(due(0, 500), Some(0.5));
        assert_eq!(due(250, 520), None, "2 % is no move");
        assert_eq!(due(500, 521), Some(0.521), "more is");
        assert_eq!(due(750, 521), None);
        assert_eq!(due(1400, 521), Some(0.521), "a second passed");
        assert_eq!(due(1650, 400), Some(0.4));
    }
}
