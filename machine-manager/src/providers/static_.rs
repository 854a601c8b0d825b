//! Provider `static`: nodes that join by themselves with a token, never ordered or stopped by us.

use crate::provider::{Machine, NodeProvider, ProviderError, StartOrder, Started, Stopped};
use async_trait::async_trait;
use domain::NodeId;

/// The name that node types use.
pub const NAME: &str = "static";

/// Hosts somebody else switches on and off.
#[derive(Debug, Clone, Copy, Default)]
pub struct StaticProvider;

fn refused(detail: &str) -> ProviderError {
    ProviderError::Refused { provider: NAME.to_owned(), detail: detail.to_owned() }
}

#[async_trait]
impl NodeProvider for StaticProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn start(&self, order: &StartOrder) -> Result<Started, ProviderError> {
        let name = &order.node_type.name;
        Err(refused(&format!(
            "nodes of type {name} join by themselves; make a token with `tally node token --type {name}`"
        )))
    }

    async fn stop(&self, _node: &NodeId) -> Result<Stopped, ProviderError> {
        Err(refused("switch the host off and remove the node with `tally node rm`"))
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        Ok(Vec::new())
    }
}
