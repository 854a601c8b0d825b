//! An open-loop load: requests leave at their scheduled times whatever becomes of earlier ones,
//! and latency counts from the schedule, so that queueing is not hidden.

use chassis::{Shutdown, SystemClock};
use domain::{Clock, Mono};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request without an answer after this has failed.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Requests under way at once: beyond it the demo's host is overloaded and the run is void.
const UNDER_WAY_MAX: usize = 5000;

/// One answered or failed request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was due.
    pub at: Mono,
    /// From its due time to the end of its answer.
    pub latency: Duration,
    /// Who answered; `None`: failed.
    pub instance: Option<String>,
}

/// A piece of the load: at `rate` until `until`, in a straight line from the former rate.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    /// End, seconds from the start.
    pub until: f64,
    /// Requests a second at its end.
    pub rate: f64,
}

/// What came of the load so far.
#[derive(Debug, Default)]
pub struct Samples(Mutex<Vec<Sample>>);

impl Samples {
    /// Adds one.
    pub fn add(&self, sample: Sample) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    /// Requests due within `[from, until)`.
    pub fn between(&self, from: Mono, until: Mono) -> Vec<Sample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().filter(|s| s.at >= from && s.at < until).cloned().collect()
    }

    /// All requests and the failed ones.
    pub fn totals(&self) -> (usize, usize) {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (samples.len(), samples.iter().filter(|s| s.instance.is_none()).count())
    }
}

/// The rate at `seconds`; `None` after the last leg.
pub fn rate_at(legs: &[Leg], seconds: f64) -> Option<f64> {
    let mut from = Leg { until: 0.0, rate: legs.first()?.rate };
    for leg in legs {
        if seconds < leg.until {
            let part = (seconds - from.until) / (leg.until - from.until).max(1e-9);
            return Some(from.rate + (leg.rate - from.rate) * part.clamp(0.0, 1.0));
        }
        from = *leg;
    }
    None
}

/// Sends the legs' load to `url` with `host`, until its end or the shutdown.
pub async fn run(
    url: String,
    host: &'static str,
    legs: Vec<Leg>,
    clock: SystemClock,
    samples: Arc<Samples>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(256)
        .timeout(REQUEST_DEADLINE)
        .build()?;
    let began = clock.monotonic();
    let mut due = 0.0_f64;
    let slots = Arc::new(tokio::sync::Semaphore::new(UNDER_WAY_MAX));
    while let Some(rate) = rate_at(&legs, due) {
        due += 1.0 / rate.max(1.0);
        let at = began.plus(Duration::from_secs_f64(due));
        let wait = at.since(clock.monotonic());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.started() => break,
        }
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (client, url, samples) = (client.clone(), url.clone(), Arc::clone(&samples));
        tokio::spawn(async move {
            let instance = one(&client, &url, host).await;
            samples.add(Sample { at, latency: clock.monotonic().since(at), instance });
            drop(slot);
        });
    }
    let all = u32::try_from(UNDER_WAY_MAX)?;
    let _answered = tokio::time::timeout(REQUEST_DEADLINE, slots.acquire_many(all)).await;
    Ok(())
}

/// One request; the instance that answered it, or `None`.
pub async fn one(client: &reqwest::Client, url: &str, host: &str) -> Option<String> {
    let response = client.get(url).header(http::header::HOST, host).send().await.ok()?;
    let instance = response
        .headers()
        .get(super::service::INSTANCE_HEADER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let ok = response.status().is_success();
    // A body that breaks off is a failed request, whatever its head said.
    let whole = response.bytes().await.is_ok();
    instance.filter(|_| ok && whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_goes_in_straight_lines() {
        let legs = [Leg { until: 10.0, rate: 20.0 }, Leg { until: 20.0, rate: 120.0 }];
        assert_eq!(rate_at(&legs, 5.0).map(f64::round), Some(20.0));
        assert_eq!(rate_at(&legs, 15.0).map(f64::round), Some(70.0));
        assert_eq!(rate_at(&legs, 20.0), None);
        assert_eq!(rate_at(&[], 0.0), None);
    }
}
