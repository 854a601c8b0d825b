//! Loads in answers' headers (`endpoint-load-metrics`, ORCA): read cheaply, recorded in batches.

use crate::view::Instance;
use domain::{Load, LoadReport, LoadSource};
use http::HeaderValue;
use std::sync::atomic::Ordering::Relaxed;

/// Longest header looked at.
const HEADER_BYTES_MAX: usize = 2048;
/// Tells a noted load of zero from none.
const NOTED: u64 = 1 << 63;

/// Notes what an instance said of its load with an answer; the latest counts. What cannot be read
/// is nothing.
pub fn note(instance: &Instance, header: &HeaderValue) {
    let Some(load) = header.to_str().ok().and_then(read) else { return };
    instance.header_load.store(NOTED | u64::from(load.ten_thousandths()), Relaxed);
}

/// The noted load as a report, once.
pub fn take(instance: &Instance) -> Option<LoadReport> {
    if instance.header_load.load(Relaxed) == 0 {
        return None;
    }
    let noted = instance.header_load.swap(0, Relaxed);
    let ten_thousandths = u32::try_from(noted & !NOTED).ok()?;
    Some(LoadReport {
        instance: instance.id.clone(),
        load: Load::from_ten_thousandths(ten_thousandths),
        in_flight: None,
        rps_milli: None,
        eps_milli: None,
        seq: None,
        source: LoadSource::Header,
    })
}

/// The load in a header: `application_utilization`, else `cpu_utilization`, in the forms
/// `TEXT a=1, b=2` and `JSON {...}`; the older `a:1` and a bare list are read as well.
fn read(text: &str) -> Option<Load> {
    if text.len() > HEADER_BYTES_MAX {
        return None;
    }
    let text = text.trim();
    let number = match text.strip_prefix("JSON ") {
        Some(json) => {
            let values: serde_json::Value = serde_json::from_str(json).ok()?;
            let value = |name| values.get(name).and_then(serde_json::Value::as_f64);
            value("application_utilization").or_else(|| value("cpu_utilization"))?
        }
        None => {
            let list = text.strip_prefix("TEXT ").unwrap_or(text);
            let value = |name: &str| {
                list.split(',').find_map(|pair| {
                    let (key, value) = pair.split_once(['=', ':'])?;
                    (key.trim() == name).then(|| value.trim().parse::<f64>().ok())?
                })
            };
            value("application_utilization").or_else(|| value("cpu_utilization"))?
        }
    };
    Load::from_reported(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read_in_both_forms() {
        for (text, expected) in [
            ("TEXT cpu_utilization=0.3, mem_utilization=0.8", Some(3000)),
            ("TEXT application_utilization=0.5,cpu_utilization=0.3", Some(5000)),
            ("cpu_utilization:0.3", Some(3000)),
            ("JSON {\"cpu_utilization\": 0.25, \"rps_fractional\": 3}", Some(2500)),
            ("TEXT cpu_utilization=NaN", None),
            ("TEXT cpu_utilization=-1", None),
            ("JSON {", None),
            ("BIN AAAA", None),
            ("", None),
        ] {
            let load = read(text).map(Load::ten_thousandths);
            assert_eq!(load, expected, "{text}");
        }
    }

    #[test]
    fn a_noted_load_is_reported_once() {
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        assert_eq!(take(&instance), None);
        note(&instance, &HeaderValue::from_static("TEXT cpu_utilization=0"));
        assert_eq!(
            take(&instance).map(|r| (r.load, r.source)),
            Some((Load::ZERO, LoadSource::Header))
        );
        assert_eq!(take(&instance), None);
    }
}
