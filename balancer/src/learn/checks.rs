//! Which health checks are due, and what follows from their outcomes.

use super::World;
use super::member::Member;
use crate::health::{Checked, Due, INTERVAL_MIN, JITTER};
use domain::{Health, Mono};
use picker::Rng;
use std::sync::Arc;
use std::time::Duration;

impl World {
    /// The checks that are due, at most `limit`; they count as under way from now on.
    pub fn due_checks(&mut self, limit: usize, now: Mono) -> Vec<Due> {
        let mut due = Vec::new();
        for (name, known) in &mut self.services {
            let front = known.service.front.load();
            for member in known.members.values_mut() {
                if due.len() >= limit {
                    return due;
                }
                if member.is_due(&front.health, &mut self.rng, now) {
                    due.push(Due {
                        service: name.clone(),
                        instance: Arc::clone(&member.instance),
                        health: front.health.clone(),
                    });
                }
            }
        }
        due
    }

    /// The shortest of all services' intervals between checks.
    #[must_use]
    pub fn shortest_interval(&self) -> Option<Duration> {
        self.services.values().map(|known| known.service.front.load().health.interval).min()
    }

    /// Takes a check's outcome: one success is enough to be well again, and to be ramped up.
    pub fn checked(&mut self, checked: &Checked, now: Mono) {
        let Some(known) = self.services.get_mut(&checked.service) else { return };
        let failures_max = known.service.front.load().health.failures.max(1);
        let Some(member) = known.members.get_mut(&checked.instance.id) else { return };
        if member.instance.serial != checked.instance.serial {
            return;
        }
        if member.take_check(checked.well, failures_max, now) {
            self.publish(&checked.service, now);
        }
    }
}

impl Member {
    fn is_due(&mut self, health: &Health, rng: &mut Rng, now: Mono) -> bool {
        if !self.is_ready() || self.check.under_way {
            return false;
        }
        let interval = health.interval.max(INTERVAL_MIN);
        let Some(due) = self.check.due else {
            // Somewhere within the first interval: a fleet that came at once is spread.
            self.check.due = Some(now.plus(interval.mul_f64(rng.unit())));
            return false;
        };
        if now < due {
            return false;
        }
        self.check.due = Some(now.plus(jittered(interval, rng)));
        let answered = self.instance.answered();
        let has_answered = std::mem::replace(&mut self.check.answered, answered) != answered;
        if has_answered && health.path.is_none() && !self.check.unwell {
            // It answers requests: no connection tells more.
            self.check.failures = 0;
            return false;
        }
        self.check.under_way = true;
        true
    }

    /// True when it became unwell or well.
    fn take_check(&mut self, well: Option<bool>, failures_max: u32, now: Mono) -> bool {
        self.check.under_way = false;
        let Some(well) = well else { return false };
        let was_unwell = self.check.unwell;
        if well {
            self.check.failures = 0;
            self.check.unwell = false;
        } else {
            self.check.failures = self.check.failures.saturating_add(1);
            self.check.unwell |= self.check.failures >= failures_max;
        }
        match (was_unwell, self.check.unwell) {
            (false, true) => {
                let failures = self.check.failures;
                tracing::info!(instance = %self.instance.id, failures, "the instance is unwell");
            }
            (true, false) => {
                self.ready_since = now;
                self.instance.new_window(true);
                tracing::info!(instance = %self.instance.id, "the instance is well again");
            }
            (true, true) | (false, false) => return false,
        }
        true
    }
}

fn jittered(interval: Duration, rng: &mut Rng) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * rng.unit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::tests::{at, name, route, snapshot, table, view};
    use crate::testing::shared;

    fn outcome(due: &Due, well: bool) -> Checked {
        Checked { service: name(), instance: Arc::clone(&due.instance), well: Some(well) }
    }

    /// Lets every check that is due in a hundred seconds fail or not.
    fn run(world: &mut World, from: u64, well: impl Fn(usize) -> bool) -> usize {
        let mut made = 0;
        for n in 0..1000 {
            let now = Mono(Duration::from_millis(from * 1000 + n * 100));
            for due in world.due_checks(100, now) {
                made += 1;
                let number = due.instance.id.as_str().trim_start_matches("shop-").parse().unwrap();
                world.checked(&outcome(&due, well(number)), now);
            }
        }
        made
    }

    #[test]
    fn the_unwell_get_nothing_until_they_are_well_and_never_all_of_them() {
        let (shared, mut world) = (shared(), World::new(1));
        let routes = Some(table(1, vec![route(1), route(2), route(3)]));
        world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
        let made = run(&mut world, 2, |n| n == 3);
        assert!((135..=165).contains(&made), "three instances, every two seconds: {made}");
        let standing = || {
            let snapshot = snapshot(&shared);
            snapshot.entries.iter().map(crate::view::Entry::stands).collect::<Vec<_>>()
        };
        assert_eq!(standing(), [false, false, true]);
        run(&mut world, 200, |n| n != 3);
        assert_eq!(standing(), [true, true, false]);
        assert!(snapshot(&shared).entries[0].ready_since >= at(200), "and is ramped up");
        run(&mut world, 400, |_| false);
        assert_eq!(standing(), [true, true, true], "all unwell: all are tried");
    }

    #[test]
    fn a_check_that_cannot_be_made_says_nothing() {
        let (shared, mut world) = (shared(), World::new(1));
        let routes = Some(table(1, vec![route(1), route(2)]));
        world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
        let mut made = 0;
        for second in 2..200 {
            for due in world.due_checks(100, at(second)) {
                made += 1;
                world.checked(&Checked { well: None, ..outcome(&due, false) }, at(second));
            }
        }
        assert!(made > 100, "checks go on: {made}");
        assert!(snapshot(&shared).entries.iter().all(crate::view::Entry::stands));
    }

    #[test]
    fn who_answers_requests_needs_no_connection() {
        let (shared, mut world) = (shared(), World::new(1));
        world.take_service(&shared, &name(), &view(Some(table(1, vec![route(1)])), vec![]), at(1));
        let instance = Arc::clone(&snapshot(&shared).entries[0].instance);
        assert!(world.due_checks(10, at(2)).is_empty(), "planned first");
        instance.record(true, Duration::from_millis(1), at(3));
        assert!(world.due_checks(10, at(9)).is_empty(), "it answered");
        assert_eq!(world.due_checks(10, at(19)).len(), 1);
        assert!(world.due_checks(10, at(29)).is_empty(), "one at a time");
    }

    #[test]
    fn no_more_are_under_way_than_may() {
        let (shared, mut world) = (shared(), World::new(1));
        let routes = Some(table(1, (0..50).map(route).collect()));
        world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
        assert!(world.due_checks(7, at(2)).is_empty());
        assert_eq!(world.due_checks(7, at(9)).len(), 7);
        assert_eq!(world.due_checks(100, at(9)).len(), 43);
    }
}
