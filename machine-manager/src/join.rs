//! `POST /v1/nodes/join`: a node introduces itself with its one-time token, or comes back with its
//! secret. And the tokens.

use crate::Manager;
use crate::record::{become_state, node_event};
use crate::world::Heard;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use chassis::{ApiError, ApiJson, PeerAddr, identity, ids};
use domain::{Bytes, Capacity, MilliCpu, Node, NodeState, NodeType, Resources, Timestamp};
use machine_planner::Account;
use registry::{NodeCommit, NodeToken};
use std::sync::Arc;
use std::time::Duration;
use wire::join::{JoinAnswer, JoinRequest};
use wire::operator::{NodeTokenAnswer, NodeTokenRequest};
use wire::problem::Kind;
use wire::stamp::Stamp;

/// A token is good for this long when nobody says otherwise.
const TTL: Duration = Duration::from_secs(3600);
/// A token may not be good for longer: it is meant for one joining, soon.
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest name of a node: a host name.
const NAME_BYTES_MAX: usize = 253;
/// Labels a node may say of itself, and all it has in the end.
pub(crate) const LABELS_MAX: usize = 64;

/// `POST /v1/node-tokens`.
pub(crate) async fn token(
    State(manager): State<Arc<Manager>>,
    ApiJson(request): ApiJson<NodeTokenRequest>,
) -> Result<Json<NodeTokenAnswer>, ApiError> {
    let node_type = crate::api::types::known(&manager, &request.node_type)?;
    let ttl = request.ttl.map_or(TTL, |q| q.0.0);
    if ttl.is_zero() || ttl > TTL_MAX {
        let detail = "must be more than 0s and at most 7d";
        return Err(
            ApiError::new(Kind::Invalid, format!("/ttl {detail}")).with_error("/ttl", detail)
        );
    }
    if let Some(name) = &request.name {
        check_name(name)?;
    }
    let secret = ids::secret();
    let expires_at = manager.clock.now().plus(ttl);
    let token = NodeToken {
        hash: identity::digest(&secret),
        node_type: node_type.name,
        node: None,
        name: request.name,
        expires_at,
    };
    manager.registry.put_node_token(token).await.map_err(|e| ApiError::internal(&e))?;
    Ok(Json(NodeTokenAnswer { token: secret, expires_at: Stamp(expires_at) }))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(right) {
        let detail = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
        return Err(
            ApiError::new(Kind::Invalid, format!("/name {detail}")).with_error("/name", detail)
        );
    }
    Ok(())
}

/// `POST /v1/nodes/join`.
pub(crate) async fn join(
    State(manager): State<Arc<Manager>>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<JoinRequest>,
) -> Result<Json<JoinAnswer>, ApiError> {
    check(&request, peer.map(|Extension(p)| p), &headers)?;
    let writer = manager.writer.lock().await;
    let Some(lease) = writer.clone().filter(|_| manager.world().loaded) else {
        let detail = "no machine-manager leads here at the moment; try again";
        return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
    };
    let now = manager.clock.now();
    let (mut node, secret) = match (&request.token, &request.node, &request.node_secret) {
        (Some(token), _, _) => (by_token(&manager, token, &request, now).await?, ids::secret()),
        (None, Some(id), Some(secret)) => (by_secret(&manager, id, secret)?, secret.clone()),
        (None, _, _) => {
            let detail = "join with a token (`tally node token`), or with the node's id and secret";
            return Err(ApiError::new(Kind::Unauthorized, detail));
        }
    };
    let first = node.ready_at.is_none();
    node.address = Some(request.address);
    node.executor_url = Some(request.executor_url.clone());
    node.secret_hash = Some(identity::digest(&secret));
    node.seen_at = Some(now);
    add_labels(&mut node, &request);
    let back = matches!(
        node.state,
        NodeState::Ordered | NodeState::Booting | NodeState::Suspect | NodeState::Lost
    );
    if back {
        let to =
            if node.drain.is_some() && !first { NodeState::Draining } else { NodeState::Ready };
        become_state(&mut node, to, now, if first { "joined" } else { "came back" });
    }
    node.ready_at = node.ready_at.or(Some(now));

    let mut commit = NodeCommit { nodes: vec![node.clone()], ..NodeCommit::default() };
    let detail = format!("node {} ({}) answers at {}", node.name, node.node_type, request.address);
    commit.events.push(node_event(now, &node, if first { "ready" } else { "rejoined" }, detail));
    let fixed = node.provider == crate::providers::static_::NAME;
    if fixed && first {
        // Nobody ordered it, so nobody reserved: it is billed from now on, as a fact.
        let account = Account::restore(&node, None, now);
        commit.ledger = account.begin(now, now).1;
    }
    let lines = commit.ledger.clone();
    manager.registry.commit_nodes(&lease, commit).await.map_err(|e| {
        manager.world().loaded = false;
        ApiError::internal(&e)
    })?;
    {
        let mut world = manager.world();
        lines.iter().for_each(|l| world.books.apply(l));
        let at = manager.clock.monotonic();
        let heard = Heard { at, seq: 0, stat: None, instances: std::collections::BTreeMap::new() };
        world.heard.insert(node.id.clone(), heard);
        world.dead.remove(&node.id);
        world.rest.remove(&node.id);
        world.nodes.insert(node.id.clone(), node.clone());
    }
    drop(writer);
    manager.nudge.nudge();
    crate::reconcile::nudge_container_manager(&manager);
    tracing::info!(node.id = %node.id, name = %node.name, first, "a node joined");
    Ok(Json(JoinAnswer {
        node: node.id,
        cluster: manager.identity.cluster().to_owned(),
        public_key: manager.identity.public_key(),
        node_secret: secret,
        load_url: manager.config.load_url.clone(),
        stats_url: manager.config.stats_url.clone(),
    }))
}

/// Each time it comes back a node may say other labels: what it said first stays, and no more fits.
fn add_labels(node: &mut Node, request: &JoinRequest) {
    for (key, value) in &request.labels {
        if node.labels.len() < LABELS_MAX {
            node.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn check(
    request: &JoinRequest,
    peer: Option<PeerAddr>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let wrong = |pointer: &str, detail: &str| {
        Err(ApiError::new(Kind::Invalid, format!("{pointer}: {detail}"))
            .with_error(pointer, detail))
    };
    if request.wire != wire::WIRE_VERSION {
        return wrong("/wire", "this machine-manager speaks another version; use the same release");
    }
    check_name(&request.name)?;
    if request.labels.len() > LABELS_MAX {
        return wrong("/labels", "too many labels");
    }
    // Through the container-manager's API a remote peer is known by what that API notes.
    let forwarded = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
    let remote = match forwarded.and_then(|f| f.split(',').next()?.trim().parse().ok()) {
        Some(address) => {
            let address: std::net::IpAddr = address;
            !address.to_canonical().is_loopback()
        }
        None => peer.is_some_and(|p| !p.is_local()),
    };
    if remote && request.address.to_canonical().is_loopback() {
        return wrong(
            "/address",
            "a loopback address cannot be reached from other hosts; join with --address ADDRESS",
        );
    }
    let url = request.executor_url.as_str();
    let is_url = url.parse::<chassis::PeerUrl>().is_ok();
    if !is_url || (remote && url.starts_with("unix:")) {
        return wrong("/executor_url", "must be http://host:port (or unix:/path on this host)");
    }
    Ok(())
}

/// The node a token was made for: one we ordered, or a new one that came by itself.
async fn by_token(
    manager: &Manager,
    token: &str,
    request: &JoinRequest,
    now: Timestamp,
) -> Result<Node, ApiError> {
    let hash = identity::digest(token);
    let taken = manager.registry.take_node_token(&hash, now).await;
    let token = taken.map_err(|e| ApiError::internal(&e))?.ok_or_else(|| {
        let detail =
            "the token is unknown, used or expired; make a new one with `tally node token`";
        ApiError::new(Kind::Unauthorized, detail)
    })?;
    if let Some(id) = &token.node {
        let node = manager.world().nodes.get(id).cloned();
        return node.filter(|n| n.state != NodeState::Stopping).ok_or_else(|| {
            ApiError::new(Kind::Conflict, format!("node {id} was given up; this host may go"))
        });
    }
    let node_type = crate::api::types::known(manager, token.node_type.as_str())?;
    let name = token.name.clone().unwrap_or_else(|| request.name.clone());
    let world = manager.world();
    if world.nodes.values().any(|n| n.name == name) {
        let detail = format!("a node named {name} is there already; join with another --name");
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let there = world.nodes.values().filter(|n| n.node_type == node_type.name).count();
    if there as u64 >= u64::from(node_type.max_count) {
        let detail = format!("all {} nodes of type {} are there", there, node_type.name);
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    drop(world);
    let id = manager.ids().node();
    Ok(fixed_node(id, name, node_type, request, now))
}

/// A node nobody ordered: never stopped by us, whatever its type's provider.
fn fixed_node(
    id: domain::NodeId,
    name: String,
    of: NodeType,
    request: &JoinRequest,
    now: Timestamp,
) -> Node {
    let measured = Capacity {
        resources: Resources {
            cpu: MilliCpu(request.cpu_millis),
            memory: Bytes(request.memory_bytes),
        },
        disk: Bytes(request.disk_bytes),
    };
    // The type's values count where it has them.
    let or = |declared: u64, own: u64| if declared == 0 { own } else { declared };
    let declared = of.capacity;
    let capacity = Capacity {
        resources: Resources {
            cpu: if declared.resources.cpu.0 == 0 {
                measured.resources.cpu
            } else {
                declared.resources.cpu
            },
            memory: Bytes(or(declared.resources.memory.0, measured.resources.memory.0)),
        },
        disk: Bytes(or(declared.disk.0, measured.disk.0)),
    };
    Node {
        id,
        name,
        node_type: of.name,
        provider: crate::providers::static_::NAME.to_owned(),
        provider_ref: None,
        state: NodeState::Ordered,
        state_since: now,
        deadline: None,
        address: None,
        executor_url: None,
        capacity,
        cpu_class: of.cpu_class,
        disk_type: of.disk_type,
        labels: of.labels,
        price: of.price,
        billing_unit: of.billing_unit,
        billing_minimum: of.billing_minimum,
        min_life: of.min_life,
        stop_lead: of.stop_lead,
        may_stop: false,
        drain: None,
        ordered_at: now,
        ready_at: None,
        seen_at: None,
        stopped_at: None,
        secret_hash: None,
        reason: "joined by itself".to_owned(),
    }
}

fn by_secret(manager: &Manager, id: &domain::NodeId, secret: &str) -> Result<Node, ApiError> {
    let hash = identity::digest(secret);
    let node = manager.world().nodes.get(id).cloned();
    let known = node
        .filter(|node| node.secret_hash.as_ref().is_some_and(|kept| identity::same(kept, &hash)));
    known.ok_or_else(|| {
        let detail = format!(
            "{id} is not a node of this cluster any more, or not with this secret; join anew with a \
             token (`tally node token`)"
        );
        ApiError::new(Kind::Unauthorized, detail)
    })
}
