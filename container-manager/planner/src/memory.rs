//! What a decision must remember of a service, and its text form for the registry.

use crate::guard::Guard;
use crate::windows::{Part, Peaks, Window};
use domain::route::RouteGen;
use domain::{InstanceId, LoadSource, Revision, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

/// First line of the text form; another version is read as nothing remembered.
const HEADER: &str = "tally-memory 1";
/// Longest text read back: 10,000 draining instances fit.
const TEXT_MAX: usize = 4 << 20;
/// Start times kept to learn from.
pub const STARTS_MAX: usize = 20;

/// Why a text is no memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Not this format.
    #[error("the text does not begin with {HEADER:?}; the service starts with nothing remembered")]
    Header,
    /// Too long to be ours.
    #[error("the text is longer than {TEXT_MAX} bytes")]
    Length,
    /// A line that cannot be read.
    #[error("line {line} cannot be read: {text:?}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
}

/// What is remembered of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstanceMemory {
    /// Its last fresh load, ten-thousandths; not durable.
    pub load: Option<u64>,
    /// When a fresh load was last seen; not durable.
    pub heard_at: Timestamp,
    /// When something was last in flight there; not durable.
    pub busy_at: Timestamp,
    /// The routes that first showed it draining.
    pub drain_gen: Option<RouteGen>,
}

/// What a service's next decision needs of the last ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Instances wanted now.
    pub wanted: Option<u32>,
    /// Where a scale-in in steps is going.
    pub goal: Option<u32>,
    /// When the last scale-in step was.
    pub down_at: Option<Timestamp>,
    /// Number wanted when the present span of bounded growth began.
    pub up_base: Option<(Timestamp, u32)>,
    /// When a burst was last seen.
    pub burst_at: Option<Timestamp>,
    /// When somebody last used the service.
    pub active_at: Option<Timestamp>,
    /// Since when at least one instance has been ready.
    pub ready_since: Option<Timestamp>,
    /// Who speaks for the load of this revision.
    pub source: Option<(Revision, LoadSource)>,
    /// Demand over the window.
    pub window: Window,
    /// Need over the look back.
    pub peaks: Peaks,
    /// How starts of the newest revision went.
    pub guard: Guard,
    /// The newest revision that was well for its bake time.
    pub good: Option<Revision>,
    /// Durations of the last starts, in milliseconds.
    pub starts_ms: Vec<u32>,
    /// Version of the routes last decided.
    pub routes_gen: RouteGen,
    /// Digest of their content.
    pub routes_digest: u64,
    /// Digest of the last obstacle told, so that it is told once.
    pub told: u64,
    /// When this was last due to be made durable.
    pub saved_at: Option<Timestamp>,
    /// Per instance.
    pub instances: BTreeMap<InstanceId, InstanceMemory>,
}

impl Memory {
    /// A learned start time at `percent` of the starts, in milliseconds; `None` with fewer than 3.
    #[must_use]
    pub fn start_ms(&self, percent: usize) -> Option<u32> {
        let mut sorted = self.starts_ms.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        (sorted.len() >= 3).then(|| sorted[rank.clamp(1, sorted.len()) - 1])
    }

    /// Learns how long a start took.
    pub fn learn_start(&mut self, took_ms: u32) {
        self.starts_ms.push(took_ms);
        if self.starts_ms.len() > STARTS_MAX {
            self.starts_ms.remove(0);
        }
    }

    /// The text form: a version line, then one fact a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        let mut line = |key: &str, words: &[String]| {
            let written = writeln!(text, "{key} {}", words.join(" "));
            debug_assert!(written.is_ok(), "writing to a string");
        };
        let stamp = |at: Timestamp| at.0.to_string();
        let numbers = [("wanted", self.wanted), ("goal", self.goal)];
        for (key, value) in numbers {
            value.iter().for_each(|v| line(key, &[v.to_string()]));
        }
        let stamps = [
            ("down_at", self.down_at),
            ("burst_at", self.burst_at),
            ("active_at", self.active_at),
            ("ready_since", self.ready_since),
            ("saved_at", self.saved_at),
        ];
        for (key, at) in stamps {
            at.iter().for_each(|at| line(key, &[stamp(*at)]));
        }
        if let Some((at, n)) = self.up_base {
            line("up_base", &[stamp(at), n.to_string()]);
        }
        if let Some((revision, source)) = self.source {
            line("source", &[revision.to_string(), source.to_string()]);
        }
        if let Some(good) = self.good {
            line("good", &[good.to_string()]);
        }
        if let Some(at) = self.window.at {
            line("window", &[self.window.part_ms.to_string(), stamp(at)]);
        }
        for p in &self.window.parts {
            let words = [p.index.to_string(), p.up.to_string(), p.down.to_string()];
            line("part", &[words.join(" "), p.covered_ms.to_string()]);
        }
        for (at, value) in &self.peaks.steps {
            line("peak", &[stamp(*at), value.to_string()]);
        }
        let guard = &self.guard;
        let given_up = u8::from(guard.given_up).to_string();
        line("guard", &[guard.revision.to_string(), guard.in_row.to_string(), given_up]);
        guard.failed_at.iter().for_each(|at| line("failed_at", &[stamp(*at)]));
        for (at, well) in &guard.outcomes {
            line("outcome", &[stamp(*at), u8::from(*well).to_string()]);
        }
        if !self.starts_ms.is_empty() {
            let words: Vec<_> = self.starts_ms.iter().map(u32::to_string).collect();
            line("starts_ms", &words);
        }
        line("routes", &[self.routes_gen.to_string(), self.routes_digest.to_string()]);
        line("told", &[self.told.to_string()]);
        for (id, memory) in &self.instances {
            if let Some(generation) = memory.drain_gen {
                line("drain", &[id.to_string(), generation.to_string()]);
            }
        }
        text
    }

    /// Reads the text form back; unknown facts of a later writer are passed over.
    ///
    /// # Errors
    /// [`MemoryError`] says what was found instead.
    pub fn from_text(text: &str) -> Result<Memory, MemoryError> {
        if text.len() > TEXT_MAX {
            return Err(MemoryError::Length);
        }
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, first)| first) != Some(HEADER) {
            return Err(MemoryError::Header);
        }
        let mut memory = Memory::default();
        for (number, line) in lines {
            let words: Vec<&str> = line.split(' ').collect();
            if memory.read(words[0], &words[1..]).is_none() {
                let text = line.chars().take(80).collect();
                return Err(MemoryError::Line { line: number + 1, text });
            }
        }
        Ok(memory)
    }

    fn read(&mut self, key: &str, words: &[&str]) -> Option<()> {
        match key {
            "wanted" => self.wanted = Some(parse(words, 0)?),
            "goal" => self.goal = Some(parse(words, 0)?),
            "down_at" => self.down_at = Some(stamp(words, 0)?),
            "burst_at" => self.burst_at = Some(stamp(words, 0)?),
            "active_at" => self.active_at = Some(stamp(words, 0)?),
            "ready_since" => self.ready_since = Some(stamp(words, 0)?),
            "saved_at" => self.saved_at = Some(stamp(words, 0)?),
            "up_base" => self.up_base = Some((stamp(words, 0)?, parse(words, 1)?)),
            "source" => self.source = Some((Revision(parse(words, 0)?), parse(words, 1)?)),
            "good" => self.good = Some(Revision(parse(words, 0)?)),
            "window" => {
                self.window.part_ms = parse(words, 0)?;
                self.window.at = Some(stamp(words, 1)?);
            }
            "part" => self.window.parts.push_back(Part {
                index: parse(words, 0)?,
                up: parse(words, 1)?,
                down: parse(words, 2)?,
                covered_ms: parse(words, 3)?,
            }),
            "peak" => self.peaks.steps.push_back((stamp(words, 0)?, parse(words, 1)?)),
            "guard" => {
                self.guard.revision = Revision(parse(words, 0)?);
                self.guard.in_row = parse(words, 1)?;
                self.guard.given_up = parse::<u8>(words, 2)? == 1;
            }
            "failed_at" => self.guard.failed_at = Some(stamp(words, 0)?),
            "outcome" => {
                self.guard.outcomes.push((stamp(words, 0)?, parse::<u8>(words, 1)? == 1));
            }
            "starts_ms" => {
                self.starts_ms = words.iter().map(|w| w.parse().ok()).collect::<Option<_>>()?;
            }
            "routes" => {
                self.routes_gen = parse(words, 0)?;
                self.routes_digest = parse(words, 1)?;
            }
            "told" => self.told = parse(words, 0)?,
            "drain" => {
                let memory = self.instances.entry(parse(words, 0)?).or_default();
                memory.drain_gen = Some(parse(words, 1)?);
            }
            _ => {}
        }
        Some(())
    }

    /// Without what is not made durable: equal to what [`Memory::from_text`] gives back.
    #[must_use]
    pub fn durable(&self) -> Memory {
        let mut memory = self.clone();
        memory.instances.retain(|_, i| i.drain_gen.is_some());
        for instance in memory.instances.values_mut() {
            *instance = InstanceMemory { drain_gen: instance.drain_gen, ..Default::default() };
        }
        memory
    }
}

fn parse<T: FromStr>(words: &[&str], n: usize) -> Option<T> {
    words.get(n)?.parse().ok()
}

fn stamp(words: &[&str], n: usize) -> Option<Timestamp> {
    parse(words, n).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Epoch, Generation};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn what_is_durable_comes_back() {
        let mut memory = Memory { wanted: Some(3), goal: Some(1), ..Memory::default() };
        memory.up_base = Some((Timestamp(5), 2));
        memory.source = Some((Revision(2), LoadSource::Pushed));
        memory.guard.follow(Revision(2));
        memory.guard.record(Revision(2), Timestamp(9), false);
        memory.guard.given_up = true;
        memory.routes_gen = RouteGen { epoch: Epoch(7), generation: Generation(8) };
        memory.learn_start(120);
        let w = Duration::from_secs(60);
        memory.window.add(Timestamp(0), w, w, 5000, 6000);
        memory.window.add(Timestamp(2500), w, w, 5000, 6000);
        memory.peaks.add(Timestamp(2500), w, 4);
        let id: InstanceId = "shop-0123456789".parse().unwrap();
        memory.instances.insert(
            id,
            InstanceMemory {
                load: Some(3),
                drain_gen: Some(memory.routes_gen),
                ..Default::default()
            },
        );
        let back = Memory::from_text(&memory.to_text()).unwrap();
        assert_eq!(back, memory.durable());
        assert_ne!(back, memory);
    }

    #[test]
    fn a_later_writers_facts_are_passed_over_and_nonsense_is_refused() {
        let later = format!("{HEADER}\nwanted 2\nmood good\n");
        assert_eq!(Memory::from_text(&later).unwrap().wanted, Some(2));
        assert_eq!(Memory::from_text("other 9\n"), Err(MemoryError::Header));
        let broken = format!("{HEADER}\nwanted x\n");
        assert!(matches!(Memory::from_text(&broken), Err(MemoryError::Line { line: 2, .. })));
    }

    #[test]
    fn start_times_need_three_samples() {
        let mut memory = Memory::default();
        memory.learn_start(10);
        memory.learn_start(20);
        assert_eq!(memory.start_ms(95), None);
        memory.learn_start(900);
        assert_eq!(memory.start_ms(95), Some(900));
        assert_eq!(memory.start_ms(50), Some(20));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _unused = Memory::from_text(&text);
            let _unused = Memory::from_text(&format!("{HEADER}\n{text}"));
        }
    }
}
