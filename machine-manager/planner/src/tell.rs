//! The figures of a plan and the events that tell people about it, each once.

use crate::account::Account;
use crate::month::{Month, date};
use crate::plan::{Plan, Why};
use crate::policy::Policy;
use crate::purse::{Purse, Standing};
use crate::snapshot::{Memory, Snapshot};
use domain::{Event, EventKind, Money, NodeId, NodeState, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Shares of the cap that are told about, in percent.
const THRESHOLDS: [u32; 4] = [50, 75, 90, 100];
const HOUR_MS: i128 = 3_600_000;

/// Fills in the report and the events.
#[expect(clippy::too_many_arguments, reason = "the last stage reads what every other stage made")]
pub fn tell(
    snapshot: &Snapshot,
    _policy: &Policy,
    accounts: &BTreeMap<NodeId, Account>,
    protected: &BTreeSet<NodeId>,
    standing: &BTreeMap<NodeId, Standing>,
    purse: &Purse,
    plan: &mut Plan,
    memory: &mut Memory,
) {
    figures(snapshot, accounts, standing, purse, plan);
    plan.report.carriers = standing
        .iter()
        .filter(|(id, s)| **s == Standing::Carrier && !protected.contains(*id))
        .map(|(id, _)| id.clone())
        .collect();
    orders_and_nodes(snapshot, plan);
    held_back(snapshot, plan, memory);
    hot(snapshot, plan, memory);
    money(snapshot, purse, plan, memory);
}

fn event(at: Timestamp, kind: EventKind, subject: &str, what: &str, detail: String) -> Event {
    let (subject, what) = (subject.to_owned(), what.to_owned());
    Event { at, kind, subject, what, detail, values: String::new() }
}

fn figures(
    snapshot: &Snapshot,
    accounts: &BTreeMap<NodeId, Account>,
    standing: &BTreeMap<NodeId, Standing>,
    purse: &Purse,
    plan: &mut Plan,
) {
    let (now, month) = (snapshot.now, Month::of(snapshot.now));
    let is_standing = |id: &NodeId| standing.get(id).is_some_and(|s| *s != Standing::Dynamic);
    let mut settled = snapshot.charged.get(&month).copied().unwrap_or_default();
    for account in snapshot.accounts.values().filter(|a| a.started_at.is_some()) {
        settled = settled.minus(account.cost(month, account.units, now));
    }
    let ended = accounts.values().fold(Money::ZERO, |sum, a| sum.plus(a.ended(month, now)));
    let all_stay = accounts.values().fold(Money::ZERO, |sum, a| sum.plus(a.cost_to_end(month)));
    let ordered = plan
        .orders
        .iter()
        .fold(Money::ZERO, |sum, o| sum.plus(o.account.cost(month, o.account.units, now)));
    let burn = accounts
        .values()
        .filter(|a| !is_standing(&a.node))
        .chain(plan.orders.iter().filter(|o| o.may_stop).map(|o| &o.account))
        .fold(Money::ZERO, |sum, a| sum.plus(Money(a.price.0.max(0))));
    let report = &mut plan.report;
    report.spent = settled.plus(ended);
    report.obligations = purse.promised().plus(ordered).minus(report.spent);
    report.cap = purse.cap();
    report.free = purse.free().map(|free| free.minus(ordered));
    report.forecast = settled.plus(all_stay).plus(ordered);
    report.burn_per_hour = burn;
    report.over_cap = report.cap.is_some_and(|cap| purse.promised() > cap);
    report.exhausted_at = report.free.and_then(|free| {
        let lasts = i128::from(free.0.max(0)) * HOUR_MS / i128::from(burn.0.max(1));
        let lasts = Duration::from_millis(u64::try_from(lasts).unwrap_or(u64::MAX));
        let at = now.plus(lasts);
        (burn.0 > 0 && at < month.end()).then_some(at)
    });
}

fn orders_and_nodes(snapshot: &Snapshot, plan: &mut Plan) {
    let now = snapshot.now;
    let currency = snapshot.budget.currency;
    for order in &plan.orders {
        let detail = format!(
            "node {} of type {} ordered at {} {currency} an hour: {}",
            order.name, order.node_type, order.account.price, order.reason
        );
        let id = order.account.node.as_str();
        plan.events.push(event(now, EventKind::Node, id, "ordered", detail));
    }
    for change in &plan.transitions {
        let view = snapshot.nodes.iter().find(|v| v.node.id == change.node);
        let Some(view) = view else { continue };
        if view.node.state == change.to && change.to != NodeState::Stopping {
            continue;
        }
        let detail = format!("node {} is {}: {}", view.node.name, change.to, change.reason);
        let id = change.node.as_str();
        plan.events.push(event(now, EventKind::Node, id, change.to.as_str(), detail));
    }
    for (at, refusal) in &plan.refused {
        let Some(asked) = snapshot.requested.get(*at) else { continue };
        let detail = refusal.detail.clone();
        let name = asked.node_type.as_str();
        plan.events.push(event(now, EventKind::Refusal, name, "refused", detail));
    }
}

/// One event for each service that something else than time holds back, when that begins or its
/// reason changes; the amount may move without a new event.
fn held_back(snapshot: &Snapshot, plan: &mut Plan, memory: &mut Memory) {
    let mut next = BTreeMap::new();
    for waiting in plan.waiting.iter().filter(|w| w.refusal.why != Why::Node) {
        if next.contains_key(&waiting.service) {
            continue;
        }
        let until = waiting.refusal.until.map(date).unwrap_or_default();
        let key = format!("{} {until}", waiting.refusal.why);
        if memory.held_back.get(&waiting.service) != Some(&key) {
            let count = plan.waiting.iter().filter(|w| w.service == waiting.service).count();
            let kind = if waiting.refusal.why == Why::Cap {
                EventKind::Budget
            } else {
                EventKind::Refusal
            };
            let detail = waiting.refusal.detail.clone();
            let subject = waiting.service.as_str();
            let mut told = event(snapshot.now, kind, subject, "held_back", detail);
            let needs = waiting.refusal.needs.0;
            let why = waiting.refusal.why;
            told.values = format!("why={why} needs_micros={needs} until={until} starts={count}");
            plan.events.push(told);
        }
        next.insert(waiting.service.clone(), key);
    }
    // While demand is being collected nothing is known to have changed.
    for (service, key) in std::mem::take(&mut memory.held_back) {
        let waits = plan.waiting.iter().any(|w| w.service == service && w.node.is_none());
        if waits && !next.contains_key(&service) {
            next.insert(service, key);
        }
    }
    memory.held_back = next;
}

fn hot(snapshot: &Snapshot, plan: &mut Plan, memory: &Memory) {
    for (node, reason) in plan.report.hot.iter().filter(|(id, _)| !memory.hot.contains(id)) {
        let detail = format!("node {node} is hot: {reason}");
        plan.events.push(event(snapshot.now, EventKind::Node, node.as_str(), "hot", detail));
    }
}

fn money(snapshot: &Snapshot, purse: &Purse, plan: &mut Plan, memory: &mut Memory) {
    let (now, month) = (snapshot.now, Month::of(snapshot.now));
    let currency = snapshot.budget.currency;
    if memory.month != Some(month) {
        memory.month = Some(month);
        memory.threshold = 0;
        memory.runs_out = false;
    }
    let mut tell = |what: &str, detail: String| {
        plan.events.push(event(now, EventKind::Budget, "budget", what, detail));
    };
    if let Some(cap) = purse.cap().filter(|cap| cap.0 > 0) {
        let percent = i128::from(plan.report.spent.0.max(0)) * 100 / i128::from(cap.0);
        let reached = THRESHOLDS.into_iter().filter(|t| percent >= i128::from(*t)).max();
        if let Some(reached) = reached.filter(|r| *r > memory.threshold) {
            memory.threshold = reached;
            let spent = plan.report.spent;
            tell(
                "threshold",
                format!("{reached}% of the cap is spent: {spent} of {cap} {currency}"),
            );
        }
    }
    let over = plan.report.over_cap;
    if over && !memory.over_cap {
        let (all, cap) = (purse.promised(), purse.cap().unwrap_or_default());
        let more = all.minus(cap);
        tell(
            "over_cap",
            format!(
                "spent and promised are {all} {currency}, {more} over the cap of {cap}: nothing is \
                 ordered, and nodes that may stop leave at their billing edges"
            ),
        );
    }
    memory.over_cap = over;
    let runs_out = plan.report.exhausted_at;
    if let (Some(at), false) = (runs_out, memory.runs_out) {
        let early = month.end().since(at).as_secs() / 3600;
        let free = plan.report.free.unwrap_or_default();
        tell(
            "runs_out",
            format!(
                "at {} {currency} an hour the free {free} {currency} last until {}, {early} h early",
                plan.report.burn_per_hour,
                date(at)
            ),
        );
    }
    memory.runs_out = runs_out.is_some();
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::{
        Bytes, Capacity, MilliCpu, Node, NodeState, NodeType, Pool, PricePerHour, Resources,
        Timestamp,
    };
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// A type with units of an hour and as much memory in GiB as processors.
    pub(crate) fn node_type(name: &str, price: i64, cpus: u32) -> NodeType {
        let memory = Bytes(u64::from(cpus) << 30);
        NodeType {
            name: name.parse().unwrap(),
            provider: "local".into(),
            capacity: Capacity {
                resources: Resources { cpu: MilliCpu(cpus * 1000), memory },
                disk: Bytes(1 << 40),
            },
            cpu_class: "standard".into(),
            disk_type: "ssd".into(),
            price: PricePerHour(price),
            billing_unit: Duration::from_secs(3600),
            billing_minimum: Duration::ZERO,
            min_life: Duration::ZERO,
            stop_lead: Duration::ZERO,
            max_count: 100,
            labels: BTreeMap::new(),
            pool: Pool::default(),
            start_command: vec![],
            stop_command: vec![],
            list_command: vec![],
            generation: domain::Generation(1),
        }
    }

    /// A ready node of that type, ordered at `at`.
    pub(crate) fn node(id: &str, node_type: &NodeType, at: Timestamp) -> Node {
        Node {
            id: id.parse().unwrap(),
            name: id.to_owned(),
            node_type: node_type.name.clone(),
            provider: node_type.provider.clone(),
            provider_ref: None,
            state: NodeState::Ready,
            state_since: at,
            deadline: None,
            address: None,
            executor_url: None,
            capacity: node_type.capacity,
            cpu_class: node_type.cpu_class.clone(),
            disk_type: node_type.disk_type.clone(),
            labels: node_type.labels.clone(),
            price: node_type.price,
            billing_unit: node_type.billing_unit,
            billing_minimum: node_type.billing_minimum,
            min_life: node_type.min_life,
            stop_lead: node_type.stop_lead,
            may_stop: true,
            drain: None,
            ordered_at: at,
            ready_at: Some(at),
            seen_at: Some(at),
            stopped_at: None,
            secret_hash: None,
            reason: String::new(),
        }
    }
}
