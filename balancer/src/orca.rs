//! Loads in answers' headers and trailers (ORCA): read cheaply, recorded in batches.

use crate::view::Instance;
use domain::{Load, LoadReport, LoadSource};
use picker::Reported;
use std::sync::atomic::Ordering::Relaxed;
use wire::orca::OrcaReport;

/// Tells a noted load of zero from none.
const NOTED: u64 = 1 << 63;
/// Bits of a load.
const LOAD_BITS: u32 = 16;
/// Bits of the requests in flight, one more than told; 0: not told. A million and more is a million.
const IN_FLIGHT_BITS: u32 = 20;
/// Bits of the requests a second in tenths, one more than told; 0: not told.
const RPS_BITS: u32 = 27;

/// Notes what an instance said of its load in a header or trailer of this name; the latest counts.
/// What cannot be read, or says nothing of the load, is nothing.
pub fn note(instance: &Instance, name: &[u8], value: &[u8]) {
    let Ok(report) = OrcaReport::parse(name, value) else { return };
    if let Some(load) = report.load() {
        let said = pack(load, &report);
        instance.header_load.store(said, Relaxed);
        instance.hear(said);
    }
}

fn pack(load: Load, report: &OrcaReport) -> u64 {
    let told = |value: Option<u64>, bits: u32| {
        value.map_or(0, |value| value.saturating_add(1).min((1 << bits) - 1))
    };
    let in_flight = told(report.in_flight.map(u64::from), IN_FLIGHT_BITS);
    let rps = told(report.rps_milli().map(|milli| milli / 100), RPS_BITS);
    NOTED
        | u64::from(load.ten_thousandths())
        | in_flight << LOAD_BITS
        | rps << (LOAD_BITS + IN_FLIGHT_BITS)
}

/// The noted load as a report, once.
pub fn take(instance: &Instance) -> Option<LoadReport> {
    if instance.header_load.load(Relaxed) == 0 {
        return None;
    }
    let noted = instance.header_load.swap(0, Relaxed);
    let rps_tenths = bits(noted, LOAD_BITS + IN_FLIGHT_BITS, RPS_BITS).checked_sub(1);
    Some(LoadReport {
        instance: instance.id.clone(),
        load: load(noted)?,
        in_flight: in_flight(noted),
        rps_milli: rps_tenths.map(|tenths| tenths * 100),
        eps_milli: None,
        seq: None,
        source: LoadSource::Header,
    })
}

/// What it last said in an answer, as picks use it.
pub fn heard(instance: &Instance) -> Option<Reported> {
    let (said, at, own_in_flight) = instance.heard()?;
    Some(Reported {
        load: load(said)?.ratio(),
        in_flight: in_flight(said),
        at,
        own_in_flight,
        others_in_flight: None,
    })
}

fn bits(noted: u64, from: u32, count: u32) -> u64 {
    (noted >> from) & ((1 << count) - 1)
}

fn load(noted: u64) -> Option<Load> {
    u32::try_from(bits(noted, 0, LOAD_BITS)).ok().map(Load::from_ten_thousandths)
}

fn in_flight(noted: u64) -> Option<u32> {
    let told = bits(noted, LOAD_BITS, IN_FLIGHT_BITS).checked_sub(1)?;
    u32::try_from(told).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &'static str) -> Option<(u16, Option<u32>, Option<u64>)> {
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        note(&instance, b"endpoint-load-metrics", value.as_bytes());
        let taken = take(&instance).map(|report| {
            assert_eq!(report.source, LoadSource::Header);
            (report.load.ten_thousandths(), report.in_flight, report.rps_milli)
        });
        assert_eq!(take(&instance), None, "once");
        taken
    }

    #[test]
    fn a_noted_load_is_reported_once() {
        for (value, expected) in [
            ("TEXT cpu_utilization=0", Some((0, None, None))),
            ("TEXT cpu_utilization=4,named_metrics.in_flight=0", Some((40_000, Some(0), None))),
            ("cpu_utilization:0.3,rps_fractional:0", Some((3000, None, Some(0)))),
            (
                "TEXT cpu_utilization=0.5,named_metrics.rif=12,rps_fractional=120.25",
                Some((5000, Some(12), Some(120_200))),
            ),
            (
                "TEXT cpu_utilization=0.5,named_metrics.rif=4e9,rps_fractional=1e300",
                Some((5000, Some((1 << 20) - 2), Some(((1 << 27) - 2) * 100))),
            ),
            ("JSON {\"cpu_utilization\": 0.25}", Some((2500, None, None))),
            ("BIN CQAAAAAAAOA/", Some((5000, None, None))),
            ("TEXT cpu_utilization=NaN", None),
            ("TEXT mem_utilization=0.5", None),
            ("", None),
        ] {
            assert_eq!(said(value), expected, "{value}");
        }
    }

    #[test]
    fn the_latest_readable_one_counts() {
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        note(&instance, b"endpoint-load-metrics", b"TEXT cpu_utilization=0.9");
        note(&instance, b"Endpoint-Load-Metrics-Bin", b"CQAAAAAAAOA/");
        note(&instance, b"endpoint-load-metrics", b"TEXT cpu_utilization=-1");
        assert_eq!(take(&instance).map(|r| r.load.ten_thousandths()), Some(5000));
    }
}
