//! One target for each parser that faces the network: any bytes are read or refused, without a
//! panic, and what was read says the same when it is written and read again.

mod board;
mod front;
mod loads;
mod manifests;
mod reports;

/// What a target does with its bytes; it panics when something is wrong.
pub type Run = fn(&[u8]);

/// All targets by name; each has a folder of that name in `corpus`.
pub const TARGETS: &[(&str, Run)] = &[
    ("agent-line", loads::agent_line),
    ("answer-head", front::answer_head),
    ("board-ability", board::ability),
    ("board-changes", board::changes),
    ("board-demand", board::demand),
    ("board-front", board::front),
    ("board-reports", board::reports),
    ("board-routes", board::routes),
    ("board-terms", board::terms),
    ("check-answer", front::check_answer),
    ("chunks", front::chunks),
    ("load-header", loads::header),
    ("manifests", manifests::text),
    ("report-body", reports::body),
    ("report-datagram", reports::datagram),
    ("request-head", front::request_head),
    ("saved-view", front::saved_view),
    ("wire-messages", manifests::messages),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Run> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}
