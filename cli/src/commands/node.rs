//! `tally node`: list, order, drain, protect, measure, invite, join.

use super::WriteArgs;
use super::join_args::JoinArgs;
use super::shapes::{NODE, NODE_STAT};
use super::since::SinceArgs;
use crate::client::{Api, Failure, GlobalArgs, Output, Write, encode};
use crate::show;
use clap::{Args, Subcommand};
use domain::{NodeId, NodeTypeName};
use http::Method;
use serde_json::{Value, json};
use wire::quantity::Span;

/// `tally node`.
#[derive(Debug, Clone, Subcommand)]
pub enum NodeCommand {
    /// List nodes with their room and price.
    #[command(visible_alias = "list")]
    Ls,
    /// Show one node.
    Get {
        /// Its id or its name.
        node: String,
    },
    /// Order one node of a type, within the cap.
    Order {
        /// The type's name.
        #[arg(value_name = "TYPE")]
        node_type: NodeTypeName,
    },
    /// Empty a node: its instances start elsewhere first, then it stops.
    Drain {
        /// Its id or its name.
        node: String,
    },
    /// Remove a node. One that is lost frees what waited for its return.
    #[command(visible_alias = "delete")]
    Rm(NodeWrite),
    /// Keep a node through every scale-in; its price becomes an obligation.
    Protect(NodeWrite),
    /// Let a node stop again when it is not needed.
    Unprotect {
        /// Its id or its name.
        node: String,
        /// As every write.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show a node's measurements.
    #[command(long_about = "Show a node's measurements: processors, memory, disk, bandwidth.\n\n\
        Example:\n  tally node stats n-0123456789 --since 30m")]
    Stats {
        /// Its id or its name.
        node: String,
        /// Which part.
        #[command(flatten)]
        since: SinceArgs,
    },
    /// Make a one-time token with which a host joins as a node.
    #[command(long_about = "Make a one-time token with which a host joins as a node. It is shown \
        once, on stdout.\n\n\
        Examples:\n  \
          tally node token --type small\n  \
          ssh db-1 tally node join --api http://10.0.0.1:7400 --token $(tally node token --type \
          static --name db-1)")]
    Token(TokenArgs),
    /// Make this host a node: runs its executor and its transmitter.
    Join(JoinArgs),
}

/// A write on one node.
#[derive(Debug, Clone, Args)]
pub struct NodeWrite {
    /// Its id or its name.
    pub node: String,
    /// Over the refusal that guards what runs on it or what the cap allows.
    #[arg(long)]
    pub force: bool,
    /// As every write.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `tally node token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Of which type the node will be.
    #[arg(long = "type", value_name = "TYPE")]
    pub node_type: NodeTypeName,
    /// The node's name; only a host that says this name may use the token.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub ttl: Span,
}

fn path(id: &str) -> String {
    format!("/v1/nodes/{}", encode(id))
}

/// The id of a node said by id or by name.
///
/// # Errors
/// `Failed` when no living node has that name.
pub async fn resolve(api: &Api, text: &str) -> Result<String, Failure> {
    if text.parse::<NodeId>().is_ok() {
        return Ok(text.to_owned());
    }
    let nodes = api.list("/v1/nodes").await?;
    let named = |n: &&Value| {
        n.get("name").and_then(Value::as_str) == Some(text)
            && n.get("state").and_then(Value::as_str) != Some("stopped")
    };
    let items = nodes.get("items").and_then(Value::as_array);
    let found = items.and_then(|items| items.iter().find(named));
    found.and_then(|n| n.get("id")).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
        Failure::failed(format!("no node has the id or name {text:?}; see `tally node ls`"))
    })
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(command: NodeCommand, global: &GlobalArgs) -> Result<(), Failure> {
    let (api, output) = (global.connect()?, global.output());
    match command {
        NodeCommand::Ls => show::list(&api.list("/v1/nodes").await?, &NODE, output),
        NodeCommand::Get { node } => {
            let id = resolve(&api, &node).await?;
            show::object(&api.get(&path(&id)).await?, &NODE, output)
        }
        NodeCommand::Order { node_type } => {
            let body = json!({ "type": node_type });
            let node = api.write(Write::new(Method::POST, "/v1/nodes", Some(&body))).await?;
            let id = node.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let text = format!("node/{id} of type {node_type} is ordered");
            show::outcome(&node, &id, &text, output)
        }
        NodeCommand::Drain { node } => {
            let id = resolve(&api, &node).await?;
            let request = Write::new(Method::POST, format!("{}/drain", path(&id)), None);
            let body = api.write(request).await?;
            show::outcome(&body, &id, &format!("node/{id} is draining"), output)
        }
        NodeCommand::Rm(NodeWrite { node, force, write }) => {
            let id = resolve(&api, &node).await?;
            let request = Write::new(Method::DELETE, path(&id), None).forced(force);
            let body = api.write(request.dry(write.dry_run)).await?;
            show::outcome(&body, &id, &format!("node/{id} is removed{}", write.note()), output)
        }
        NodeCommand::Protect(to) => protect(&api, to, false, output).await,
        NodeCommand::Unprotect { node, write } => {
            let to = NodeWrite { node, force: false, write };
            protect(&api, to, true, output).await
        }
        NodeCommand::Stats { node, since } => {
            let id = resolve(&api, &node).await?;
            let stats = api.list(&format!("{}/stats{}", path(&id), since.query()?)).await?;
            show::list(&stats, &NODE_STAT, output)
        }
        NodeCommand::Token(args) => token(&api, &args, output).await,
        // Joining runs an executor in this process; `main` carries it out before it comes here.
        NodeCommand::Join(_) => Err(Failure::usage("`tally node join` is not spoken to an API")),
    }
}

async fn protect(api: &Api, to: NodeWrite, may_stop: bool, output: Output) -> Result<(), Failure> {
    let id = resolve(api, &to.node).await?;
    let change = json!({ "may_stop": may_stop });
    let request = Write::new(Method::PATCH, path(&id), Some(&change)).forced(to.force);
    let body = api.write(request.dry(to.write.dry_run)).await?;
    let state = if may_stop { "may stop again" } else { "is protected" };
    show::outcome(&body, &id, &format!("node/{id} {state}{}", to.write.note()), output)
}

async fn token(api: &Api, args: &TokenArgs, output: Output) -> Result<(), Failure> {
    let ttl = args.ttl.to_string();
    let mut body = json!({ "type": args.node_type, "ttl": ttl });
    if let Some(name) = &args.name {
        body["name"] = json!(name);
    }
    let answer = api.write(Write::new(Method::POST, "/v1/node-tokens", Some(&body))).await?;
    let token = answer.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
    show::outcome(&answer, &token, &token, output)?;
    if matches!(output, Output::Table | Output::Wide) {
        show::note(&format!(
            "good once, for {ttl}; on the new host: tally node join --api {} --token TOKEN",
            api.url()
        ));
    }
    Ok(())
}
