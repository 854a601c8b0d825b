//! Terms of an instance as text: `weight max_in_flight at_ms`.

use super::{LINE_BYTES_MAX, OrNone, bounded, optional, word};
use domain::{Terms, Timestamp};

/// Terms that were taken then.
#[must_use]
pub fn terms(terms: Terms, at: Timestamp) -> String {
    format!("{} {} {}", terms.weight, OrNone(terms.max_in_flight), at.0)
}

/// Reads terms and the time they were taken.
///
/// # Errors
/// What is wrong with them.
pub fn read_terms(text: &str) -> Result<(Terms, Timestamp), String> {
    bounded(text, LINE_BYTES_MAX)?;
    let mut words = text.split_ascii_whitespace();
    let weight = word(&mut words, "weight")?;
    let max_in_flight = optional(&mut words, "max_in_flight")?;
    Ok((Terms { weight, max_in_flight }, Timestamp(word(&mut words, "at_ms")?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn terms_read_as_written(weight: u32, max_in_flight: Option<u32>, at in 0i64..i64::MAX) {
            let given = Terms { weight, max_in_flight };
            prop_assert_eq!(read_terms(&terms(given, Timestamp(at))), Ok((given, Timestamp(at))));
        }

        #[test]
        fn no_text_panics(text in "[-0-9 a-z]{0,40}") {
            let _unused = read_terms(&text);
        }
    }
}
