//! What one writer knows of the loads that stand there: which reports are new, and their stamps.

use crate::board::LOAD_TTL;
use domain::{InstanceId, LoadReport, Mono, Timestamp};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Dead members are taken off, and keys get a new expiry, this often.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// An instance's last report on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) seq: Option<u64>,
    pub(super) at: Timestamp,
}

/// What is known of one service's loads.
#[derive(Default)]
pub(super) struct Book {
    /// What stands at the writer's key if nobody else wrote since.
    pub(super) mark: String,
    pub(super) at: Timestamp,
    pub(super) last: HashMap<InstanceId, Option<Last>>,
    pub(super) tidied: Option<Mono>,
}

/// One report that is new.
pub(super) struct Entry<'a> {
    pub(super) report: &'a LoadReport,
    pub(super) seq: Option<u64>,
}

/// Two stamps of one board are as far apart as a load lives: they are of different times.
pub(super) fn apart(a: Timestamp, b: Timestamp) -> bool {
    a.since(b).max(b.since(a)) >= LOAD_TTL
}

impl Book {
    /// The stamp of what is written now: later than whatever stands there.
    pub(super) fn stamp(&self, now: Timestamp) -> Timestamp {
        if apart(self.at, now) { now } else { now.max(self.at.plus(Duration::from_millis(1))) }
    }

    /// Those of `reports`, which are sorted, that are new; of one instance the last. Answers how
    /// many there were besides.
    pub(super) fn judge<'a>(
        &self,
        reports: &[&'a LoadReport],
        now: Timestamp,
    ) -> (Vec<Entry<'a>>, usize) {
        let (mut entries, mut new) = (Vec::<Entry<'a>>::with_capacity(reports.len()), 0);
        for report in reports {
            let again = entries.last().is_some_and(|e| e.report.instance == report.instance);
            let before = if again {
                entries.last().and_then(|e| e.seq)
            } else {
                let last = self.last.get(&report.instance).copied().flatten();
                last.filter(|last| !apart(last.at, now)).and_then(|last| last.seq)
            };
            if matches!((report.seq, before), (Some(new), Some(old)) if new <= old) {
                continue;
            }
            new += 1;
            if again {
                entries.pop();
            }
            // A report without a number does not open the door to older numbered ones.
            entries.push(Entry { report, seq: report.seq.or(before) });
        }
        (entries, new)
    }

    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.tidied.is_none_or(|at| now.since(at) >= TIDY_EVERY)
    }
}

/// A name that no other writer has; no test needs it twice.
pub(super) fn name() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

/// `WRITER KIND AT_MS`, as it stands at a service's writer key.
pub(super) fn mark(me: &str, plain: bool, at: Timestamp) -> String {
    format!("{me} {} {}", kind(plain), at.0)
}

pub(super) fn kind(plain: bool) -> &'static str {
    if plain { "plain" } else { "board" }
}

/// When a mark of the same kind was made; `None` for any other.
pub(super) fn read_mark(text: &str, plain: bool) -> Option<Timestamp> {
    let mut words = text.split(' ').skip(1);
    (words.next() == Some(kind(plain))).then_some(())?;
    words.next()?.parse().ok().map(Timestamp)
}

/// `seq` and time of what stands at an instance.
pub(super) fn read_last(text: &str, plain: bool) -> Option<Last> {
    let mut words = text.split_ascii_whitespace().skip(if plain { 4 } else { 3 });
    let seq = words.next()?.parse().ok();
    Some(Last { seq, at: Timestamp(words.next()?.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{instance, report};

    fn book(last: &[(u32, Option<u64>, i64)]) -> Book {
        let each = last
            .iter()
            .map(|&(n, seq, at)| (instance("shop", n), Some(Last { seq, at: Timestamp(at) })));
        Book { at: Timestamp(1_000_000), last: each.collect(), ..Book::default() }
    }

    #[test]
    fn replays_are_known_until_they_are_too_old() {
        let book = book(&[(1, Some(9), 1_000_000), (2, None, 1_000_000), (3, Some(9), 0)]);
        let judged = |n: u32, seq: Option<u64>| {
            let one = report(&instance("shop", n), 1, seq);
            let (entries, new) = book.judge(&[&one], Timestamp(1_000_100));
            (new, entries.first().map(|e| e.seq))
        };
        assert_eq!(judged(1, Some(9)), (0, None));
        assert_eq!(judged(1, Some(10)), (1, Some(Some(10))));
        assert_eq!(judged(1, None), (1, Some(Some(9))), "the number is kept");
        assert_eq!(judged(2, Some(1)), (1, Some(Some(1))));
        assert_eq!(judged(3, Some(1)), (1, Some(Some(1))), "forgotten by now");
        assert_eq!(judged(4, Some(1)), (1, Some(Some(1))), "nothing is known");
        let [a, b, c] = [Some(10), Some(10), Some(11)].map(|s| report(&instance("shop", 1), 1, s));
        let (entries, new) = book.judge(&[&a, &b, &c], Timestamp(1_000_100));
        assert_eq!((entries.len(), new, entries[0].seq), (1, 2, Some(11)));
    }

    #[test]
    fn stamps_grow_unless_the_clock_was_set() {
        let book = book(&[]);
        assert_eq!(book.stamp(Timestamp(1_000_500)), Timestamp(1_000_500));
        assert_eq!(book.stamp(Timestamp(1_000_000)), Timestamp(1_000_001));
        assert_eq!(book.stamp(Timestamp(999_000)), Timestamp(1_000_001), "a little back");
        assert_eq!(book.stamp(Timestamp(5)), Timestamp(5), "far back");
    }

    #[test]
    fn marks_and_lines_are_read_as_written() {
        let at = Timestamp(1_800_000_000_000);
        assert_eq!(read_mark(&mark("me", true, at), true), Some(at));
        assert_eq!(read_mark(&mark("me", true, at), false), None);
        assert_eq!(read_mark("me mixed 5", true), None);
        assert_eq!(read_mark("", true), None);
        let last = Some(Last { seq: Some(7), at });
        assert_eq!(read_last("3 12.5 - 7 1800000000000 pushed", false), last);
        assert_eq!(read_last("0.5 3 12.5 - 7 1800000000000 pushed", true), last);
        assert_eq!(read_last("3 12.5 - - 9 pushed", false).and_then(|l| l.seq), None);
        assert_eq!(read_last("junk", false), None);
    }
}
