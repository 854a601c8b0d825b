//! Both registries answer every sequence of calls alike: the one in memory is the other's model.

use domain::{Generation, InstanceState, NodeState, Revision, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use registry::contract::{BEGINNING, HandClock, TERM, samples};
use registry::{
    Expect, InstanceCommit, Lease, MemoryRegistry, NodeCommit, NodeToken, Registry, RegistryError,
    Role, ServiceStat, SqliteRegistry,
};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

const SERVICES: [&str; 3] = ["a", "b", "c"];

/// One call, or time passing.
#[derive(Debug, Clone)]
enum Act {
    Pass(Duration),
    Take(Role, &'static str),
    /// The lease taken last but `n`.
    Renew(usize),
    GiveBack(usize),
    Put(&'static str, u8, bool, Expect),
    Delete(&'static str, Expect),
    Hold(&'static str, Option<u32>),
    Bump(&'static str),
    Commit(usize, Vec<(&'static str, u32, InstanceState)>, Option<&'static str>),
    Nodes(usize, Vec<(u32, NodeState)>, Option<u64>),
    PutType(u8, Expect),
    DeleteType(Expect),
    Budget(i64, Expect),
    PutToken(u8, u64),
    TakeToken(u8),
    Point(&'static str, u64),
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        4 => Just(Expect::Any),
        1 => Just(Expect::Absent),
        1 => Just(Expect::Present),
        2 => (0u64..6).prop_map(|n| Expect::At(Generation(n))),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let name = || select(SERVICES.to_vec());
    let role = select(vec![Role::ContainerManager, Role::MachineManager]);
    let instance = (name(), 0u32..8, select(InstanceState::ALL.to_vec()));
    let node = (0u32..5, select(NodeState::ALL.to_vec()));
    prop_oneof![
        2 => (0u64..4000).prop_map(|s| Act::Pass(Duration::from_secs(s))),
        1 => (role, select(vec!["x", "y"])).prop_map(|(role, holder)| Act::Take(role, holder)),
        1 => (0usize..3).prop_map(Act::Renew),
        1 => (0usize..3).prop_map(Act::GiveBack),
        4 => (name(), 0u8..3, any::<bool>(), expect())
            .prop_map(|(name, text, new, expect)| Act::Put(name, text, new, expect)),
        2 => (name(), expect()).prop_map(|(name, expect)| Act::Delete(name, expect)),
        1 => (name(), option::of(0u32..4)).prop_map(|(name, n)| Act::Hold(name, n)),
        1 => name().prop_map(Act::Bump),
        6 => (0usize..3, vec(instance, 0..4), option::of(name()))
            .prop_map(|(lease, instances, purged)| Act::Commit(lease, instances, purged)),
        4 => (0usize..3, vec(node, 0..3), option::of(0u64..4000))
            .prop_map(|(lease, nodes, paid)| Act::Nodes(lease, nodes, paid)),
        1 => (0u8..3, expect()).prop_map(|(max, expect)| Act::PutType(max, expect)),
        1 => expect().prop_map(Act::DeleteType),
        1 => (0i64..3, expect()).prop_map(|(cap, expect)| Act::Budget(cap, expect)),
        1 => (0u8..3, 0u64..4000).prop_map(|(token, ttl)| Act::PutToken(token, ttl)),
        1 => (0u8..3).prop_map(Act::TakeToken),
        1 => (name(), 0u64..40_000).prop_map(|(name, s)| Act::Point(name, s)),
    ]
}

/// A registry and the leases it gave.
struct Player {
    registry: Arc<dyn Registry>,
    leases: Vec<Lease>,
}

fn show<T: Debug>(answer: Result<T, RegistryError>) -> String {
    format!("{answer:?}")
}

impl Player {
    fn lease(&self, back: usize) -> Lease {
        let never = Lease {
            role: Role::ContainerManager,
            epoch: domain::Epoch(1),
            holder: "nobody".to_owned(),
            until: BEGINNING,
        };
        self.leases.iter().rev().nth(back).cloned().unwrap_or(never)
    }

    /// Does one act; answers what the registry said.
    async fn play(&mut self, act: &Act, now: Timestamp) -> String {
        let registry = &self.registry;
        match act.clone() {
            Act::Pass(_) => String::new(),
            Act::Take(role, holder) => {
                let taken = registry.take_lease(role, holder, TERM).await;
                self.leases.extend(taken.as_ref().ok().cloned().flatten());
                show(taken)
            }
            Act::Renew(n) => show(registry.renew_lease(&self.lease(n), TERM).await),
            Act::GiveBack(n) => show(registry.give_back_lease(&self.lease(n)).await),
            Act::Put(name, text, new, expect) => {
                let put = samples::put(name, &text.to_string(), new, expect);
                show(registry.put_service(put).await)
            }
            Act::Delete(name, expect) => {
                show(registry.delete_service(&samples::service(name), expect).await)
            }
            Act::Hold(name, n) => show(registry.hold_scale(&samples::service(name), n).await),
            Act::Bump(name) => show(registry.bump_revision(&samples::service(name)).await),
            Act::Commit(lease, instances, purged) => {
                let commit = step(instances, purged, now);
                show(registry.commit_instances(&self.lease(lease), commit).await)
            }
            Act::Nodes(lease, nodes, paid) => {
                let paid = paid.map(|s| samples::line(1, now.plus(Duration::from_secs(s)), "p"));
                let commit = NodeCommit {
                    nodes: nodes.into_iter().map(|(n, state)| samples::node(n, state)).collect(),
                    memory: paid.as_ref().map(|line| format!("{:?}", line.from)),
                    ledger: paid.into_iter().collect(),
                    events: vec![samples::event("nodes")],
                };
                show(registry.commit_nodes(&self.lease(lease), commit).await)
            }
            Act::PutType(..)
            | Act::DeleteType(_)
            | Act::Budget(..)
            | Act::PutToken(..)
            | Act::TakeToken(_)
            | Act::Point(..) => self.play_small(act, now).await,
        }
    }

    async fn play_small(&self, act: &Act, now: Timestamp) -> String {
        let registry = &self.registry;
        match act.clone() {
            Act::PutType(max, expect) => {
                let mut small = samples::node_type("small");
                small.max_count = u32::from(max);
                show(registry.put_node_type(small, max.to_string(), expect).await)
            }
            Act::DeleteType(expect) => {
                show(registry.delete_node_type(&samples::type_name("small"), expect).await)
            }
            Act::Budget(cap, expect) => {
                show(registry.put_budget(samples::budget(cap), cap.to_string(), expect).await)
            }
            Act::PutToken(token, ttl) => {
                let token = NodeToken {
                    hash: token.to_string(),
                    node_type: samples::type_name("small"),
                    node: None,
                    name: None,
                    expires_at: now.plus(Duration::from_secs(ttl)),
                };
                show(registry.put_node_token(token).await)
            }
            Act::TakeToken(token) => show(registry.take_node_token(&token.to_string(), now).await),
            Act::Point(name, s) => show(registry.add_service_stats(vec![point(name, s)]).await),
            Act::Pass(_)
            | Act::Take(..)
            | Act::Renew(_)
            | Act::GiveBack(_)
            | Act::Put(..)
            | Act::Delete(..)
            | Act::Hold(..)
            | Act::Bump(_)
            | Act::Commit(..)
            | Act::Nodes(..) => panic!("{act:?} is not small"),
        }
    }

    /// Everything a caller can read.
    async fn read_all(&self) -> Vec<String> {
        let registry = &self.registry;
        let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        let mut all = vec![
            show(registry.services().await),
            show(registry.instances().await),
            show(registry.nodes().await),
            show(registry.decisions(None, 50).await),
            show(registry.events_after(0, 500).await),
            show(registry.last_event().await),
            show(registry.node_types().await),
            show(registry.budget().await),
            show(registry.ledger(first, last).await),
            show(registry.machine_memory().await),
        ];
        for name in SERVICES.map(samples::service) {
            all.push(show(registry.ended_instances(&name, 9).await));
            all.push(show(registry.decisions(Some(&name), 3).await));
            all.push(show(registry.service_stats(&name, first, last, 9).await));
            for revision in (1..20).map(Revision) {
                all.push(show(registry.revision_document(&name, revision).await));
            }
        }
        all
    }
}

fn step(
    instances: Vec<(&'static str, u32, InstanceState)>,
    purged: Option<&'static str>,
    now: Timestamp,
) -> InstanceCommit {
    let instances = instances.into_iter().map(|(name, n, state)| {
        let mut one = samples::instance(name, n, state);
        one.state_since = now;
        one
    });
    let instances: Vec<_> = instances.collect();
    InstanceCommit {
        decisions: instances
            .iter()
            .map(|one| samples::decision(one.service.as_str(), now, 1))
            .collect(),
        memories: vec![(samples::service("a"), format!("{now:?}"))],
        purged: purged.map(samples::service).into_iter().collect(),
        events: vec![samples::event("step")],
        instances,
    }
}

fn point(name: &str, s: u64) -> ServiceStat {
    ServiceStat {
        service: samples::service(name),
        at: BEGINNING.plus(Duration::from_secs(s)),
        load: None,
        desired: 1,
        ready: 1,
        starting: 0,
        draining: 0,
        queued: 0,
        rps_milli: s,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn both_answer_alike(acts in vec(act(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(HandClock::default());
        let path = directory.path().join("registry.sqlite");
        let open = || Arc::new(SqliteRegistry::open(&path, clock.clone()).unwrap());
        let mut model =
            Player { registry: Arc::new(MemoryRegistry::new(clock.clone())), leases: Vec::new() };
        let mut subject = Player { registry: open(), leases: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = [Role::MachineManager, Role::ContainerManager].map(|role| Act::Take(role, "x"));
        let acts: Vec<Act> = first.into_iter().chain(acts).collect();
        runtime.block_on(async {
            for (n, act) in acts.iter().enumerate() {
                if let Act::Pass(span) = act {
                    clock.advance(*span);
                }
                let now = domain::Clock::now(clock.as_ref());
                let (right, answer) = (model.play(act, now).await, subject.play(act, now).await);
                assert_eq!(right, answer, "{act:?}");
                if n == acts.len() / 2 {
                    // A restart forgets nothing.
                    subject.registry = Arc::new(MemoryRegistry::new(clock.clone()));
                    subject.registry = open();
                }
            }
            // What upkeep still does after an answer is over when a later write is answered.
            clock.advance(Duration::from_secs(61));
            for player in [&model, &subject] {
                for _twice in 0..2 {
                    player.registry.put_setting("a", "b").await.unwrap();
                }
            }
            assert_eq!(model.read_all().await, subject.read_all().await);
        });
    }
}
