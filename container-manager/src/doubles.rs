//! Doubles for tests: executors and a machine-manager in memory.

use crate::executors::{Assigned, Events, ExecutorAt, ExecutorError, Executors};
use crate::placements::Placements;
use async_trait::async_trait;
use bytes::Bytes;
use chassis::PeerError;
use chassis::peer::Answer;
use domain::{Epoch, Generation, InstanceId, NodeId};
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::broadcast;
use wire::assignment::{Assignment, ExecutorEvent, InstanceSeen, Inventory, Newer, RunState};
use wire::operation::Logs;
use wire::placement::{
    AdmissionAnswer, AdmissionRequest, Granted, PlacementAnswer, PlacementRequest, WaitingStart,
    Why,
};

#[derive(Default)]
struct NodeState {
    epoch: Epoch,
    generation: Generation,
    seq: u64,
    seen: BTreeMap<InstanceId, InstanceSeen>,
}

#[derive(Default)]
struct Fleet {
    nodes: BTreeMap<NodeId, NodeState>,
    /// Starts that shall fail.
    fail: u32,
    /// Starts stay starting.
    slow: bool,
    /// Nodes that do not answer.
    deaf: BTreeSet<NodeId>,
    started: Vec<InstanceId>,
    port: u16,
}

/// Executors that start what they are told at once.
pub struct TestExecutors {
    fleet: Mutex<Fleet>,
    pushed: broadcast::Sender<(NodeId, ExecutorEvent)>,
}

impl Default for TestExecutors {
    fn default() -> TestExecutors {
        TestExecutors { fleet: Mutex::default(), pushed: broadcast::Sender::new(1024) }
    }
}

impl TestExecutors {
    pub fn fail_next(&self, n: u32) {
        self.fleet.lock().unwrap().fail = n;
    }

    /// Starts never get ready from now on.
    pub fn stall_starts(&self) {
        self.fleet.lock().unwrap().slow = true;
    }

    pub fn deafen(&self, node: &NodeId, deaf: bool) {
        let mut fleet = self.fleet.lock().unwrap();
        if deaf {
            fleet.deaf.insert(node.clone());
        } else {
            fleet.deaf.remove(node);
        }
        drop(fleet);
        // A stream that is open notices by itself.
        let beat = ExecutorEvent { seq: 0, seen: None };
        let _nobody_listens = self.pushed.send((node.clone(), beat));
    }

    pub fn started(&self) -> Vec<InstanceId> {
        self.fleet.lock().unwrap().started.clone()
    }

    pub fn running(&self) -> Vec<InstanceId> {
        let fleet = self.fleet.lock().unwrap();
        let seen = fleet.nodes.values().flat_map(|n| n.seen.values());
        seen.filter(|s| s.state == RunState::Ready).map(|s| s.instance.clone()).collect()
    }

    pub fn epoch(&self, node: &NodeId) -> Epoch {
        self.fleet.lock().unwrap().nodes.get(node).map_or(Epoch(0), |n| n.epoch)
    }

    /// The executor tells a new state of an instance by itself.
    pub fn tell(&self, node: &NodeId, instance: &InstanceId, state: RunState) {
        let mut fleet = self.fleet.lock().unwrap();
        let known = fleet.nodes.get_mut(node).unwrap();
        let mut seen = known.seen[instance].clone();
        seen.state = state;
        self.push(node, known, seen);
    }

    fn push(&self, node: &NodeId, state: &mut NodeState, seen: InstanceSeen) {
        state.seq += 1;
        if seen.state == RunState::Stopped {
            state.seen.remove(&seen.instance);
        } else {
            state.seen.insert(seen.instance.clone(), seen.clone());
        }
        let event = ExecutorEvent { seq: state.seq, seen: Some(seen) };
        let _nobody_listens = self.pushed.send((node.clone(), event));
    }

    fn is_deaf(&self, at: &ExecutorAt) -> Result<(), ExecutorError> {
        if self.fleet.lock().unwrap().deaf.contains(&at.node) {
            let detail = "deaf".to_owned();
            return Err(ExecutorError::Stream { node: at.node.clone(), detail });
        }
        Ok(())
    }
}

#[async_trait]
impl Executors for TestExecutors {
    async fn assign(
        &self,
        at: &ExecutorAt,
        assignment: &Assignment,
    ) -> Result<Assigned, ExecutorError> {
        self.is_deaf(at)?;
        let mut fleet = self.fleet.lock().unwrap();
        let Fleet { nodes, fail, slow, started, port, .. } = &mut *fleet;
        let node = nodes.entry(at.node.clone()).or_default();
        let newest = (node.epoch, node.generation);
        if (assignment.epoch, assignment.generation) < newest {
            return Ok(Assigned::Newer(Newer { epoch: newest.0, generation: newest.1 }));
        }
        (node.epoch, node.generation) = (assignment.epoch, assignment.generation);
        let wanted: BTreeSet<_> = assignment.instances.iter().map(|i| i.id.clone()).collect();
        let gone: Vec<_> = node.seen.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in gone {
            let seen = InstanceSeen { state: RunState::Stopped, ..node.seen[&id].clone() };
            self.push(&at.node, node, seen);
        }
        for instance in &assignment.instances {
            if node.seen.contains_key(&instance.id) {
                continue;
            }
            started.push(instance.id.clone());
            *port += 1;
            let state = if *fail > 0 {
                *fail -= 1;
                RunState::Failed
            } else if *slow {
                RunState::Starting
            } else {
                RunState::Ready
            };
            assert_eq!(instance.run.env["TALLY_INSTANCE"], instance.id.as_str());
            let seen = InstanceSeen {
                instance: instance.id.clone(),
                state,
                address: Some([127, 0, 0, 1].into()),
                port: Some(20_000 + *port),
                exit: None,
                restarts: 0,
                spawn_ms: None,
                ready_ms: None,
            };
            self.push(&at.node, node, seen);
        }
        Ok(Assigned::Accepted)
    }

    async fn inventory(&self, at: &ExecutorAt) -> Result<Inventory, ExecutorError> {
        self.is_deaf(at)?;
        let mut fleet = self.fleet.lock().unwrap();
        let node = fleet.nodes.entry(at.node.clone()).or_default();
        Ok(Inventory {
            node: at.node.clone(),
            epoch: node.epoch,
            generation: node.generation,
            seq: node.seq,
            instances: node.seen.values().cloned().collect(),
        })
    }

    async fn events(&self, at: &ExecutorAt, after: u64) -> Result<Events, ExecutorError> {
        let pushed = self.pushed.subscribe();
        self.is_deaf(at)?;
        let node = at.node.clone();
        // What was pushed between inventory and subscription is a gap that the first beat shows.
        let now = self.fleet.lock().unwrap().nodes.get(&node).map_or(0, |n| n.seq);
        let first = ExecutorEvent { seq: now.max(after), seen: None };
        let beats =
            futures_util::stream::unfold((pushed, node, now), |(mut rx, node, last)| async move {
                loop {
                    match tokio::time::timeout(Duration::from_secs(1), rx.recv()).await {
                        Ok(Ok((from, event))) if from == node && event.seq > 0 => {
                            let seq = event.seq;
                            return Some((Ok(event), (rx, node, seq)));
                        }
                        Ok(Ok((from, _deafened))) if from == node => return None,
                        Ok(Ok(_other_node)) => {}
                        Ok(Err(_closed)) => return None,
                        Err(_quiet) => {
                            let beat = ExecutorEvent { seq: last, seen: None };
                            return Some((Ok(beat), (rx, node, last)));
                        }
                    }
                }
            });
        Ok(futures_util::stream::iter([Ok(first)]).chain(beats).boxed())
    }

    async fn logs(
        &self,
        _at: &ExecutorAt,
        instance: &InstanceId,
        lines: usize,
    ) -> Result<Logs, ExecutorError> {
        let lines = (0..lines.min(3)).map(|n| format!("line {n}")).collect();
        Ok(Logs { instance: instance.clone(), lines })
    }
}

/// A machine-manager with one answer.
#[derive(Default)]
pub struct TestPlacements {
    /// Where everything goes; empty: nothing fits the cap.
    pub nodes: Mutex<Vec<NodeId>>,
    /// Minimums refused.
    pub refuse: Mutex<bool>,
    /// It does not answer.
    pub away: Mutex<bool>,
}

#[async_trait]
impl Placements for TestPlacements {
    async fn ask(&self, request: &PlacementRequest) -> Result<PlacementAnswer, PeerError> {
        if *self.away.lock().unwrap() {
            let limit = Duration::from_secs(1);
            return Err(PeerError::Deadline { peer: "the double".into(), limit });
        }
        let nodes = self.nodes.lock().unwrap();
        let mut answer = PlacementAnswer::default();
        for wanted in &request.wanted {
            let instance = wanted.instance.clone();
            match nodes.iter().find(|node| !wanted.not_on.contains(node)) {
                Some(node) => answer.granted.push(Granted { instance, node: node.clone() }),
                None => answer.waiting.push(WaitingStart {
                    instance,
                    why: Why::Cap,
                    node: None,
                    eta_ms: None,
                    needs_micros: Some(40_000),
                    until: None,
                    detail: "needs 0.04 EUR more".to_owned(),
                }),
            }
        }
        for stops in &request.stops {
            let last = stops.candidates.iter().rev().take(stops.count as usize);
            answer.stops.extend(last.cloned());
        }
        Ok(answer)
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
    ) -> Result<Option<AdmissionAnswer>, PeerError> {
        let admitted = !*self.refuse.lock().unwrap();
        let detail = "needs 12.00 EUR more until the month's end".to_owned();
        Ok(Some(AdmissionAnswer { admitted, needs_micros: None, detail }))
    }

    async fn pass(
        &self,
        method: Method,
        path: &str,
        _headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, PeerError> {
        let text = format!("{method} {path} {}", String::from_utf8_lossy(&body));
        Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: text.into() })
    }
}
