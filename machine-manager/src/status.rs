//! What operators see: nodes, money, ledger; and the metrics.

use crate::world::World;
use domain::{Budget, Currency, LedgerEntry, Money, MonthlyCap, Node, NodeState, Resources};
use machine_planner::Why;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use wire::operator::{BudgetView, HeldBackView, LedgerView, NodeStatsView, NodeView, RoomView};
use wire::stamp::Stamp;

/// The reason in the words of the wire.
pub(crate) fn wire_why(why: Why) -> wire::placement::Why {
    match why {
        Why::Node => wire::placement::Why::Node,
        Why::Cap => wire::placement::Why::Cap,
        Why::TypeMax => wire::placement::Why::TypeMax,
        Why::NoType => wire::placement::Why::NoType,
        Why::Impossible => wire::placement::Why::Impossible,
    }
}

fn amount(money: Money, currency: Currency) -> String {
    format!("{money} {currency}")
}

fn ratio(part: u64, whole: u64) -> f64 {
    // Only shown; beyond 2^53 nobody minds the last digit.
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let ratio = part as f64 / whole.max(1) as f64;
    ratio
}

/// The last measurement of a node.
pub(crate) fn stats_view(node: &Node, stat: &registry::NodeStat) -> NodeStatsView {
    let whole = u64::from(node.capacity.resources.cpu.0);
    NodeStatsView {
        cpu_millis: stat.cpu_millis,
        cpu: ratio(u64::from(stat.cpu_millis), whole),
        memory: stat.memory_bytes,
        disk: stat.disk_bytes,
        bandwidth: stat.rx_bytes_per_second.saturating_add(stat.tx_bytes_per_second),
        at: Stamp(stat.at),
    }
}

/// A node as the API shows it.
pub(crate) fn node_view(world: &World, node: &Node) -> NodeView {
    let reserved = world.reserved.values().map(|(placed, _)| placed);
    let here: Vec<_> = world.placed.iter().chain(reserved).filter(|p| p.node == node.id).collect();
    let taken = here.iter().fold(Resources::default(), |sum, p| sum.plus(p.resources));
    let heard = world.heard.get(&node.id).and_then(|h| h.stat.as_ref());
    NodeView {
        id: node.id.clone(),
        name: node.name.clone(),
        node_type: node.node_type.to_string(),
        provider: node.provider.clone(),
        state: node.state.to_string(),
        address: node.address.map(|a| a.to_string()),
        may_stop: node.may_stop,
        price_per_hour: amount(Money(node.price.0), world.budget().currency),
        capacity: RoomView {
            cpu_millis: node.capacity.resources.cpu.0,
            memory_bytes: node.capacity.resources.memory.0,
            disk_bytes: node.capacity.disk.0,
        },
        allocated: RoomView {
            cpu_millis: taken.cpu.0,
            memory_bytes: taken.memory.0,
            disk_bytes: 0,
        },
        instances: u32::try_from(here.len()).unwrap_or(u32::MAX),
        labels: node.labels.clone(),
        ordered_at: Stamp(node.ordered_at),
        ready_at: node.ready_at.map(Stamp),
        stats: heard.map(|stat| stats_view(node, stat)),
        reason: node.reason.clone(),
    }
}

/// The budget and what became of it this month.
pub(crate) fn budget_view(world: &World, budget: &Budget) -> BudgetView {
    let report = &world.plan.report;
    let currency = budget.currency;
    let mut held_back: Vec<HeldBackView> = Vec::new();
    for waiting in world.waiting.values().filter(|w| w.refusal.why == Why::Cap) {
        let service = waiting.service.to_string();
        if held_back.iter().any(|h| h.service.as_deref() == Some(&service)) {
            continue;
        }
        let month = machine_planner::Month::of(world.plan_now());
        held_back.push(HeldBackView {
            node_type: waiting.node_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            service: Some(service),
            needs: amount(waiting.refusal.needs, currency),
            until: Stamp(waiting.refusal.until.unwrap_or_else(|| month.end())),
            detail: waiting.refusal.detail.clone(),
        });
    }
    BudgetView {
        currency: currency.to_string(),
        monthly_cap: match budget.cap {
            MonthlyCap::Unset => "unset".to_owned(),
            MonthlyCap::Unlimited => "none".to_owned(),
            MonthlyCap::Amount(cap) => amount(cap, currency),
        },
        reserve: budget.reserve.to_string(),
        spent: amount(report.spent, currency),
        obligations: amount(report.obligations, currency),
        free: match (budget.cap, report.free) {
            (MonthlyCap::Unlimited, _) => "none".to_owned(),
            (_, free) => amount(free.unwrap_or_default(), currency),
        },
        forecast: amount(report.forecast, currency),
        exhausted_at: report.exhausted_at.map(Stamp),
        over_cap: report.over_cap,
        pacing: if budget.strict_pacing { "strict" } else { "off" }.to_owned(),
        held_back,
        generation: budget.generation,
    }
}

/// A line of the ledger.
pub(crate) fn ledger_view(line: &LedgerEntry, currency: Currency) -> LedgerView {
    LedgerView {
        at: Stamp(line.at),
        node: line.node.clone(),
        node_type: line.node_type.to_string(),
        kind: line.kind.as_str().to_owned(),
        amount: amount(line.amount, currency),
        from: Stamp(line.from),
        until: Stamp(line.until),
        note: line.note.clone(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodesLabels {
    r#type: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabels {
    r#loop: &'static str,
}

type Amount = Gauge<f64, AtomicU64>;

/// The metrics of this role.
pub(crate) struct Meters {
    nodes: Family<NodesLabels, Gauge>,
    spent: Amount,
    obligations: Amount,
    cap: Amount,
    steps: Family<LoopLabels, Histogram>,
    plans_refused: Counter,
}

impl Meters {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Meters {
        let seconds = || Histogram::new([0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]);
        let meters = Meters {
            nodes: Family::default(),
            spent: Amount::default(),
            obligations: Amount::default(),
            cap: Amount::default(),
            steps: Family::new_with_constructor(seconds),
            plans_refused: Counter::default(),
        };
        registry.register("tally_nodes", "Nodes by type and state", meters.nodes.clone());
        registry.register("tally_budget_spent", "Spent this month", meters.spent.clone());
        let help = "Promised for the rest of this month";
        registry.register("tally_budget_obligations", help, meters.obligations.clone());
        registry.register("tally_budget_cap", "The monthly cap; 0: no amount", meters.cap.clone());
        let help = "Duration of a control loop's step";
        registry.register("tally_step_duration_seconds", help, meters.steps.clone());
        let help = "Plans the second reader threw away; more than none is a fault of Tally";
        registry.register("tally_machine_plans_refused", help, meters.plans_refused.clone());
        meters
    }

    pub(crate) fn stepped(&self, took: Duration) {
        let labels = LoopLabels { r#loop: "machine-manager" };
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self) {
        self.plans_refused.inc();
    }

    pub(crate) fn world(&self, world: &World) {
        let units = |money: Money| {
            #[expect(clippy::cast_precision_loss, reason = "a metric, not a bill")]
            let units = money.0 as f64 / 1e6;
            units
        };
        self.spent.set(units(world.plan.report.spent));
        self.obligations.set(units(world.plan.report.obligations));
        self.cap.set(world.plan.report.cap.map_or(0.0, units));
        self.nodes.clear();
        for node_type in world.types.keys() {
            for state in NodeState::ALL.into_iter().filter(|s| *s != NodeState::Stopped) {
                let count = world
                    .nodes
                    .values()
                    .filter(|n| n.node_type == *node_type && n.state == state)
                    .count();
                let labels =
                    NodesLabels { r#type: node_type.to_string(), state: state.to_string() };
                self.nodes.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}
