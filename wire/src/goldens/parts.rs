//! What the parts say to each other.

use super::Book;
use crate::WIRE_VERSION;
use crate::assignment::{
    Accepted, AssignedHealth, AssignedInstance, AssignedMount, AssignedRun, Assignment, EngineKind,
    ExecutorEvent, InstanceSeen, Inventory, IsolationKind, Limits, Newer, RunState, Want,
};
use crate::join::{InstanceMeasure, JoinAnswer, JoinRequest, NodeMeasure, StatsReport};
use crate::manifest::NeedsManifest;
use crate::node_file::{CgroupPaths, NodeFile, NodeFileInstance};
use crate::operation::{Logs, Operation, Operations, Verb};
use crate::picks::{CandidateView, FieldView, NotEligibleView, PickView, PicksView};
use crate::placement::{
    AdmissionAnswer, AdmissionRequest, Granted, PlacementAnswer, PlacementRequest, WaitingStart,
    WantedStart, WantedStops, Why,
};
use crate::problem::{Kind, Problem};
use crate::report::{RejectedReport, Report, ReportBatch, ReportsAnswer};
use crate::stamp::Stamp;
use domain::{Epoch, Generation, InstanceId, NodeId, Revision, ServiceName, Timestamp};
use std::collections::BTreeMap;

/// 2026-11-22T04:17:00.123Z
pub const AT: Stamp = Stamp(Timestamp(1_795_321_020_123));

pub fn service() -> ServiceName {
    "shop".parse().unwrap()
}

pub fn instance() -> InstanceId {
    "shop-0123456789".parse().unwrap()
}

pub fn node() -> NodeId {
    "n-abcdefghjk".parse().unwrap()
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("zone".to_owned(), "a".to_owned())])
}

pub fn write(book: &mut Book) {
    loads(book);
    executor(book);
    operations(book);
    joining(book);
    picks(book);
    placements(book);
    let problem = Problem::new(Kind::Invalid, "/load/up: must be above /load/down")
        .with_error("/load/up", "must be above /load/down");
    book.page("problem", &Problem { instance: Some("r-1".into()), ..problem });
}

fn loads(book: &mut Book) {
    let least = Report {
        service: "shop".into(),
        instance: "shop-0123456789".into(),
        load: 0.42,
        in_flight: None,
        rps: None,
        eps: None,
        seq: None,
        token: None,
        source: None,
    };
    let full = Report {
        in_flight: Some(3),
        rps: Some(120.0),
        eps: Some(0.5),
        seq: Some(17),
        token: Some("token".into()),
        source: Some("cgroup".into()),
        ..least.clone()
    };
    book.page("report-least", &least);
    book.page("report", &full);
    book.page("report-batch", &ReportBatch { reports: vec![least, full] });
    let rejected = vec![RejectedReport { index: 1, reason: "the instance is not known".into() }];
    book.page("report-answer", &ReportsAnswer { accepted: 1, rejected });
}

fn assigned(engine: EngineKind) -> AssignedInstance {
    let docker = engine == EngineKind::Docker;
    AssignedInstance {
        id: instance(),
        service: service(),
        revision: Revision(2),
        want: if docker { Want::Paused } else { Want::Running },
        engine,
        run: AssignedRun {
            image: docker.then(|| "shop:1.2".into()),
            command: vec!["./shop".into(), "--port".into(), "{port}".into()],
            stop_command: vec!["./stop".into(), "{instance}".into()],
            port: docker.then_some(8080),
            env: BTreeMap::from([("TALLY_SERVICE".to_owned(), "shop".to_owned())]),
            workdir: Some("/srv".into()),
            user: Some("www-data".into()),
            mounts: vec![AssignedMount {
                source: "/data/shop".into(),
                target: "/data".into(),
                read_only: true,
            }],
            isolation: IsolationKind::Namespaces,
        },
        limits: Limits { cpu_millis: 250, memory_bytes: 64 << 20 },
        health: AssignedHealth {
            path: docker.then(|| "/up".into()),
            interval_ms: 2000,
            timeout_ms: 1000,
            failures: 3,
        },
        start_deadline_ms: 30_000,
        drain_deadline_ms: 30_000,
        expires_at: Some(1_795_407_420_123),
        restart: true,
        load_source: "auto".into(),
        load_token: "token".into(),
    }
}

fn seen() -> InstanceSeen {
    InstanceSeen {
        instance: instance(),
        state: RunState::Ready,
        address: Some([10, 0, 0, 7].into()),
        port: Some(20_001),
        exit: Some("exit status 1".into()),
        restarts: 1,
        spawn_ms: Some(12),
        ready_ms: Some(40),
    }
}

fn executor(book: &mut Book) {
    let assignment = Assignment {
        wire: WIRE_VERSION,
        cluster: "c-1".into(),
        epoch: Epoch(1_795_321_020),
        generation: Generation(7),
        node: node(),
        instances: vec![assigned(EngineKind::Process), assigned(EngineKind::Docker)],
    };
    book.page("assignment", &assignment);
    book.page("assignment-accepted", &Accepted { accepted: true });
    let newer = Newer { epoch: Epoch(1_795_321_021), generation: Generation(8) };
    book.page("assignment-newer", &newer);
    book.page("executor-event", &ExecutorEvent { seq: 5, seen: Some(seen()) });
    book.page("executor-beat", &ExecutorEvent { seq: 5, seen: None });
    let inventory = Inventory {
        node: node(),
        epoch: Epoch(1_795_321_020),
        generation: Generation(7),
        seq: 5,
        instances: vec![seen()],
    };
    book.page("inventory", &inventory);
    let paths = CgroupPaths {
        unified: None,
        cpuacct: Some("/sys/fs/cgroup/cpuacct/tally/shop-0123456789".into()),
        cpu: Some("/sys/fs/cgroup/cpu/tally/shop-0123456789".into()),
        memory: Some("/sys/fs/cgroup/memory/tally/shop-0123456789".into()),
    };
    let unified = CgroupPaths {
        unified: Some("/sys/fs/cgroup/tally/shop-0123456789".into()),
        ..CgroupPaths::default()
    };
    let of = |cgroups: CgroupPaths, pid: Option<i32>| NodeFileInstance {
        id: instance(),
        service: service(),
        cgroups,
        pid,
        load_source: "auto".into(),
        load_token: "token".into(),
        limits: Limits { cpu_millis: 250, memory_bytes: 64 << 20 },
    };
    let instances =
        vec![of(unified, None), of(paths, None), of(CgroupPaths::default(), Some(4711))];
    book.page("node-file", &NodeFile { instances });
}

fn operations(book: &mut Book) {
    let verbs = [
        Verb::Start,
        Verb::Adopt,
        Verb::StopCommand,
        Verb::Stop,
        Verb::Limit,
        Verb::Pause,
        Verb::Resume,
        Verb::Checkpoint,
        Verb::StopStray,
    ];
    let items = (1..).zip(verbs).map(|(id, verb)| Operation {
        id,
        at: AT,
        instance: instance(),
        verb,
        ok: verb != Verb::StopCommand,
        exit_status: (verb == Verb::StopCommand).then_some(1),
        output: "the end of the output".into(),
        took_ms: 12,
    });
    book.page("operations", &Operations { items: items.collect() });
    let lines = vec!["listening on 20001".into(), "ready".into()];
    book.page("logs", &Logs { instance: instance(), lines });
}

fn joining(book: &mut Book) {
    let first = JoinRequest {
        wire: WIRE_VERSION,
        token: Some("one-time".into()),
        node: None,
        node_secret: None,
        name: "db-1".into(),
        address: [10, 0, 0, 7].into(),
        executor_url: "http://10.0.0.7:7403".into(),
        cpu_millis: 2000,
        memory_bytes: 4 << 30,
        disk_bytes: 40 << 30,
        labels: labels(),
    };
    let again = JoinRequest {
        token: None,
        node: Some(node()),
        node_secret: Some("secret".into()),
        executor_url: "unix:/var/lib/tally/run/executor.sock".into(),
        ..first.clone()
    };
    book.page("join-request", &first);
    book.page("join-again", &again);
    let answer = JoinAnswer {
        node: node(),
        cluster: "c-1".into(),
        public_key: "MCowBQYDK2VwAyEA".into(),
        node_secret: "secret".into(),
        load_url: "http://10.0.0.1:7402".into(),
        stats_url: "http://10.0.0.1:7400".into(),
    };
    book.page("join-answer", &answer);
    let measure = NodeMeasure {
        cpu_millis: 900,
        memory_bytes: 1 << 30,
        disk_bytes: 2 << 30,
        rx_bytes_per_second: 1000,
        tx_bytes_per_second: 2000,
    };
    let instances = vec![InstanceMeasure {
        instance: instance(),
        cpu_millis: 120,
        memory_bytes: 30 << 20,
        throttled_share: 150,
    }];
    let stats = StatsReport { wire: WIRE_VERSION, node: node(), seq: 9, measure, instances };
    book.page("stats", &stats);
}

fn picks(book: &mut Book) {
    let candidate = CandidateView {
        instance: instance(),
        policy_cost: 6.75,
        in_flight: 2,
        load: Some(0.5),
        reported_in_flight: Some(4),
        report_age_seconds: Some(0.25),
        report_say: 0.875,
        estimate: 3.5,
        load_factor: 1.0,
        weight: 1.25,
        ramp: 0.625,
        success: 0.9375,
        cost: 6.75,
    };
    let view = PicksView {
        service: service(),
        field: FieldView {
            balancers: 3,
            published: 2,
            others_in_flight: 17,
            concurrency: Some(10),
            median_load: 0.5,
            standing: 7,
            all_new: false,
        },
        items: vec![PickView {
            at: AT,
            policy: "feedback".into(),
            chosen: instance(),
            candidates: vec![candidate],
            not_eligible: vec![NotEligibleView {
                instance: "shop-0123456780".parse().unwrap(),
                why: "ejected".into(),
            }],
        }],
    };
    book.page("picks", &view);
}

fn placements(book: &mut Book) {
    let needs = NeedsManifest {
        node: Some("db-1".into()),
        node_type: Some("fast".into()),
        cpu_class: Some("fast".into()),
        disk_type: Some("ssd".into()),
        labels: labels(),
        dedicated: true,
    };
    let wanted = WantedStart {
        instance: instance(),
        service: service(),
        revision: Revision(2),
        cpu_millis: 250,
        memory_bytes: 64 << 20,
        needs: needs.clone(),
        group: "self-contained".into(),
        not_on: vec![node()],
        wake: true,
        deadline_ms: 30_000,
        priority: -1,
    };
    let stops = vec![WantedStops { service: service(), count: 1, candidates: vec![instance()] }];
    let request = PlacementRequest {
        wire: WIRE_VERSION,
        epoch: Epoch(1_795_321_020),
        wanted: vec![wanted],
        stops,
    };
    book.page("placement-request", &request);
    let waiting =
        [Why::Node, Why::Cap, Why::TypeMax, Why::NoType, Why::Impossible].map(|why| WaitingStart {
            instance: instance(),
            why,
            node: (why == Why::Node).then(node),
            eta_ms: (why == Why::Node).then_some(40_000),
            needs_micros: (why == Why::Cap).then_some(40_000),
            until: (why == Why::Cap).then_some(1_796_083_200_000),
            detail: "in words".into(),
        });
    let answer = PlacementAnswer {
        granted: vec![Granted { instance: instance(), node: node() }],
        waiting: waiting.to_vec(),
        stops: vec![instance()],
    };
    book.page("placement-answer", &answer);
    let admission = AdmissionRequest {
        service: service(),
        min_instances: 2,
        cpu_millis: 250,
        memory_bytes: 64 << 20,
        needs,
    };
    book.page("admission-request", &admission);
    let answer = AdmissionAnswer {
        admitted: false,
        needs_micros: Some(40_000),
        detail: "0.04 EUR are missing to the month's end".into(),
    };
    book.page("admission-answer", &answer);
}
