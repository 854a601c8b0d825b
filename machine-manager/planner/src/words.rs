//! The words for what is not ordered: what stands in the way, and what would undo it.

use crate::fit::would_hold;
use crate::month::date;
use crate::order::Hold;
use crate::plan::{Refusal, Waiting, Why};
use crate::room::Candidate;
use crate::snapshot::{NodeView, Snapshot, Wanted};
use domain::{Money, NodeState, NodeType};

/// Why no type could be ordered for this start.
#[must_use]
pub fn why_not(snapshot: &Snapshot, wanted: &Wanted) -> Refusal {
    if let Some(name) = &wanted.needs.node {
        return match snapshot.nodes.iter().find(|v| v.node.name == *name) {
            None => plain(Why::Impossible, format!("no node is named {name}")),
            Some(view) if fits_empty(&Candidate::of_node(view), wanted) => {
                plain(Why::Node, format!("node {name} has no room now"))
            }
            Some(_) => plain(Why::Impossible, format!("node {name} is not what is needed")),
        };
    }
    let holding: Vec<&NodeType> =
        snapshot.types.iter().filter(|t| would_hold(t, &[wanted])).collect();
    if !holding.is_empty() {
        return full(snapshot, &holding);
    }
    let living = snapshot.nodes.iter().map(Candidate::of_node);
    if living.into_iter().any(|c| fits_empty(&c, wanted)) {
        let text = "every node that could hold it is full, and none can be ordered";
        return plain(Why::NoType, text.to_owned());
    }
    plain(Why::NoType, "no node and no node type is what it needs".to_owned())
}

/// All these types are at their maximum, or rest after a refusal.
#[must_use]
pub fn full(snapshot: &Snapshot, types: &[&NodeType]) -> Refusal {
    let resting = types
        .iter()
        .filter(|t| living(snapshot, t) < t.max_count as usize)
        .filter_map(|t| snapshot.backoff.get(&t.name).map(|until| (*until, t)))
        .min_by_key(|(until, _)| *until);
    if let Some((until, node_type)) = resting {
        let detail = format!("the provider of {} refused; it is asked again", node_type.name);
        return Refusal { why: Why::Node, needs: Money::ZERO, until: Some(until), detail };
    }
    let names: Vec<String> =
        types.iter().map(|t| format!("{} ({})", t.name, t.max_count)).collect();
    let detail = format!("all nodes allowed are there: {}", names.join(", "));
    plain(Why::TypeMax, detail)
}

/// The words for a hold.
#[must_use]
pub fn told(snapshot: &Snapshot, hold: &Hold) -> Refusal {
    let currency = snapshot.budget.currency;
    match hold {
        Hold::Cap(needs, until) => {
            let end = until.map_or("the cap is raised".to_owned(), date);
            let detail = format!("blocked by cost cap: needs {needs} {currency} more until {end}");
            Refusal { why: Why::Cap, needs: *needs, until: *until, detail }
        }
        Hold::NoBudget => plain(
            Why::Cap,
            format!(
                "blocked by cost cap: no budget is set; set one with \
                 `tally budget set --monthly-cap \"120 {currency}\"`"
            ),
        ),
        Hold::Guard(until, text) => Refusal {
            why: Why::Node,
            needs: Money::ZERO,
            until: Some(*until),
            detail: text.clone(),
        },
    }
}

fn fits_empty(candidate: &Candidate<'_>, wanted: &Wanted) -> bool {
    candidate.capacity.resources.holds(wanted.resources)
        && candidate.matches(&wanted.needs, wanted.group)
}

pub(crate) fn plain(why: Why, detail: String) -> Refusal {
    Refusal { why, needs: Money::ZERO, until: None, detail }
}

/// A start that waits.
#[must_use]
pub fn waiting(snapshot: &Snapshot, wanted: &Wanted, refusal: Refusal) -> Waiting {
    let holding = snapshot.types.iter().filter(|t| would_hold(t, &[wanted]));
    let cheapest = holding.min_by_key(|t| (t.price, t.name.clone()));
    Waiting {
        instance: wanted.instance.clone(),
        service: wanted.service.clone(),
        node_type: cheapest.map(|t| t.name.clone()),
        node: None,
        eta: None,
        refusal,
    }
}

/// Nodes of a type that are not stopped.
#[must_use]
pub fn living(snapshot: &Snapshot, node_type: &NodeType) -> usize {
    let living = |v: &&NodeView| v.node.state != NodeState::Stopped;
    snapshot.nodes.iter().filter(living).filter(|v| v.node.node_type == node_type.name).count()
}
