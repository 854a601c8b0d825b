//! Turning samples into figures: medians, spreads, and what wrk and the kernel report.

use anyhow::{Context, Result, bail};

/// The middle of some samples and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Figure {
    /// Of at least one sample.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(samples: &[f64]) -> Result<Figure> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            bail!("no samples");
        };
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Ok(Figure { median, min: *min, max: *max })
    }
}

/// What one run of wrk did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Answers that were no 2xx or 3xx, and connections that failed.
    pub errors: u64,
    /// Requests a second.
    pub rate: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
}

impl Load {
    /// Reads what `wrk --latency` prints.
    ///
    /// # Errors
    /// When it printed something else.
    pub fn of_wrk(output: &str) -> Result<Load> {
        let line_with = |word: &str| output.lines().map(str::trim).find(|line| line.contains(word));
        let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let requests = line_with(" requests in ")
            .and_then(first)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("wrk printed no count of requests:\n{output}"))?;
        let rate = line_with("Requests/sec:")
            .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .context("wrk printed no rate")?;
        let p99_ms = line_with("99%")
            .and_then(|line| milliseconds(line.split_whitespace().nth(1)?))
            .context("wrk printed no 99th percentile")?;
        let bad = line_with("Non-2xx").and_then(|line| line.rsplit(' ').next()?.parse().ok());
        let sockets: u64 = line_with("Socket errors:").map_or(0, |line| {
            let words = line.split([' ', ',']);
            words.filter_map(|word| word.parse::<u64>().ok()).sum()
        });
        Ok(Load { requests, errors: bad.unwrap_or(0) + sockets, rate, p99_ms })
    }
}

/// `1.23ms`, `980.00us` or `1.10s`.
fn milliseconds(text: &str) -> Option<f64> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<f64>().ok();
    number("us")
        .map(|us| us / 1000.0)
        .or_else(|| number("ms"))
        .or_else(|| Some(number("s")? * 1000.0))
}

impl Figure {
    /// As it stands in a result.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

/// The quotient of two counts.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a run's counts are far below 2^53")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_and_even_samples() {
        let odd = Figure::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(format!("{odd:?}"), "Figure { median: 2.0, min: 1.0, max: 3.0 }");
        let even = Figure::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert!((even.median - 2.5).abs() < 1e-9);
        assert!(Figure::of(&[]).is_err());
    }

    #[test]
    fn wrk_is_read_with_and_without_errors() {
        let clean = "Running 2s test @ http://127.0.0.1:8080/\n\
                     \x20 Latency Distribution\n     50%  411.00us\n     99%    1.25ms\n\
                     \x20 20100 requests in 2.00s, 2.5MB read\nRequests/sec:  10050.25\n";
        let load = Load::of_wrk(clean).unwrap();
        assert_eq!((load.requests, load.errors), (20_100, 0));
        assert!((load.p99_ms - 1.25).abs() < 1e-9 && (load.rate - 10_050.25).abs() < 1e-9);
        let bad = format!(
            "{clean}  Socket errors: connect 1, read 2, write 0, timeout 3\n\
             \x20 Non-2xx or 3xx responses: 7\n"
        );
        assert_eq!(Load::of_wrk(&bad).unwrap().errors, 13);
        assert!(Load::of_wrk("unable to connect").is_err());
    }
}
