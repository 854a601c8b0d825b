//! Small hand-made values for this package's tests.

use domain::{Epoch, Generation, InstanceId, Revision};
use wire::assignment::{
    AssignedHealth, AssignedInstance, AssignedRun, Assignment, EngineKind, IsolationKind, Limits,
    Want,
};

/// The id of the instance called `name` in a test.
pub fn id(name: &str) -> InstanceId {
    format!("{name}-0123456789").parse().unwrap()
}

/// A plain process that ends at once.
pub fn instance(name: &str) -> AssignedInstance {
    AssignedInstance {
        id: id(name),
        service: name.parse().unwrap(),
        revision: Revision(1),
        want: Want::Running,
        engine: EngineKind::Process,
        run: AssignedRun {
            command: vec!["true".to_owned()],
            isolation: IsolationKind::None,
            ..AssignedRun::default()
        },
        limits: Limits { cpu_millis: 250, memory_bytes: 64 << 20 },
        health: AssignedHealth { path: None, interval_ms: 200, timeout_ms: 1000, failures: 2 },
        start_deadline_ms: 5000,
        drain_deadline_ms: 2000,
        expires_at: None,
        restart: true,
        load_source: "auto".to_owned(),
        load_token: "secret".to_owned(),
    }
}

/// An assignment of the test node.
pub fn assignment(generation: u64, instances: Vec<AssignedInstance>) -> Assignment {
    Assignment {
        wire: wire::WIRE_VERSION,
        cluster: "test".to_owned(),
        epoch: Epoch(1),
        generation: Generation(generation),
        node: "n-0123456789".parse().unwrap(),
        instances,
    }
}
