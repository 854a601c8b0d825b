//! The newest operations on instances, for the operator who asks what was done.

use domain::{InstanceId, Timestamp};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::operation::{Operation, Verb};
use wire::stamp::Stamp;

/// Operations kept: some minutes of a busy node, some megabytes at most.
pub const OPERATIONS_KEPT: usize = 1000;

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether it did what it should.
    pub ok: bool,
    /// Exit status of a command.
    pub exit_status: Option<i32>,
    /// The end of its output, or what went wrong.
    pub output: String,
}

impl Outcome {
    /// Done, nothing to say.
    #[must_use]
    pub fn done() -> Outcome {
        Outcome { ok: true, ..Outcome::default() }
    }

    /// Failed, and why.
    pub fn failed(output: impl Into<String>) -> Outcome {
        Outcome { output: output.into(), ..Outcome::default() }
    }
}

/// The journal of operations.
#[derive(Debug, Default)]
pub struct Operations(Mutex<(u64, VecDeque<Operation>)>);

impl Operations {
    /// Notes an operation that ended at `at` after `took`.
    pub fn note(
        &self,
        at: Timestamp,
        took: Duration,
        instance: &InstanceId,
        verb: Verb,
        outcome: Outcome,
    ) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            instance.id = %instance, ?verb, ok = outcome.ok, took_ms, output = %outcome.output,
            "an operation ended"
        );
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 += 1;
        let id = held.0;
        let Outcome { ok, exit_status, output } = outcome;
        let instance = instance.clone();
        let at = Stamp(at);
        held.1.push_back(Operation { id, at, instance, verb, ok, exit_status, output, took_ms });
        if held.1.len() > OPERATIONS_KEPT {
            held.1.pop_front();
        }
    }

    /// Oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Operation> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.1.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_bounded_and_in_order() {
        let operations = Operations::default();
        let id = crate::testing::id("a");
        for i in 0..OPERATIONS_KEPT + 5 {
            let outcome = Outcome::failed(i.to_string());
            operations.note(Timestamp(7), Duration::from_millis(3), &id, Verb::Stop, outcome);
        }
        let all = operations.all();
        assert_eq!(all.len(), OPERATIONS_KEPT);
        assert_eq!((all[0].id, all[0].output.as_str()), (6, "5"));
        assert_eq!(all[0].took_ms, 3);
    }
}
