//! `tally node-type`: what can be ordered.

use super::WriteArgs;
use super::shapes::NODE_TYPE;
use crate::client::{Failure, GlobalArgs, Write, encode};
use crate::show;
use clap::Subcommand;
use domain::NodeTypeName;
use http::Method;

/// `tally node-type`.
#[derive(Debug, Clone, Subcommand)]
pub enum NodeTypeCommand {
    /// List node types with their prices.
    #[command(visible_alias = "list")]
    Ls,
    /// Show one node type.
    Get {
        /// Its name.
        name: NodeTypeName,
    },
    /// Remove a node type that no node has.
    #[command(visible_alias = "delete")]
    Rm {
        /// Its name.
        name: NodeTypeName,
        /// As every write.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(command: NodeTypeCommand, global: &GlobalArgs) -> Result<(), Failure> {
    let (api, output) = (global.connect()?, global.output());
    let path = |name: &NodeTypeName| format!("/v1/node-types/{}", encode(name.as_str()));
    match command {
        NodeTypeCommand::Ls => show::list(&api.list("/v1/node-types").await?, &NODE_TYPE, output),
        NodeTypeCommand::Get { name } => {
            show::object(&api.get(&path(&name)).await?, &NODE_TYPE, output)
        }
        NodeTypeCommand::Rm { name, write } => {
            let request = Write::new(Method::DELETE, path(&name), None).dry(write.dry_run);
            let body = api.write(request).await?;
            let text = format!("node-type/{name} is removed{}", write.note());
            show::outcome(&body, name.as_str(), &text, output)
        }
    }
}
