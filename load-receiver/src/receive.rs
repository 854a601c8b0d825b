//! One message through the door: decoded, admitted, put in line, counted, answered.

use crate::admit::{Door, Sender, Verdict};
use crate::decode::{Candidate, Decoded};
use crate::metrics::{ACCEPTED, Counts};
use crate::record::Recorder;
use crate::refusal::Refusal;
use std::sync::Arc;

/// What the listeners share.
#[derive(Clone)]
pub struct Receiver {
    pub(crate) door: Arc<Door>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) counts: Counts,
}

impl Receiver {
    fn one(&self, candidate: Candidate, sender: Sender<'_>) -> Result<&'static str, Refusal> {
        let clipped = candidate.clipped;
        match self.door.admit(candidate, sender)? {
            Verdict::Outranked => Ok("outranked"),
            Verdict::Record(report) => match (self.recorder.put(report), clipped) {
                (false, _) => Err(Refusal::Overloaded),
                (true, true) => Ok("clipped"),
                (true, false) => Ok(ACCEPTED),
            },
        }
    }

    /// Takes what can be taken. Answers the others, by their place.
    pub(crate) fn take(&self, decoded: Decoded, sender: Sender<'_>) -> Vec<(usize, Refusal)> {
        let mut refused = Vec::new();
        for (index, candidate) in decoded.into_iter().enumerate() {
            match candidate.and_then(|candidate| self.one(candidate, sender)) {
                Ok(result) => self.counts.add(result, 1),
                Err(why) => {
                    self.counts.add(why.label(), 1);
                    tracing::debug!(index, reason = why.label(), "a load report is refused");
                    refused.push((index, why));
                }
            }
        }
        refused
    }
}
