//! What can go wrong for the executor as a whole, and for one instance.

use std::path::PathBuf;

/// Why the executor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's directory cannot be used.
    #[error("cannot use {path}; check that its disk has room and that it belongs to this user", path = path.display())]
    Disk {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of ours holds something else.
    #[error("{path} cannot be read; remove it and the manager will send its content again", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// The kept assignment is for another node or cluster.
    #[error("this directory belongs to node {found}, not to {ours}; use another --data directory")]
    Foreign {
        /// Whose assignment was found.
        found: String,
        /// Who we are.
        ours: String,
    },
}

/// Why an engine could not do something to an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct EngineError {
    /// For people: what happened and what to do next.
    pub text: String,
    /// Whether trying again is pointless until something changes.
    pub permanent: bool,
}

impl EngineError {
    /// One that may pass.
    pub fn fleeting(text: impl Into<String>) -> EngineError {
        EngineError { text: text.into(), permanent: false }
    }

    /// One that stays until somebody changes something.
    pub fn lasting(text: impl Into<String>) -> EngineError {
        EngineError { text: text.into(), permanent: true }
    }
}
