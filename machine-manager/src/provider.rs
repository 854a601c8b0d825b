//! The seam to whoever has the machines: four promises, and typed failures.

use async_trait::async_trait;
use domain::{NodeId, NodeType, Timestamp};

/// What a new node must know to join.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// Its id: the key that makes starting safe to repeat.
    pub node: NodeId,
    /// Its unique name.
    pub name: String,
    /// Its type.
    pub node_type: NodeType,
    /// A one-time token for `POST /v1/nodes/join`.
    pub token: String,
}

/// A machine that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// What the provider calls it.
    pub provider_ref: String,
    /// When billing began, by the provider's word.
    pub started_at: Timestamp,
}

/// A machine that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// When billing began and ended; `None` when it never was.
    pub ran: Option<(Timestamp, Timestamp)>,
}

/// A machine the provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The node it was started for.
    pub node: NodeId,
    /// What the provider calls it.
    pub provider_ref: String,
    /// Whether it runs now.
    pub running: bool,
}

/// Why a provider did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A definite no: nothing was started, and asking again soon will not help.
    #[error("the provider {provider} refused: {detail}")]
    Refused {
        /// Who.
        provider: String,
        /// Why, and what to do about it.
        detail: String,
    },
    /// It may or may not have been done; asking again is safe and worthwhile.
    #[error("the provider {provider} did not say whether it was done: {detail}")]
    Unsure {
        /// Who.
        provider: String,
        /// What is known.
        detail: String,
    },
}

/// Starts and stops nodes of some types. Every call may be abandoned and repeated; each ends by
/// itself within the caller's deadline or is dropped there.
#[async_trait]
pub trait NodeProvider: Send + Sync + 'static {
    /// The name that node types use.
    fn name(&self) -> &str;

    /// Whether a machine that fell silent is worth a start: it goes on as the node it was, with
    /// what still runs on it.
    fn revives(&self) -> bool {
        false
    }

    /// Starts the machine of `order.node`. A machine that runs already is found, not doubled, and
    /// its true start is answered; one that died is started again.
    async fn start(&self, order: &StartOrder) -> Result<Started, ProviderError>;

    /// Ends the machine of `node` and its bill. One that never was, or is gone, is a success.
    async fn stop(&self, node: &NodeId) -> Result<Stopped, ProviderError>;

    /// Every machine this provider has for us.
    async fn list(&self) -> Result<Vec<Machine>, ProviderError>;
}
