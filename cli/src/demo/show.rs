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
        self.status_parts().join("  ")
    }

    /// Traffic, instances, money: one after the other in a log, one below the other on a terminal.
    fn status_parts(&self) -> [String; 3] {
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
        [
            format!(
                "{:6.1}s  {:4.0} req/s  {all} requests, {failed} failed",
                now.since(self.began).as_secs_f64(),
                count(recent.len()) / WINDOW.as_secs_f64(),
            ),
            format!(
                "load {load:>5}  instances {} ready, {} starting, {} draining",
                state.ready, state.starting, state.draining,
            ),
            format!("nodes {}  {money}", seen.nodes.len()),
        ]
    }

    /// Draws over the `drawn` lines of the last picture; answers how many lines this one has.
    fn draw(&self, drawn: usize) -> usize {
        let (columns, rows) = terminal();
        let mut lines: Vec<String> = self.status_parts().to_vec();
        for (instance, part, load) in self.parts() {
            let bar = "#".repeat(usize::try_from(part / 2).unwrap_or(0));
            lines.push(format!("   {instance:<20} load {load:>8}  {part:>3} % {bar}"));
        }
        lines.push(String::new());
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rows.saturating_sub(lines.len() + 1).min(STORY_LINES);
        for m in seen.timeline.iter().skip(seen.timeline.len().saturating_sub(room)) {
            lines.push(format!("{:6.1}s  {:<20} {}", m.at_seconds, m.event, m.detail));
        }
        // A line that wraps would be two, and the next picture would begin too low.
        let picture = lines.iter().fold(String::new(), |mut picture, line| {
            let cut: String = line.chars().take(columns.saturating_sub(1)).collect();
            let _never_fails = writeln!(picture, "{cut}");
            picture
        });
        if drawn > 0 {
            eprint!("\x1b[{drawn}A\x1b[J");
        }
        eprint!("{picture}");
        lines.len()
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

/// Columns and rows of the terminal; the usual 80 by 24 where it does not say.
fn terminal() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let size = size.filter(|s| s.ws_col > 0 && s.ws_row > 0);
    size.map_or((80, 24), |s| (usize::from(s.ws_col), usize::from(s.ws_row)))
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn count(n: usize) -> f64 {
    n as f64
}
