//! The only reader of the registry within a step: what nodes, types, money, services and instances
//! there are.

use crate::Manager;
use crate::world::{Known, World};
use domain::{Instance, InstanceId, Needs, ServiceGroup, ServiceSpec, Timestamp};
use machine_planner::{Books, Memory, Month, Placed};
use registry::{RegistryError, ServiceRow};
use std::collections::BTreeMap;
use wire::manifest::ServiceManifest;

/// Grants without a living row that are looked up in one step: a step stays short in a storm of
/// starts, and the rest is looked up in the next.
const LOOKED_UP_MAX: usize = 64;

/// Reads everything that is ours, once per term of leadership; afterwards memory is the truth.
pub(crate) async fn load(manager: &Manager) -> Result<(), RegistryError> {
    let registry = &manager.registry;
    let nodes = registry.nodes().await?;
    let types = registry.node_types().await?;
    let budget = registry.budget().await?;
    let memory = registry.machine_memory().await?;
    let now = manager.clock.now();
    // Lines are found by where their period begins: a node's first may be older than the month.
    let last_month = Month::of(Timestamp(Month::of(now).start().0 - 1)).start();
    let oldest = nodes.iter().map(|n| n.ordered_at).min().unwrap_or(now).min(last_month);
    let lines = registry.ledger(oldest, Timestamp(i64::MAX)).await?;
    let mut books = Books::default();
    lines.iter().for_each(|line| books.apply(line));
    let mono = manager.clock.monotonic();
    let mut world = manager.world();
    let old = std::mem::take(&mut *world);
    *world = World {
        loaded: true,
        nodes: nodes.into_iter().map(|n| (n.id.clone(), n)).collect(),
        types: types.into_iter().map(|t| (t.name.clone(), t)).collect(),
        budget,
        books,
        memory: Memory::from_text(&memory),
        listening_since: mono,
        // What is under way stays known: a lost lease does not end a provider's call.
        busy: old.busy,
        outcomes: old.outcomes,
        reserved: old.reserved,
        wanted: old.wanted,
        wanted_at: old.wanted_at,
        heard: old.heard,
        steps: old.steps,
        ..World::default()
    };
    Ok(())
}

/// Reads what the container-manager owns.
pub(crate) async fn refresh(manager: &Manager) -> Result<(), RegistryError> {
    let services = manager.registry.services().await?;
    let instances = manager.registry.instances().await?;
    let spent = spent_grants(manager, &instances).await?;
    let types = manager.registry.node_types().await?;
    let budget = manager.registry.budget().await?;
    let mono = manager.clock.monotonic();
    let mut world = manager.world();
    let mut known = std::mem::take(&mut world.services);
    world.services = services
        .into_iter()
        .map(|row| {
            let old = known.remove(&row.name);
            (row.name.clone(), known_of(&row, old))
        })
        .collect();
    world.types = types.into_iter().map(|t| (t.name.clone(), t)).collect();
    world.budget = budget;
    let placed = instances.iter().filter_map(|i| placed(i, &world.services)).collect();
    world.placed = placed;
    for instance in &spent {
        world.reserved.remove(instance);
    }
    world.expire(mono);
    Ok(())
}

/// Grants whose instance had its row and holds no room any more: it failed or ended between two
/// steps. Without this a start that fails at once would keep its room until the grant's time is over.
async fn spent_grants(
    manager: &Manager,
    instances: &[Instance],
) -> Result<Vec<InstanceId>, RegistryError> {
    let granted: Vec<InstanceId> = manager.world().reserved.keys().cloned().collect();
    let rows: BTreeMap<&InstanceId, &Instance> = instances.iter().map(|i| (&i.id, i)).collect();
    let (mut spent, mut asked) = (Vec::new(), 0);
    for id in granted {
        let over = match rows.get(&id) {
            Some(row) => !row.state.holds_room(),
            None if asked < LOOKED_UP_MAX => {
                asked += 1;
                let row = manager.registry.instance(&id).await?;
                row.is_some_and(|row| !row.state.holds_room())
            }
            None => false,
        };
        if over {
            spent.push(id);
        }
    }
    Ok(spent)
}

/// Parses a declaration only when it changed.
fn known_of(row: &ServiceRow, old: Option<Known>) -> Known {
    if let Some(old) = old
        && old.generation == row.generation
    {
        return Known { deleting: row.deleting, ..old };
    }
    let manifest = serde_json::from_str::<ServiceManifest>(&row.document).ok();
    let spec = manifest.and_then(|m| {
        let named = ServiceManifest { name: Some(row.name.to_string()), ..m };
        ServiceSpec::try_from(&named).ok().map(Box::new)
    });
    if spec.is_none() {
        tracing::warn!(service.id = %row.name, "the declaration cannot be read; its minimum is ignored");
    }
    Known { generation: row.generation, deleting: row.deleting, spec }
}

fn placed(instance: &Instance, services: &BTreeMap<domain::ServiceName, Known>) -> Option<Placed> {
    let node = instance.node.clone().filter(|_| instance.state.holds_room())?;
    let spec = services.get(&instance.service).and_then(|known| known.spec.as_ref());
    Some(Placed {
        instance: instance.id.clone(),
        service: instance.service.clone(),
        node,
        resources: instance.resources,
        priority: spec.map_or(0, |s| s.priority),
        group: spec.map_or(ServiceGroup::SelfContained, |s| s.group),
        needs: spec.map_or_else(Needs::default, |s| s.needs.clone()),
    })
}
