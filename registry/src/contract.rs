//! The contract suite: what every registry must do, whichever store it keeps its rows in.
//!
//! A store's tests call [`crate::registry_contract!`] with a function that makes an empty one.
#![expect(clippy::unwrap_used, reason = "a suite of tests: what fails shall fail loudly")]

pub mod histories;
pub mod instances;
pub mod leases;
pub mod machines;
pub mod samples;
pub mod services;

use crate::limits::Limits;
use crate::store::{Lease, Registry, Role};
use domain::{Clock, Mono, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Where the suite's clock begins: 2026-01-01 00:00 UTC.
pub const BEGINNING: Timestamp = Timestamp(1_767_225_600_000);
/// A term long enough for any case that does not test terms.
pub const TERM: Duration = Duration::from_secs(3600);

/// A clock that only moves when it is told to.
#[derive(Debug)]
pub struct HandClock(AtomicI64);

impl Default for HandClock {
    fn default() -> HandClock {
        HandClock(AtomicI64::new(BEGINNING.0))
    }
}

impl HandClock {
    /// Lets time pass.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().plus(span));
    }

    /// Jumps, also backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Mono {
        Mono(self.now().since(BEGINNING))
    }
}

/// A registry under test, its clock, and what must outlive it (its directory).
pub struct Subject {
    /// The registry, empty at first.
    pub registry: Arc<dyn Registry>,
    /// The clock it was made with.
    pub clock: Arc<HandClock>,
    /// Dropped after the registry.
    pub keep: Box<dyn Send + Sync>,
}

impl Subject {
    /// A term of the container-manager.
    pub async fn container_manager(&self) -> Lease {
        self.registry.take_lease(Role::ContainerManager, "cm-1", TERM).await.unwrap().unwrap()
    }

    /// A term of the machine-manager.
    pub async fn machine_manager(&self) -> Lease {
        self.registry.take_lease(Role::MachineManager, "mm-1", TERM).await.unwrap().unwrap()
    }

    /// Has old history dropped: a store does so with its writes, at most once a minute, and may do
    /// it after it has answered; the second write waits for what the first began.
    pub async fn upkeep(&self) {
        self.clock.advance(Duration::from_secs(61));
        for _twice in 0..2 {
            self.registry.put_setting("upkeep", "asked for").await.unwrap();
        }
    }
}

/// Small bounds, so that a case can pass them.
#[must_use]
pub fn small_limits() -> Limits {
    Limits {
        ended_rows: 3,
        events: 5,
        decisions: 6,
        decisions_of_one: 4,
        stats_rows: 8,
        revisions: 2,
        retired: 2,
        ..Limits::default()
    }
}

/// Makes one test of every case of the suite. `$make` is a function from
/// `(Arc<HandClock>, Limits)` to a [`Subject`].
#[macro_export]
macro_rules! registry_contract {
    ($make:path) => {
        $crate::registry_contract!(@ $make, $crate::limits::Limits::default(),
            leases: one_holder_at_a_time, epochs_only_rise, a_lost_term_is_not_renewed,
                a_lease_given_back_is_free, the_fence_holds, the_two_roles_are_apart;
            services: declarations_count_versions, expectations_are_kept,
                a_removed_service_comes_back_with_new_numbers, a_purge_spares_what_was_revived,
                holds_and_restarts, lists_are_sorted;
            instances: a_step_is_written_whole, the_ended_are_apart, a_refused_step_leaves_nothing,
                decisions_are_newest_first, the_ended_are_dropped_after_a_week;
            machines: nodes_and_their_end, types_count_versions, the_budget_rises,
                the_ledger_reads_by_period, a_token_is_taken_once, memories_and_settings;
            histories: events_are_numbered, stats_are_kept_for_a_day, stats_read_in_spans;
        );
        $crate::registry_contract!(@ $make, $crate::contract::small_limits(),
            services: revisions_are_kept_while_lived, forgotten_names_share_the_highest_number;
            instances: the_ended_are_bounded, decisions_are_bounded;
            histories: events_are_bounded, stats_are_bounded;
        );
    };
    (@ $make:path, $limits:expr, $($group:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $case() {
                let clock = ::std::sync::Arc::new($crate::contract::HandClock::default());
                let subject = $make(clock, $limits);
                $crate::contract::$group::$case(&subject).await;
            }
        )+)+
    };
}
