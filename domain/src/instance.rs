//! Instances: one running copy of a service, its states and the legal ways between them.

use crate::id::{InstanceId, NodeId, Revision, ServiceName};
use crate::time::Timestamp;
use crate::units::Resources;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where an instance stands. Every state but the last has a deadline and a next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceState {
    /// Decided; no node yet.
    Wanted,
    /// Assigned to a node, not yet well.
    Starting,
    /// Takes requests.
    Ready,
    /// Frozen; holds memory, uses no processor.
    Paused,
    /// Finishes what it has.
    Draining,
    /// Taken out of the assignment; its end is awaited.
    Stopping,
    /// Its node is silent.
    Lost,
    /// The executor gave up on it.
    Failed,
    /// It ended. Nothing follows.
    Stopped,
}

impl InstanceState {
    /// Every state.
    pub const ALL: [InstanceState; 9] = [
        InstanceState::Wanted,
        InstanceState::Starting,
        InstanceState::Ready,
        InstanceState::Paused,
        InstanceState::Draining,
        InstanceState::Stopping,
        InstanceState::Lost,
        InstanceState::Failed,
        InstanceState::Stopped,
    ];

    /// The text form used in the API and the registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Wanted => "wanted",
            InstanceState::Starting => "starting",
            InstanceState::Ready => "ready",
            InstanceState::Paused => "paused",
            InstanceState::Draining => "draining",
            InstanceState::Stopping => "stopping",
            InstanceState::Lost => "lost",
            InstanceState::Failed => "failed",
            InstanceState::Stopped => "stopped",
        }
    }

    /// Whether `next` may follow. Staying is always legal.
    #[must_use]
    pub fn may_become(self, next: InstanceState) -> bool {
        use InstanceState::{
            Draining, Failed, Lost, Paused, Ready, Starting, Stopped, Stopping, Wanted,
        };
        if self == next {
            return true;
        }
        match self {
            Wanted => matches!(next, Starting | Stopped),
            Starting => matches!(next, Ready | Draining | Stopping | Lost | Failed | Stopped),
            Ready => {
                matches!(next, Starting | Paused | Draining | Stopping | Lost | Failed | Stopped)
            }
            Paused => matches!(next, Starting | Ready | Stopping | Lost | Failed | Stopped),
            Draining => matches!(next, Stopping | Lost | Failed | Stopped),
            Stopping => matches!(next, Lost | Failed | Stopped),
            Lost => matches!(next, Starting | Ready | Draining | Stopping | Failed | Stopped),
            Failed => matches!(next, Stopping | Stopped),
            Stopped => false,
        }
    }

    /// Whether it occupies room on its node.
    #[must_use]
    pub fn holds_room(self) -> bool {
        !matches!(self, InstanceState::Wanted | InstanceState::Stopped)
    }

    /// Whether it is counted as capacity, now or soon.
    #[must_use]
    pub fn is_coming_or_here(self) -> bool {
        matches!(self, InstanceState::Wanted | InstanceState::Starting | InstanceState::Ready)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for InstanceState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no instance state"))
    }
}

/// How an instance came up, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Tier {
    /// A paused one was thawed.
    Thawed,
    /// A checkpoint was restored.
    Restored,
    /// One created ahead was started.
    CreatedAhead,
    /// It was started from nothing.
    #[default]
    Started,
}

impl Tier {
    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Thawed => "thawed",
            Tier::Restored => "restored",
            Tier::CreatedAhead => "created_ahead",
            Tier::Started => "started",
        }
    }
}

impl FromStr for Tier {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Tier::Thawed, Tier::Restored, Tier::CreatedAhead, Tier::Started]
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no tier"))
    }
}

/// The durable record of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Never reused.
    pub id: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Of which of its revisions.
    pub revision: Revision,
    /// Where; `None` while wanted.
    pub node: Option<NodeId>,
    /// Room it takes, as limited now.
    pub resources: Resources,
    /// Where it stands.
    pub state: InstanceState,
    /// Since when.
    pub state_since: Timestamp,
    /// Until when it may stay there; `None` for ready, paused and stopped.
    pub deadline: Option<Timestamp>,
    /// Where it answers, once its executor said so.
    pub address: Option<SocketAddr>,
    /// How it came up.
    pub tier: Tier,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When it was first well.
    pub ready_at: Option<Timestamp>,
    /// When its lifespan ends.
    pub expires_at: Option<Timestamp>,
    /// Local restarts after crashes.
    pub restarts: u32,
    /// The predecessor it was made to replace.
    pub replaces: Option<InstanceId>,
    /// Why it stands where it stands, in words.
    pub reason: String,
}

impl Instance {
    /// Moves to `next`, noting when, until when and why.
    ///
    /// # Panics
    /// In debug builds, when the way is not legal: that is a fault of ours, never of the input.
    pub fn become_state(
        &mut self,
        next: InstanceState,
        now: Timestamp,
        deadline: Option<Timestamp>,
        reason: impl Into<String>,
    ) {
        debug_assert!(
            self.state.may_become(next),
            "{}: {} may not become {next}",
            self.id,
            self.state
        );
        self.state = next;
        self.state_since = now;
        self.deadline = deadline;
        self.reason = reason.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_end_and_every_state_reaches_it() {
        for state in InstanceState::ALL {
            assert!(state.may_become(state));
            assert_eq!(state.as_str().parse(), Ok(state));
            if state != InstanceState::Stopped {
                assert!(!InstanceState::Stopped.may_become(state));
                assert!(state.may_become(InstanceState::Stopped), "{state}");
            }
        }
    }

    #[test]
    fn a_drained_instance_never_takes_requests_again() {
        assert!(!InstanceState::Draining.may_become(InstanceState::Ready));
        assert!(!InstanceState::Failed.may_become(InstanceState::Ready));
    }
}
