//! Demand as JSON, and the numbers that fronts share.

use super::bounded;
use domain::{BalancerId, Demand, InstanceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest span read; longer is a mistake.
const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest demand read: in-flight counts of [`ServiceSpec::INSTANCES_MAX`] instances with names of
/// full length.
pub const DEMAND_BYTES_MAX: usize = 1024 * 1024;
/// Milliseconds as a number with decimals; kept to the microsecond.
pub(super) fn ms(span: Duration) -> f64 {
    let micros = u32::try_from(span.as_micros() % 1_000_000_000).unwrap_or(0);
    let rest = u32::try_from(span.as_micros() / 1_000_000_000).unwrap_or(u32::MAX);
    f64::from(rest) * 1_000_000.0 + f64::from(micros) / 1000.0
}

pub(super) fn read_ms(number: f64, what: &str) -> Result<Duration, String> {
    if number.is_finite() && (0.0..=SPAN_MAX.as_secs_f64() * 1000.0).contains(&number) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "range checked"
        )]
        Ok(Duration::from_micros((number * 1000.0).round() as u64))
    } else {
        Err(format!("{what} cannot be {number}"))
    }
}

fn read_rate(number: f64, what: &str) -> Result<u64, String> {
    /// A thousand million requests a second: no service has them.
    const RATE_MAX: f64 = 1e9;
    if number.is_finite() && (0.0..=RATE_MAX).contains(&number) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "range checked"
        )]
        Ok((number * 1000.0).round() as u64)
    } else {
        Err(format!("{what} cannot be {number}"))
    }
}

fn rate(milli: u64) -> f64 {
    /// Whole part that a float keeps exactly beside three decimals.
    const MILLI_MAX: u64 = 1_000_000_000_000;
    let milli = milli.min(MILLI_MAX);
    let whole = u32::try_from(milli / 1000).unwrap_or(u32::MAX);
    let rest = u32::try_from(milli % 1000).unwrap_or(0);
    f64::from(whole) + f64::from(rest) / 1000.0
}

#[derive(Serialize, Deserialize)]
struct DemandText {
    /// Written by the board; absent where another program wrote.
    #[serde(default, skip_serializing)]
    board_ms: Option<i64>,
    at_ms: i64,
    queued: u32,
    oldest_wait_ms: f64,
    in_flight: BTreeMap<String, u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    set_aside: Vec<String>,
    rps: f64,
    errors: f64,
    p50_ms: f64,
    p95_ms: f64,
    #[serde(default)]
    last_request_ms: Option<f64>,
    #[serde(default)]
    open_connections: u32,
    routes_gen: String,
}

/// Demand as JSON. The board adds the field `board_ms` in front: its own time.
///
/// # Errors
/// None in practice: the text has no form JSON could not say.
pub fn demand(demand: &Demand) -> Result<String, String> {
    let text = DemandText {
        board_ms: None,
        at_ms: demand.at.0,
        queued: demand.queued,
        oldest_wait_ms: ms(demand.oldest_wait),
        in_flight: demand.in_flight.iter().map(|(i, n)| (i.to_string(), *n)).collect(),
        set_aside: demand.set_aside.iter().map(ToString::to_string).collect(),
        rps: rate(demand.rps_milli),
        errors: rate(demand.eps_milli),
        p50_ms: ms(demand.p50),
        p95_ms: ms(demand.p95),
        last_request_ms: demand.last_request_ago.map(ms),
        open_connections: demand.open_connections,
        routes_gen: demand.routes_gen.to_string(),
    };
    serde_json::to_string(&text).map_err(|why| why.to_string())
}

/// Reads one balancer's demand, with its age at the board's time `now`.
///
/// # Errors
/// What is wrong with it.
pub fn read_demand(
    balancer: &str,
    text: &str,
    now: Timestamp,
) -> Result<(BalancerId, Demand, Duration), String> {
    bounded(text, DEMAND_BYTES_MAX)?;
    let balancer = balancer.parse().map_err(|why: domain::IdError| why.to_string())?;
    let text: DemandText = serde_json::from_str(text).map_err(|why| why.to_string())?;
    let in_flight = text.in_flight.into_iter().map(|(instance, n)| {
        instance.parse().map(|i: InstanceId| (i, n)).map_err(|why| why.to_string())
    });
    let set_aside = text
        .set_aside
        .into_iter()
        .map(|instance| instance.parse::<InstanceId>().map_err(|why| why.to_string()));
    let demand = Demand {
        at: Timestamp(text.at_ms),
        queued: text.queued,
        oldest_wait: read_ms(text.oldest_wait_ms, "oldest_wait_ms")?,
        in_flight: in_flight.collect::<Result<_, String>>()?,
        set_aside: set_aside.collect::<Result<_, String>>()?,
        rps_milli: read_rate(text.rps, "rps")?,
        eps_milli: read_rate(text.errors, "errors")?,
        p50: read_ms(text.p50_ms, "p50_ms")?,
        p95: read_ms(text.p95_ms, "p95_ms")?,
        last_request_ago: match text.last_request_ms {
            Some(number) => Some(read_ms(number, "last_request_ms")?),
            None => None,
        },
        open_connections: text.open_connections,
        routes_gen: text.routes_gen.parse()?,
    };
    let age = now.since(Timestamp(text.board_ms.unwrap_or(text.at_ms)));
    Ok((balancer, demand, age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::RouteGen;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn demand_reads_as_written(
            numbers in any::<(u32, u32, u32, u32)>(),
            micros in proptest::array::uniform4(0u64..30_000_000_000),
            rates in proptest::array::uniform2(0u64..1_000_000_000),
            last in any::<bool>(),
            at in 0i64..1 << 45,
        ) {
            let instance: InstanceId = "shop-0000000000".parse().unwrap();
            let wanted = Demand {
                at: Timestamp(at),
                queued: numbers.0,
                oldest_wait: Duration::from_micros(micros[0]),
                in_flight: [(instance.clone(), numbers.1)].into(),
                set_aside: last.then_some(instance).into_iter().collect(),
                rps_milli: rates[0],
                eps_milli: rates[1],
                p50: Duration::from_micros(micros[1]),
                p95: Duration::from_micros(micros[2]),
                last_request_ago: last.then(|| Duration::from_micros(micros[3])),
                open_connections: numbers.2,
                routes_gen: format!("{}.7", numbers.3).parse::<RouteGen>().unwrap(),
            };
            let text = demand(&wanted).unwrap();
            let (balancer, got, age) = read_demand("b-1", &text, Timestamp(at + 40)).unwrap();
            prop_assert_eq!(balancer.as_str(), "b-1");
            prop_assert_eq!(got, wanted);
            prop_assert_eq!(age, Duration::from_millis(40));
            let stamped = format!("{{\"board_ms\":{},{}", at + 10, &text[1..]);
            let (_, _, age) = read_demand("b-1", &stamped, Timestamp(at + 40)).unwrap();
            prop_assert_eq!(age, Duration::from_millis(30));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,200}", number in any::<f64>()) {
            let _unused = read_demand("b", &text, Timestamp(0));
            let _unused = (read_ms(number, "x"), read_rate(number, "x"));
        }
    }

    #[test]
    fn spans_and_rates_outside_reason_are_refused() {
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(read_ms(bad, "x").is_err() && read_rate(bad, "x").is_err(), "{bad}");
        }
    }
}
