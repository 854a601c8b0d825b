//! Units: processors, memory, load, shares, and the one parser for each text form.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not of the expected form.
    #[error("{text:?} is not {what}; write it like {example}")]
    Form {
        /// What was found.
        text: String,
        /// What was expected.
        what: &'static str,
        /// A right example.
        example: &'static str,
    },
    /// Outside the allowed range.
    #[error("{what} must be {range}, not {text}")]
    Range {
        /// What was found.
        text: String,
        /// What was expected.
        what: &'static str,
        /// The range in words.
        range: &'static str,
    },
}

fn form(text: &str, what: &'static str, example: &'static str) -> UnitError {
    UnitError::Form { text: text.chars().take(40).collect(), what, example }
}

/// Splits `12.5abc` into the number's digits, its decimals and the unit. At most nine decimals.
fn split_number(text: &str) -> Option<(u64, &str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || decimals.len() > 9 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    Some((whole.parse().ok()?, decimals, unit.trim()))
}

/// `whole.decimals * scale`, rounded down; `None` when it does not fit.
fn scaled(whole: u64, decimals: &str, scale: u64) -> Option<u64> {
    let mut value = u128::from(whole).checked_mul(u128::from(scale))?;
    if !decimals.is_empty() {
        let power = 10u128.pow(u32::try_from(decimals.len()).ok()?);
        value += decimals.parse::<u128>().ok()? * u128::from(scale) / power;
    }
    u64::try_from(value).ok()
}

/// Thousandths of one processor.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct MilliCpu(pub u32);

/// Most processors one size may name: far above any machine, far below overflow.
const CPUS_MAX: u64 = 4096;

impl FromStr for MilliCpu {
    type Err = UnitError;
    /// `250m`, `2`, `0.5`.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        const WHAT: &str = "a number of processors";
        let bad = || form(text, WHAT, "250m or 2");
        let (whole, decimals, unit) = split_number(text).ok_or_else(bad)?;
        let milli = match unit {
            "" => scaled(whole, decimals, 1000),
            "m" if decimals.is_empty() => Some(whole),
            _ => None,
        };
        let milli = milli.ok_or_else(bad)?;
        if milli == 0 || milli > CPUS_MAX * 1000 {
            return Err(UnitError::Range {
                text: text.to_owned(),
                what: WHAT,
                range: "1m to 4096",
            });
        }
        u32::try_from(milli).map(MilliCpu).map_err(|_big| bad())
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            f.pad(&(self.0 / 1000).to_string())
        } else {
            f.pad(&format!("{}m", self.0))
        }
    }
}

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = UnitError;
    /// `64MiB`, `1.5GiB`, `512B`; the unit is required.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || form(text, "a size", "64MiB");
        let (whole, decimals, unit) = split_number(text).ok_or_else(bad)?;
        let (_, scale) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        scaled(whole, decimals, *scale).map(Bytes).ok_or_else(bad)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BYTE_UNITS[..4].iter().find(|(_, n)| self.0 >= *n && self.0.is_multiple_of(*n));
        match unit {
            Some((name, n)) => f.pad(&format!("{}{name}", self.0 / n)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

/// What an instance says about itself, in ten-thousandths: 10,000 is fully used by its own measure.
/// From 0 to 4.0000; the receiver clips what lies between 4 and 100 and refuses the rest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Load(u16);

impl Load {
    /// Ten-thousandths in 1.0.
    pub const ONE: u16 = 10_000;
    /// The greatest load kept: beyond four times full, more says nothing more.
    pub const MAX: Load = Load(40_000);
    /// Nothing to do.
    pub const ZERO: Load = Load(0);
    /// What a report may say at most; above it the sender is broken, not loaded.
    pub const REPORTED_MAX: f64 = 100.0;

    /// From ten-thousandths, clipped to 4.0.
    #[must_use]
    pub fn from_ten_thousandths(n: u32) -> Load {
        Load(u16::try_from(n.min(u32::from(Self::MAX.0))).unwrap_or(Self::MAX.0))
    }

    /// From a reported number: `None` when not finite, negative or above 100; clipped to 4.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
    pub fn from_reported(x: f64) -> Option<Load> {
        let sane = x.is_finite() && (0.0..=Self::REPORTED_MAX).contains(&x);
        sane.then(|| Load((x.min(4.0) * f64::from(Self::ONE)).round() as u16))
    }

    /// Ten-thousandths.
    #[must_use]
    pub fn ten_thousandths(self) -> u16 {
        self.0
    }

    /// As a ratio, for estimators and display.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ONE)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2}", self.ratio()))
    }
}

/// A share of something, in ten-thousandths (70 % = 7,000).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Share(pub u32);

impl Share {
    /// From whole percent.
    #[must_use]
    pub const fn percent(n: u32) -> Share {
        Share(n * 100)
    }

    /// As a ratio, for estimators and display.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl FromStr for Share {
    type Err = UnitError;
    /// `70%`, `2.5%`; the sign is required; at most 400 %.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || form(text, "a share", "70%");
        let (whole, decimals, unit) = split_number(text).ok_or_else(bad)?;
        if unit != "%" {
            return Err(bad());
        }
        let share = scaled(whole, decimals, 100).ok_or_else(bad)?;
        match u32::try_from(share) {
            Ok(n) if n <= 40_000 => Ok(Share(n)),
            _ => Err(UnitError::Range {
                text: text.to_owned(),
                what: "a share",
                range: "0% to 400%",
            }),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(100) {
            f.pad(&format!("{}%", self.0 / 100))
        } else {
            let text = format!("{}.{:02}", self.0 / 100, self.0 % 100);
            f.pad(&format!("{}%", text.trim_end_matches('0')))
        }
    }
}

const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("ms", 1), ("m", 60_000), ("s", 1000)];

/// Parses `30s`, `500ms`, `5m`, `24h`, `1.5h`; the unit is required; whole milliseconds.
///
/// # Errors
/// [`UnitError::Form`] for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let bad = || form(text, "a duration", "30s");
    let (whole, decimals, unit) = split_number(text).ok_or_else(bad)?;
    let (_, scale) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    scaled(whole, decimals, *scale).map(Duration::from_millis).ok_or_else(bad)
}

/// Writes a duration so that [`parse_duration`] reads it back.
#[must_use]
pub fn show_duration(span: Duration) -> String {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    for (name, scale) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{name}", ms / scale);
        }
    }
    format!("{ms}ms")
}

/// Processors and memory, of an instance or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
}

impl Resources {
    /// The sum of both, saturating.
    #[must_use]
    pub fn plus(self, other: Resources) -> Resources {
        Resources {
            cpu: MilliCpu(self.cpu.0.saturating_add(other.cpu.0)),
            memory: Bytes(self.memory.0.saturating_add(other.memory.0)),
        }
    }

    /// What is left after taking `other`, never below zero.
    #[must_use]
    pub fn minus(self, other: Resources) -> Resources {
        Resources {
            cpu: MilliCpu(self.cpu.0.saturating_sub(other.cpu.0)),
            memory: Bytes(self.memory.0.saturating_sub(other.memory.0)),
        }
    }

    /// Whether `self` has room for `other`.
    #[must_use]
    pub fn holds(self, other: Resources) -> bool {
        self.cpu >= other.cpu && self.memory >= other.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!("250m".parse(), Ok(MilliCpu(250)));
        assert_eq!("0.5".parse(), Ok(MilliCpu(500)));
        assert_eq!("2".parse(), Ok(MilliCpu(2000)));
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("1.5GiB".parse(), Ok(Bytes(3 << 29)));
        assert_eq!("70%".parse(), Ok(Share(7000)));
        assert_eq!("2.5%".parse(), Ok(Share(250)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
    }

    #[test]
    fn quantities_without_units_or_sense_are_refused() {
        for bad in ["", "m", "0", "0m", "-1", "1.5m", "1e3", "1.", "9999999", "1 cpu"] {
            assert!(bad.parse::<MilliCpu>().is_err(), "{bad:?}");
        }
        for bad in ["64", "64mib", "MiB", "1..5GiB", "99999999999999999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        for bad in ["70", "500%", "%", "-1%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad:?}");
        }
        for bad in ["30", "s", "30 parsecs", "-5s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn insane_loads_are_refused_and_high_ones_clipped() {
        for bad in [f64::NAN, f64::INFINITY, -0.1, 100.1] {
            assert_eq!(Load::from_reported(bad), None);
        }
        assert_eq!(Load::from_reported(0.42).unwrap().ten_thousandths(), 4200);
        assert_eq!(Load::from_reported(7.0), Some(Load::MAX));
    }

    proptest! {
        #[test]
        fn shown_quantities_parse_to_themselves(cpu in 1u32..4_000_000, bytes: u64, share in 0u32..40_000, ms in 0u64..1 << 40) {
            prop_assert_eq!(MilliCpu(cpu).to_string().parse(), Ok(MilliCpu(cpu)));
            prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
            prop_assert_eq!(Share(share).to_string().parse(), Ok(Share(share)));
            let span = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(span)), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _unused = (text.parse::<MilliCpu>(), text.parse::<Bytes>(), text.parse::<Share>(), parse_duration(&text));
        }
    }
}
