//! Money in whole micro-units: a thousandth of a cent would lose small hourly prices.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Micro-units in one unit of a currency.
pub const MICROS: i64 = 1_000_000;

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not of the form `12.34 EUR`.
    #[error("{0:?} is not an amount; write it like \"120 EUR\" or \"0.0060 EUR\"")]
    Form(String),
    /// Two currencies met.
    #[error("amounts in {0} and {1} cannot be added; a cluster keeps one currency")]
    Currencies(Currency, Currency),
}

/// Three capital letters (ISO 4217).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Currency = Currency(*b"EUR");
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            &[a, b, c] if text.bytes().all(|x| x.is_ascii_uppercase()) => Ok(Currency([a, b, c])),
            _ => Err(MoneyError::Form(text.chars().take(40).collect())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.to_string()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{}", char::from(*b)))
    }
}

/// An amount in micro-units. Never negative by Tally's doing, but differences may be.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Money(pub i64);

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(0);

    /// The sum, saturating.
    #[must_use]
    pub fn plus(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }

    /// The difference, saturating; may be negative.
    #[must_use]
    pub fn minus(self, other: Money) -> Money {
        Money(self.0.saturating_sub(other.0))
    }

    /// `n` times the amount, saturating.
    #[must_use]
    pub fn times(self, n: u64) -> Money {
        Money(self.0.saturating_mul(i64::try_from(n).unwrap_or(i64::MAX)))
    }

    /// Shown with as few decimals as keep the value, at least two: `0.0060`, `12.50`.
    #[must_use]
    pub fn show(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        let (whole, micros) = (abs / 1_000_000, abs % 1_000_000);
        let mut decimals = format!("{micros:06}");
        while decimals.len() > 2 && decimals.ends_with('0') {
            decimals.pop();
        }
        format!("{sign}{whole}.{decimals}")
    }

    /// Parses `12.34 EUR`.
    ///
    /// # Errors
    /// [`MoneyError::Form`] for anything else, more than six decimals included.
    pub fn parse_with_currency(text: &str) -> Result<(Money, Currency), MoneyError> {
        let bad = || MoneyError::Form(text.chars().take(40).collect());
        let (number, currency) = text.trim().split_once(' ').ok_or_else(bad)?;
        let currency = currency.trim().parse::<Currency>().map_err(|_form| bad())?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(bad());
        }
        let micros: i64 = format!("{decimals:0<6}").parse().map_err(|_overflow| bad())?;
        let whole: i64 = whole.parse().map_err(|_overflow| bad())?;
        whole
            .checked_mul(MICROS)
            .and_then(|w| w.checked_add(micros))
            .map(|m| (Money(m), currency))
            .ok_or_else(bad)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.show())
    }
}

/// Micro-units an hour.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct PricePerHour(pub i64);

impl PricePerHour {
    /// The price of `span`, rounded up to a whole micro-unit: a bill is never underestimated.
    #[must_use]
    pub fn over(self, span: Duration) -> Money {
        let micros = i128::from(self.0.max(0)) * i128::try_from(span.as_millis()).unwrap_or(0);
        let hour_ms = 3_600_000_i128;
        Money(i64::try_from((micros + hour_ms - 1) / hour_ms).unwrap_or(i64::MAX))
    }

    /// Whether the node costs nothing.
    #[must_use]
    pub fn is_free(self) -> bool {
        self.0 <= 0
    }
}

impl fmt::Display for PricePerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Money(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_and_show() {
        let (m, c) = Money::parse_with_currency("0.0060 EUR").unwrap();
        assert_eq!((m, c, m.show()), (Money(6000), Currency::EUR, "0.006".to_owned()));
        assert_eq!(Money(120 * MICROS).show(), "120.00");
        for bad in ["", "12", "12EUR", "-1 EUR", "1.2345678 EUR", "1 eur", "1e3 EUR", "1. EUR"] {
            assert!(Money::parse_with_currency(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_price_rounds_up() {
        assert_eq!(PricePerHour(1).over(Duration::from_secs(1)), Money(1));
        assert_eq!(PricePerHour(3_600_000).over(Duration::from_secs(1)), Money(1000));
        assert_eq!(PricePerHour(0).over(Duration::from_secs(1)), Money(0));
    }

    proptest! {
        #[test]
        fn shown_amounts_parse_to_themselves(micros in 0i64..i64::MAX / 2) {
            let text = format!("{} USD", Money(micros));
            prop_assert_eq!(Money::parse_with_currency(&text).unwrap().0, Money(micros));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _unused = Money::parse_with_currency(&text);
        }
    }
}
