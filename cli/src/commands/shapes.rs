//! The columns of each kind of object.

use crate::show::{Form, Shape, column, wide};

/// A service.
pub const SERVICE: Shape = Shape {
    name: "/name",
    none: "there is no service yet; declare one with `tally apply -f FILE`",
    columns: &[
        column("NAME", "/name", Form::Text),
        column("DESIRED", "/state/desired", Form::Text),
        column("READY", "/state/ready", Form::Text),
        column("STARTING", "/state/starting", Form::Text),
        column("DRAINING", "/state/draining", Form::Text),
        wide("PAUSED", "/state/paused", Form::Text),
        column("MIN", "/min_instances", Form::Text),
        column("MAX", "/max_instances", Form::Text),
        column("LOAD", "/state/load", Form::Ratio),
        column("HELD", "/state/held_requests", Form::Text),
        wide("REVISION", "/revision", Form::Text),
        wide("GENERATION", "/generation", Form::Text),
        wide("HELD-AT", "/state/held_at", Form::Text),
        wide("DELETING", "/state/deleting", Form::Yes),
        wide("IMAGE", "/run/image", Form::Text),
        wide("REPORT", "/state/report", Form::Text),
        column("WAITING FOR", "/state/waiting_for", Form::Text),
    ],
};

/// An instance.
pub const INSTANCE: Shape = Shape {
    name: "/id",
    none: "there is no instance",
    columns: &[
        column("ID", "/id", Form::Text),
        wide("SERVICE", "/service", Form::Text),
        column("REVISION", "/revision", Form::Text),
        column("NODE", "/node", Form::Text),
        column("ADDRESS", "/address", Form::Text),
        column("STATE", "/state", Form::Text),
        column("LOAD", "/load", Form::Ratio),
        column("AGE-S", "/load_age_seconds", Form::Seconds),
        column("IN-FLIGHT", "/in_flight", Form::Text),
        column("CPU", "/cpu_millis", Form::Cpu),
        column("MEMORY", "/memory_bytes", Form::Bytes),
        wide("CPU-LIMIT", "/cpu_limit_millis", Form::Cpu),
        wide("TIER", "/tier", Form::Text),
        wide("RESTARTS", "/restarts", Form::Text),
        wide("CREATED", "/created_at", Form::Moment),
        wide("READY-AT", "/ready_at", Form::Moment),
        wide("EXPIRES", "/expires_at", Form::Moment),
        wide("REASON", "/reason", Form::Text),
    ],
};

/// A node.
pub const NODE: Shape = Shape {
    name: "/id",
    none: "there is no node; order one with `tally node order TYPE`, or join a host with \
           `tally node token` and `tally node join`",
    columns: &[
        column("ID", "/id", Form::Text),
        column("NAME", "/name", Form::Text),
        column("TYPE", "/type", Form::Text),
        column("STATE", "/state", Form::Text),
        column("ADDRESS", "/address", Form::Text),
        column("INSTANCES", "/instances", Form::Text),
        column("CPU", "/capacity/cpu_millis", Form::Cpu),
        column("CPU-TAKEN", "/allocated/cpu_millis", Form::Cpu),
        column("MEMORY", "/capacity/memory_bytes", Form::Bytes),
        column("MEM-TAKEN", "/allocated/memory_bytes", Form::Bytes),
        column("PRICE/H", "/price_per_hour", Form::Text),
        column("PROTECTED", "/may_stop", Form::No),
        wide("PROVIDER", "/provider", Form::Text),
        wide("CPU-USED", "/stats/cpu_millis", Form::Cpu),
        wide("MEM-USED", "/stats/memory", Form::Bytes),
        wide("LABELS", "/labels", Form::Text),
        wide("ORDERED", "/ordered_at", Form::Moment),
        wide("READY-AT", "/ready_at", Form::Moment),
        wide("REASON", "/reason", Form::Text),
    ],
};

/// A node type.
pub const NODE_TYPE: Shape = Shape {
    name: "/name",
    none: "there is no node type yet; declare one with `tally apply -f FILE` (kind: node-type)",
    columns: &[
        column("NAME", "/name", Form::Text),
        column("PROVIDER", "/provider", Form::Text),
        column("CPU", "/cpu", Form::Text),
        column("MEMORY", "/memory", Form::Text),
        column("DISK", "/disk", Form::Text),
        column("PRICE/H", "/price_per_hour", Form::Text),
        column("UNIT", "/billing_unit", Form::Text),
        column("MAX", "/max_count", Form::Text),
        column("POOL", "/pool/min", Form::Text),
        wide("CPU-CLASS", "/cpu_class", Form::Text),
        wide("DISK-TYPE", "/disk_type", Form::Text),
        wide("LABELS", "/labels", Form::Text),
        wide("GENERATION", "/generation", Form::Text),
    ],
};

/// The budget.
pub const BUDGET: Shape = Shape {
    name: "/monthly_cap",
    none: "",
    columns: &[
        column("MONTHLY CAP", "/monthly_cap", Form::Text),
        column("RESERVE", "/reserve", Form::Text),
        column("PACING", "/pacing", Form::Text),
        column("SPENT", "/spent", Form::Text),
        column("OBLIGATIONS", "/obligations", Form::Text),
        column("FREE", "/free", Form::Text),
        column("FORECAST", "/forecast", Form::Text),
        column("EXHAUSTED AT", "/exhausted_at", Form::Moment),
        column("OVER CAP", "/over_cap", Form::Yes),
        column("GENERATION", "/generation", Form::Text),
    ],
};

/// An order that the cap holds back.
pub const HELD_BACK: Shape = Shape {
    name: "/node_type",
    none: "",
    columns: &[
        column("HELD BACK", "/node_type", Form::Text),
        column("SERVICE", "/service", Form::Text),
        column("NEEDS", "/needs", Form::Text),
        column("UNTIL", "/until", Form::Moment),
        column("WHY", "/detail", Form::Text),
    ],
};

/// One point of a service's history.
pub const SERVICE_STAT: Shape = Shape {
    name: "/at",
    none: "no history in this span yet",
    columns: &[
        column("AT", "/at", Form::Moment),
        column("LOAD", "/load", Form::Ratio),
        column("DESIRED", "/desired", Form::Text),
        column("READY", "/ready", Form::Text),
        column("STARTING", "/starting", Form::Text),
        column("DRAINING", "/draining", Form::Text),
        column("QUEUED", "/queued", Form::Text),
        column("RPS", "/rps", Form::Seconds),
    ],
};

/// One measurement of a node.
pub const NODE_STAT: Shape = Shape {
    name: "/at",
    none: "no measurement in this span yet",
    columns: &[
        column("AT", "/at", Form::Moment),
        column("CPU", "/cpu_millis", Form::Cpu),
        column("CPU-SHARE", "/cpu", Form::Ratio),
        column("MEMORY", "/memory", Form::Bytes),
        column("DISK", "/disk", Form::Bytes),
        column("BANDWIDTH/S", "/bandwidth", Form::Bytes),
    ],
};
