//! The only caller of providers. What is to be done is read from the nodes' states, so a lost
//! answer, a crash or a retry need no memory: ordered nodes are started, stopping ones stopped.

use crate::Manager;
use crate::provider::{NodeProvider, ProviderError, StartOrder};
use crate::world::Outcome;
use domain::{Event, EventKind, Node, NodeId, NodeState};
use registry::NodeToken;
use std::sync::Arc;
use std::time::Duration;

/// Calls to providers at once: a cloud's API limits are about that.
const CALLS_MAX: usize = 16;
/// One call to a provider; longer counts as no answer. A local stop may take 15 s.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How often providers' lists are compared with ours.
const LIST_EVERY: Duration = Duration::from_secs(60);

enum Call {
    Start,
    Stop,
}

/// Starts every call that is due and not under way.
pub(crate) fn act(manager: &Arc<Manager>) {
    let mono = manager.clock.monotonic();
    let mut due = Vec::new();
    {
        let mut world = manager.world();
        let world = &mut *world;
        for node in world.nodes.values() {
            if world.busy.len() >= CALLS_MAX {
                break;
            }
            if world.busy.contains(&node.id) || world.rests(&node.id, mono) {
                continue;
            }
            let in_flight = world.books.account(node).started_at.is_none();
            let halted = manager.config.halt.is_set();
            let revives = manager.providers.get(&node.provider).is_some_and(|p| p.revives());
            let revives = !halted && (revives || !node.may_stop);
            let Some(call) = call_for(node, in_flight, revives) else { continue };
            world.busy.insert(node.id.clone());
            due.push((node.clone(), call));
        }
    }
    for (node, call) in due {
        let manager = Arc::clone(manager);
        let tasks = manager.shutdown.clone();
        tasks.spawn(async move {
            let outcome = match call {
                Call::Start => start(&manager, &node).await,
                Call::Stop => stop(&manager, &node).await,
            };
            let mut world = manager.world();
            world.busy.remove(&node.id);
            world.outcomes.push(outcome);
            drop(world);
            manager.nudge.nudge();
        });
    }
}

fn call_for(node: &Node, in_flight: bool, revives: bool) -> Option<Call> {
    let ours = node.provider != crate::providers::static_::NAME;
    match node.state {
        NodeState::Stopping => Some(Call::Stop),
        NodeState::Ordered => Some(Call::Start),
        // It joined before the provider's answer was heard: the answer says since when it is billed.
        NodeState::Ready if in_flight && ours => Some(Call::Start),
        // A machine that died is started again, with the same identity.
        NodeState::Lost if revives && ours => Some(Call::Start),
        NodeState::Booting
        | NodeState::Ready
        | NodeState::Suspect
        | NodeState::Lost
        | NodeState::Draining
        | NodeState::Stopped => None,
    }
}

fn provider(manager: &Manager, node: &Node) -> Result<Arc<dyn NodeProvider>, ProviderError> {
    manager.providers.get(&node.provider).cloned().ok_or_else(|| {
        let known: Vec<&str> = manager.providers.keys().map(String::as_str).collect();
        ProviderError::Refused {
            provider: node.provider.clone(),
            detail: format!("there is no such provider here; known are: {}", known.join(", ")),
        }
    })
}

async fn start(manager: &Manager, node: &Node) -> Outcome {
    let started = async {
        let provider = provider(manager, node)?;
        let node_type = manager.world().types.get(&node.node_type).map(|r| r.node_type.clone());
        let unsure =
            |detail: String| ProviderError::Unsure { provider: node.provider.clone(), detail };
        let Some(node_type) = node_type else {
            let detail = format!("node type {} was removed", node.node_type);
            return Err(ProviderError::Refused { provider: node.provider.clone(), detail });
        };
        let token = token(manager, node).await.map_err(|e| unsure(e.to_string()))?;
        let order = StartOrder { node: node.id.clone(), name: node.name.clone(), node_type, token };
        match tokio::time::timeout(CALL_LIMIT, provider.start(&order)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(unsure(format!("no answer within {CALL_LIMIT:?}"))),
        }
    };
    let id = node.id.clone();
    match started.await {
        Ok(started) => Outcome::Started(id, started),
        // A definite no ends an order; a node that ran already is another matter.
        Err(ProviderError::Refused { detail, .. }) if node.state == NodeState::Ordered => {
            Outcome::Refused(id, detail)
        }
        Err(error) => Outcome::Unsure(id, error.to_string()),
    }
}

async fn stop(manager: &Manager, node: &Node) -> Outcome {
    let stopped = async {
        let provider = provider(manager, node)?;
        match tokio::time::timeout(CALL_LIMIT, provider.stop(&node.id)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(ProviderError::Unsure {
                provider: node.provider.clone(),
                detail: format!("no answer within {CALL_LIMIT:?}"),
            }),
        }
    };
    match stopped.await {
        Ok(stopped) => Outcome::Stopped(node.id.clone(), stopped),
        Err(error) => Outcome::Unsure(node.id.clone(), error.to_string()),
    }
}

/// A fresh one-time token: the one of an earlier try may be used or lost.
async fn token(manager: &Manager, node: &Node) -> Result<String, registry::RegistryError> {
    let secret = chassis::ids::secret();
    let policy = &manager.config.policy;
    let lasts = policy.order_deadline.saturating_add(policy.join_deadline);
    manager
        .registry
        .put_node_token(NodeToken {
            hash: chassis::identity::digest(&secret),
            node_type: node.node_type.clone(),
            node: Some(node.id.clone()),
            name: Some(node.name.clone()),
            expires_at: manager.clock.now().plus(lasts),
        })
        .await?;
    Ok(secret)
}

/// Compares what providers have with what we know: machines nobody ordered are told about, and
/// protected ones that do not run are counted as silent at once.
pub(crate) async fn compare_lists(manager: &Arc<Manager>) {
    let mono = manager.clock.monotonic();
    {
        let mut world = manager.world();
        if world.listed_at.is_some_and(|at| mono.since(at) < LIST_EVERY) {
            return;
        }
        world.listed_at = Some(mono);
    }
    for (name, provider) in &manager.providers {
        let listed = tokio::time::timeout(Duration::from_secs(5), provider.list()).await;
        let machines = match listed {
            Ok(Ok(machines)) => machines,
            Ok(Err(error)) => {
                tracing::warn!(provider = %name, %error, "the list of machines could not be had");
                continue;
            }
            Err(_elapsed) => {
                tracing::warn!(provider = %name, "the list of machines did not come in time");
                continue;
            }
        };
        let mut strangers: Vec<NodeId> = Vec::new();
        {
            let mut world = manager.world();
            for machine in machines {
                if !machine.running && !world.busy.contains(&machine.node) {
                    world.dead.insert(machine.node.clone());
                }
                let known = world.nodes.contains_key(&machine.node);
                if !known && machine.running && world.strangers.insert(machine.node.clone()) {
                    strangers.push(machine.node);
                }
            }
        }
        let now = manager.clock.now();
        let events = strangers.into_iter().map(|node| Event {
            at: now,
            kind: EventKind::Node,
            subject: node.to_string(),
            what: "stranger".to_owned(),
            detail: format!(
                "provider {name} runs a machine for {node}, which nobody ordered or which has \
                 ended; it may be billed: stop it there"
            ),
            values: String::new(),
        });
        let events: Vec<Event> = events.collect();
        if !events.is_empty()
            && let Err(error) = manager.registry.add_events(events).await
        {
            tracing::warn!(%error, "events could not be written");
        }
    }
}
