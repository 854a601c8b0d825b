//! From what is assigned and what is known to what is to be done; pure.

use domain::InstanceId;
use std::collections::BTreeMap;
use wire::assignment::{AssignedInstance, AssignedRun, Assignment};

/// What is to be done with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It is new.
    Start(AssignedInstance),
    /// Something about it is to be different.
    Change(AssignedInstance),
    /// It is no longer wanted.
    Stop(InstanceId),
}

/// How an instance is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As it was last wanted.
    pub instance: AssignedInstance,
    /// Whether it is being stopped.
    pub stopping: bool,
}

/// Everything to be done, stops first: they free what starts may need.
#[must_use]
pub fn diff(known: &BTreeMap<InstanceId, Known>, assignment: &Assignment) -> Vec<Act> {
    let wanted: BTreeMap<&InstanceId, &AssignedInstance> =
        assignment.instances.iter().map(|i| (&i.id, i)).collect();
    let stops = known
        .iter()
        .filter(|(id, known)| !known.stopping && !wanted.contains_key(id))
        .map(|(id, _)| Act::Stop(id.clone()));
    let others = wanted.iter().filter_map(|(id, instance)| match known.get(*id) {
        None => Some(Act::Start((*instance).clone())),
        Some(known) if known.stopping || known.instance != **instance => {
            Some(Act::Change((*instance).clone()))
        }
        Some(_) => None,
    });
    stops.chain(others).collect()
}

/// Begins the names of Tally's own variables. Where loads are reported may move with a restart of
/// the managers; that alone is no reason to end an instance, which a new revision or
/// `tally service restart` replaces in good order.
const OWN_VARIABLES: &str = "TALLY_";

/// Whether going from `old` to `new` needs another process or container. Everything else is
/// changed while it runs.
#[must_use]
pub fn needs_new_start(old: &AssignedInstance, new: &AssignedInstance) -> bool {
    let declared = |run: &AssignedRun| {
        let mut run = run.clone();
        run.env.retain(|name, _| !name.starts_with(OWN_VARIABLES));
        run
    };
    old.engine != new.engine
        || old.service != new.service
        || declared(&old.run) != declared(&new.run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assignment, id, instance};
    use proptest::prelude::*;

    fn known(names: &[&str]) -> BTreeMap<InstanceId, Known> {
        names.iter().map(|n| (id(n), Known { instance: instance(n), stopping: false })).collect()
    }

    #[test]
    fn stops_come_first_and_the_same_is_left_alone() {
        let mut changed = instance("b");
        changed.limits.cpu_millis += 1;
        let wanted = assignment(1, vec![instance("a"), changed.clone(), instance("n")]);
        let acts = diff(&known(&["a", "b", "c"]), &wanted);
        let expected = [Act::Stop(id("c")), Act::Change(changed), Act::Start(instance("n"))];
        assert_eq!(acts, expected);
    }

    #[test]
    fn one_that_is_being_stopped_can_be_wanted_again_and_is_not_stopped_twice() {
        let mut known = known(&["a"]);
        known.values_mut().for_each(|k| k.stopping = true);
        assert_eq!(diff(&known, &assignment(1, vec![])), []);
        let again = diff(&known, &assignment(1, vec![instance("a")]));
        assert_eq!(again, [Act::Change(instance("a"))]);
    }

    #[test]
    fn limits_and_health_need_no_new_start() {
        let old = instance("a");
        let mut new = old.clone();
        new.limits.memory_bytes = 1;
        new.health.interval_ms = 1;
        new.drain_deadline_ms = 1;
        assert!(!needs_new_start(&old, &new));
        let moved = "http://127.0.0.1:9/v1/load".to_owned();
        new.run.env.insert("TALLY_LOAD_URL".to_owned(), moved);
        assert!(!needs_new_start(&old, &new), "loads are reported elsewhere: no restart");
        new.run.command.push("x".to_owned());
        assert!(needs_new_start(&old, &new));
    }

    proptest! {
        #[test]
        fn after_the_acts_nothing_is_left_to_do(have in "[a-h]{0,8}", want in "[a-h]{0,8}") {
            let names = |text: &str| -> Vec<String> {
                let mut names: Vec<String> = text.chars().map(String::from).collect();
                names.sort();
                names.dedup();
                names
            };
            let have = names(&have);
            let want = names(&want);
            let refs: Vec<&str> = have.iter().map(String::as_str).collect();
            let mut world = known(&refs);
            let goal = assignment(1, want.iter().map(|n| instance(n)).collect());
            for act in diff(&world, &goal) {
                match act {
                    Act::Stop(id) => { world.remove(&id); }
                    Act::Start(i) | Act::Change(i) => {
                        world.insert(i.id.clone(), Known { instance: i, stopping: false });
                    }
                }
            }
            prop_assert_eq!(diff(&world, &goal), vec![]);
            prop_assert_eq!(world.len(), want.len());
        }
    }
}
