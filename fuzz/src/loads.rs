//! What instances and agents say of their load in other systems' dialects.

use wire::agent::AgentLine;
use wire::orca::OrcaReport;

/// An agent's line.
pub fn agent_line(bytes: &[u8]) {
    let Ok(line) = AgentLine::parse(bytes) else { return };
    let written = line.to_string();
    if written.is_empty() || written.starts_with(" #") {
        return;
    }
    let again = AgentLine::parse(written.as_bytes()).expect("our own line");
    assert_eq!((again.percent, again.weight), (line.percent, line.weight), "{written:?}");
    assert_eq!(again.max_in_flight, line.max_in_flight, "{written:?}");
    assert_eq!((again.admin, again.health), (line.admin, line.health), "{written:?}");
}

/// A load in an answer's header: its name up to the first colon, then its value.
pub fn header(bytes: &[u8]) {
    let colon = bytes.iter().position(|b| *b == b':').unwrap_or(bytes.len());
    let (name, value) = bytes.split_at(colon);
    let Ok(report) = OrcaReport::parse(name, value.get(1..).unwrap_or_default()) else { return };
    assert!(report.load().is_none_or(|load| load.ten_thousandths() <= 40_000));
    let (_rps, _eps) = (report.rps_milli(), report.eps_milli());
}
