//! What runs of a workload say: medians, ratios to round robin and to the best, bars.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::contender::Contender;
use super::run::{Part, Run};
use super::workload::Workload;
use crate::bars::Bar;
use crate::figures::{Figure, ratio};

/// Two policies this near are tied, unless the runs' own spread is larger.
const TIED: f64 = 1.03;
/// The promise for every workload.
const NEAR: f64 = 1.10;
/// The promise where instances fail at once, percent.
const LOST_MAX: f64 = 1.0;

/// One contender over all runs of a workload.
#[derive(Debug)]
pub struct Row {
    /// Who.
    pub name: String,
    /// Milliseconds.
    pub p50: Figure,
    /// Milliseconds.
    pub p99: Figure,
    /// Milliseconds.
    pub p999: Figure,
    /// Percent of requests that failed or were not answered in time.
    pub lost: Figure,
    /// Largest share of one instance against an equal one.
    pub most_share: Figure,
    /// Busiest instance against the mean.
    pub busy_spread: Figure,
    /// Its p99 over round robin's, run by run.
    pub to_round_robin: Option<f64>,
    /// Its p99 over the best one's, run by run.
    pub to_best: f64,
    ours: bool,
    p99s: Vec<f64>,
    last_requests: Figure,
    proxy_share: Figure,
}

/// A workload's result.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    rows: Vec<Row>,
    best: usize,
    void: usize,
    runs: usize,
    alone: bool,
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^53")]
fn count(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of minutes")]
fn ms(part: &Part, quantile: f64) -> f64 {
    part.record.latency.value_at_quantile(quantile) as f64 / 1000.0
}

fn lost(part: &Part) -> f64 {
    let record = &part.record;
    let lost = record.failed + record.unfinished;
    100.0 * ratio(lost, lost + record.good)
}

/// Medians of ratios, run by run: what disturbed a run disturbed both.
fn paired(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    Figure::of(&ratios).map_or(f64::NAN, |figure| figure.median)
}

impl Table {
    /// Of at least one run.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(workload: &Workload, contenders: &[Contender], runs: &[Run]) -> Result<Table> {
        let valid: Vec<&Run> = runs.iter().filter(|run| run.void.is_none()).collect();
        let void = runs.len() - valid.len();
        let counted: Vec<&Run> = if valid.is_empty() { runs.iter().collect() } else { valid };
        let figure = |index: usize, of: &dyn Fn(&Part) -> f64| {
            Figure::of(&counted.iter().map(|run| of(&run.parts[index])).collect::<Vec<_>>())
        };
        let mut rows = Vec::new();
        for (index, contender) in contenders.iter().enumerate() {
            rows.push(Row {
                name: contender.to_string(),
                p50: figure(index, &|part| ms(part, 0.5))?,
                p99: figure(index, &|part| ms(part, 0.99))?,
                p999: figure(index, &|part| ms(part, 0.999))?,
                lost: figure(index, &lost)?,
                most_share: figure(index, &|part| part.most_share)?,
                busy_spread: figure(index, &|part| part.busy_spread)?,
                to_round_robin: None,
                to_best: 1.0,
                ours: contender.is_ours(),
                proxy_share: figure(index, &|part| part.proxy_share)?,
                last_requests: figure(index, &|part| count(part.last_requests))?,
                p99s: counted.iter().map(|run| ms(&run.parts[index], 0.99)).collect(),
            });
        }
        // A policy that loses requests is not the best because the others came quickly.
        let least_lost = rows.iter().map(|r| r.lost.median).fold(f64::INFINITY, f64::min);
        let sound = |row: &Row| row.lost.median <= least_lost + LOST_MAX;
        let order =
            |a: &(usize, &Row), b: &(usize, &Row)| a.1.p99.median.total_cmp(&b.1.p99.median);
        let best = rows.iter().enumerate().filter(|(_, row)| sound(row)).min_by(order);
        let best = best.context("nobody ran")?.0;
        let best_p99s = rows[best].p99s.clone();
        let turn = rows.iter().find(|row| row.name == "tally:round-robin");
        let turn = turn.map(|row| row.p99s.clone());
        for row in &mut rows {
            row.to_best = paired(&row.p99s, &best_p99s);
            row.to_round_robin = turn.as_ref().map(|turn| paired(&row.p99s, turn));
        }
        Ok(Table {
            name: workload.name,
            rows,
            best,
            void,
            runs: runs.len(),
            alone: workload.alone.is_some(),
        })
    }

    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:28} {:>8} {:>8} {:>8}  {:>7} {:>7}  {:>7}  {:>6} {:>6} {:>6}",
            "",
            "p50 ms",
            "p99 ms",
            "p99.9",
            "p99/RR",
            "p99/best",
            "lost %",
            "share",
            "busy",
            "CPU %"
        )];
        for (index, row) in self.rows.iter().enumerate() {
            let to_turn = row.to_round_robin.map_or("-".to_owned(), |r| format!("{r:.2}"));
            lines.push(format!(
                "{:28} {:>8.1} {:>8.0} {:>8.0}  {:>7} {:>7.2}  {:>7.2}  {:>6.2} {:>6.2} {:>6.1}{}",
                row.name,
                row.p50.median,
                row.p99.median,
                row.p999.median,
                to_turn,
                row.to_best,
                row.lost.median,
                row.most_share.median,
                row.busy_spread.median,
                row.proxy_share.median * 100.0,
                if index == self.best { "  best" } else { "" }
            ));
        }
        if self.void > 0 {
            lines.push(format!("{} of {} runs void", self.void, self.runs));
        }
        lines.extend(self.verdict());
        lines.extend(self.bars().iter().map(Bar::line));
        lines
    }

    /// Our default, where it competes with others.
    fn ours(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.ours && !self.alone)
    }

    /// Ours against ours: a quiet one, and one to which something happens.
    fn bars_alone(&self) -> Vec<Bar> {
        let [quiet, other] = self.rows.as_slice() else { return Vec::new() };
        let name = self.name;
        let p99 = paired(&other.p99s, &quiet.p99s);
        let lost = Bar::at_most(format!("{name}: percent of requests lost"), other.lost.max, 0.0);
        let mut bars = vec![lost];
        if name == "churn" {
            bars.push(Bar::at_most(format!("{name}: p99 over the quiet one's"), p99, 1.5));
        } else {
            bars.push(Bar::at_most(format!("{name}: p99 over that without it"), p99, 1.05));
            let got = other.last_requests.max;
            bars.push(Bar::at_most(format!("{name}: requests at that instance"), got, 0.0));
        }
        bars
    }

    /// Whether our default is the best here, tied with it, near it, or has lost.
    #[must_use]
    pub fn verdict(&self) -> Option<String> {
        let ours = self.ours()?;
        let best = &self.rows[self.best];
        let word = if best.ours {
            "the best"
        } else if self.tied(ours) {
            "tied with the best"
        } else if ours.to_best <= NEAR {
            "within 10 % of the best"
        } else {
            "LOST"
        };
        Some(format!(
            "{}: {} is {word} ({} {:.0} ms, ours {:.0} ms, x{:.2})",
            self.name, ours.name, best.name, best.p99.median, ours.p99.median, ours.to_best
        ))
    }

    fn tied(&self, row: &Row) -> bool {
        let best = &self.rows[self.best].p99;
        let spread = (best.max - best.min) / best.median / 2.0;
        row.to_best <= TIED.max(1.0 + spread.min(NEAR - 1.0))
    }

    /// Whether our default is the best here or tied with it.
    #[must_use]
    pub fn won(&self) -> bool {
        self.ours().is_some_and(|ours| self.rows[self.best].ours || self.tied(ours))
    }

    /// The promises that concern this workload.
    #[must_use]
    pub fn bars(&self) -> Vec<Bar> {
        if self.alone {
            return self.bars_alone();
        }
        let Some(ours) = self.ours() else { return Vec::new() };
        let name = self.name;
        let best = &self.rows[self.best].name;
        let mut bars =
            vec![Bar::at_most(format!("{name}: p99 over the best ({best})"), ours.to_best, NEAR)];
        let wanted = match name {
            "heavy-80" => Some(0.70),
            "heavy-90" => Some(0.50),
            _ => None,
        };
        if let (Some(bar), Some(figure)) = (wanted, ours.to_round_robin) {
            bars.push(Bar::at_most(format!("{name}: p99 over round robin"), figure, bar));
        }
        if name == "fail-fast" {
            let what = format!("{name}: percent of requests lost without retries");
            bars.push(Bar::at_most(what, ours.lost.median, LOST_MAX));
        }
        bars
    }

    /// As it stands in the result.
    #[must_use]
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "who": row.name,
                "p50_ms": row.p50.json(),
                "p99_ms": row.p99.json(),
                "p999_ms": row.p999.json(),
                "lost_percent": row.lost.json(),
                "most_share": row.most_share.json(),
                "proxy_share_of_machine": row.proxy_share.json(),
                "busy_spread": row.busy_spread.json(),
                "p99_to_round_robin": row.to_round_robin,
                "p99_to_best": row.to_best,
            })
        };
        json!({
            "runs": self.runs,
            "void": self.void,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "verdict": self.verdict(),
            "bars": self.bars().iter().map(Bar::json).collect::<Vec<_>>(),
        })
    }
}
