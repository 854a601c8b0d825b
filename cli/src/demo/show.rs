//! How the demo looks while it runs: a live view on a terminal, lines in a log.

#![expect(clippy::print_stderr, reason = "progress goes to stderr; stdout holds the summary alone")]

use super::load::Samples;
use super::watch::Seen;
use chassis::{Shutdown, SystemClock};
use domain::{Clock, Mono};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two pictures on a terminal.
const PICTURE: Duration = Duration::from_millis(500);
/// Between two status lines in a log.
const LINE: Duration = Duration::from_secs(2);
/// Story lines shown below the picture.
const STORY_LINES: usize = 12;
/// Over how long shares and rates are shown.
const WINDOW: Duration = Duration::from_secs(2);

/// Shows what is seen.
pub struct Show {
    /// Lines instead of a picture.
    pub plain: bool,
    /// What was seen.
    pub seen: Arc<Mutex<Seen>>,
    /// What came of the load.
    pub samples: Arc<Samples>,
    /// Time.
    pub clock: SystemClock,
    /// When the demo began.
    pub began: Mono,
}

impl Show {
    /// Shows until the shutdown starts, and the rest of the story then.
    pub async fn run(self, shutdown: Shutdown) {
        let (mut told, mut drawn) = (0, 0);
        let pause = if self.plain { LINE } else { PICTURE };
        while !shutdown.has_started() {
            if self.plain {
                told = self.tell_new(told);
                eprintln!("{}", self.status());
            } else {
                drawn = self.draw(drawn);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.started() => {}
            }
        }
        if self.plain {
            self.tell_new(told);
        } else {
            self.draw(drawn);
        }
    }

    fn tell_new(&self, told: usize) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for moment in seen.timeline.iter().skip(told) {
            eprintln!("{:6.1}s  {:<20} {}", moment.at_seconds, moment.event, moment.detail);
        }
        seen.timeline.len()
    }

    fn status(&self) -> String {
        let now = self.clock.monotonic();
        let from = Mono(now.0.saturating_sub(WINDOW));
        let recent = self.samples.between(from, now);
        let (all, failed) = self.samples.totals();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let state = seen.service.as_ref().map(|s| s.state.clone()).unwrap_or_default();
        let load = state.load.map_or_else(|| "-".to_owned(), |l| format!("{:.0} %", l * 100.0));
        let money = seen.budget.as_ref().map_or_else(String::new, |b| {
            format!("spent {} + promised {} of {}", b.spent, b.obligations, b.monthly_cap)
        });
        format!(
            "{:6.1}s  {:4.0} req/s  load {load:>5}  instances {} ready, {} starting, {} draining  \
             nodes {}  {money}  requests {all}, failed {failed}",
            now.since(self.began).as_secs_f64(),
            count(recent.len()) / WINDOW.as_secs_f64(),
            state.ready,
            state.starting,
            state.draining,
            seen.nodes.len(),
        )
    }

    /// Draws over the `drawn` lines of the last picture; answers how many lines this one has.
    fn draw(&self, drawn: usize) -> usize {
        let mut picture = String::new();
        let _never_fails = writeln!(picture, "{}", self.status());
        for (instance, part, load) in self.parts() {
            let bar = "#".repeat(usize::try_from(part / 2).unwrap_or(0));
            let _never_fails =
                writeln!(picture, "   {instance:<20} load {load:>5}  {part:>3} % {bar}");
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = seen.timeline.len().saturating_sub(STORY_LINES);
        for m in seen.timeline.iter().skip(skip) {
            let detail: String = m.detail.chars().take(110).collect();
            let _never_fails = writeln!(picture, "{:6.1}s  {:<20} {detail}", m.at_seconds, m.event);
        }
        if drawn > 0 {
            eprint!("\x1b[{drawn}A\x1b[J");
        }
        eprint!("{picture}");
        picture.lines().count()
    }

    /// Each instance with its share of recent requests in percent, and its load.
    fn parts(&self) -> Vec<(String, u32, String)> {
        let now = self.clock.monotonic();
        let recent = self.samples.between(Mono(now.0.saturating_sub(WINDOW)), now);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for instance in recent.iter().filter_map(|s| s.instance.as_deref()) {
            *counts.entry(instance).or_default() += 1;
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = recent.len().max(1);
        seen.instances
            .iter()
            .map(|i| {
                let part = counts.get(i.id.as_str()).copied().unwrap_or(0) * 100 / all;
                let load = i.load.map_or_else(|| i.state.clone(), |l| format!("{l:.2}"));
                (i.id.to_string(), u32::try_from(part).unwrap_or(100), load)
            })
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn count(n: usize) -> f64 {
    n as f64
}
