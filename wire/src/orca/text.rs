//! The TEXT form: `key=value, key=value`, and `key:value` as older senders write it.

use super::{Group, OrcaError, OrcaReport, Reading, Single, form, told};
use std::borrow::Cow;

pub(super) fn read(list: &[u8]) -> Result<OrcaReport, OrcaError> {
    let list = std::str::from_utf8(list).map_err(|_why| form("not text"))?;
    let mut reading = Reading::default();
    // An empty element of a list in a header is nothing.
    for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        take(pair, &mut reading)?;
    }
    Ok(reading.report)
}

fn take<'a>(pair: &'a str, reading: &mut Reading<'a>) -> Result<(), OrcaError> {
    // A name may have a colon in it where the sign between is `=`.
    let (key, value) = pair
        .split_once('=')
        .or_else(|| pair.split_once(':'))
        .ok_or_else(|| form("a key without a value"))?;
    let key = key.trim_end();
    let number = || {
        let value = value.trim_start();
        value.parse::<f64>().map_err(|_nan| OrcaError::Number(told(key)))
    };
    let single = match key {
        "cpu_utilization" => Single::Cpu,
        "mem_utilization" => Single::Memory,
        "application_utilization" => Single::Application,
        "rps_fractional" => Single::Rps,
        "eps" => Single::Eps,
        _ => {
            return match key.split_once('.').and_then(|(of, name)| Some((group(of)?, name))) {
                Some((group, name)) => reading.member(group, Cow::Borrowed(name), number()?),
                None => Ok(()),
            };
        }
    };
    reading.single(single, number()?)
}

fn group(name: &str) -> Option<Group> {
    [Group::Named, Group::Utilization, Group::Cost].into_iter().find(|g| g.name() == name)
}
