//! `tally explain`: why a service has the instances it has, why a node stands where it stands.

use super::node::resolve;
use super::setting;
use super::shapes::{INSTANCE, NODE, SERVICE};
use crate::client::{Api, Failure, GlobalArgs, Output, encode};
use crate::show::{self, Form, cell};
use clap::Subcommand;
use domain::ServiceName;
use serde_json::{Value, json};

/// `tally explain`.
#[derive(Debug, Clone, Subcommand)]
pub enum ExplainCommand {
    /// A service: where it stands, what it waits for, its last decisions with their inputs.
    Service {
        /// Its name.
        name: ServiceName,
        /// How many decisions.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        last: u32,
    },
    /// A node: where it stands and why, what runs on it, what it costs.
    Node {
        /// Its id or its name.
        node: String,
    },
    /// A setting: its value, where the value comes from, how to set it.
    Config {
        /// The dotted key, such as `balancer.listen`.
        key: String,
    },
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(command: ExplainCommand, global: &GlobalArgs) -> Result<(), Failure> {
    match command {
        ExplainCommand::Service { name, last } => {
            service(&global.connect()?, &name, last, global.output()).await
        }
        ExplainCommand::Node { node } => {
            explain_node(&global.connect()?, &node, global.output()).await
        }
        ExplainCommand::Config { key } => setting::explain(&key, global.output()),
    }
}

async fn service(api: &Api, name: &ServiceName, last: u32, output: Output) -> Result<(), Failure> {
    let path = format!("/v1/services/{}", encode(name.as_str()));
    let service = api.get(&path).await?;
    // One page, newest first: the whole history is in `/v1/decisions`.
    let decisions = api.get(&format!("{path}/decisions?limit={last}")).await?;
    let decisions = decisions.get("items").cloned().unwrap_or_else(|| json!([]));
    match output {
        Output::Table | Output::Wide => {
            show::line(&service_words(&service, decisions.as_array().map_or(&[], Vec::as_slice)));
            Ok(())
        }
        Output::Json | Output::Yaml | Output::Name => {
            let body = json!({ "name": name, "service": service, "decisions": decisions });
            show::object(&body, &SERVICE, output)
        }
    }
}

/// A service in sentences: now, what it waits for, and each decision with inputs and bounds.
fn service_words(service: &Value, decisions: &[Value]) -> String {
    let text = |pointer: &str| cell(service, pointer, Form::Text);
    let mut lines = vec![format!(
        "service {}: {} wanted, {} ready, {} starting, {} draining; between {} and {}; load {}",
        text("/name"),
        text("/state/desired"),
        text("/state/ready"),
        text("/state/starting"),
        text("/state/draining"),
        text("/min_instances"),
        text("/max_instances"),
        match cell(service, "/state/load", Form::Ratio).as_str() {
            "-" => "unknown".to_owned(),
            known => known.to_owned(),
        },
    )];
    for (words, pointer) in [
        ("waits for", "/state/waiting_for"),
        ("held by an operator at", "/state/held_at"),
        ("requests held", "/state/held_requests"),
        ("the planner says", "/state/report"),
    ] {
        let shown = text(pointer);
        if shown != "-" && shown != "0" {
            lines.push(format!("  {words}: {shown}"));
        }
    }
    lines.push(match decisions {
        [] => "no decision yet".to_owned(),
        _ => "last decisions, newest first:".to_owned(),
    });
    for decision in decisions {
        let text = |pointer: &str| cell(decision, pointer, Form::Text);
        lines.push(format!(
            "  {}  {} -> {}  {} (by {}, {} per hour)",
            cell(decision, "/at", Form::Moment),
            text("/from"),
            text("/to"),
            text("/reason"),
            text("/actor"),
            text("/cost_delta_per_hour"),
        ));
        if text("/inputs") != "-" {
            lines.push(format!("      inputs: {}", text("/inputs")));
        }
        for clamp in decision.get("clamps").and_then(Value::as_array).into_iter().flatten() {
            lines.push(format!("      bounded: {}", cell(clamp, "", Form::Text)));
        }
        if text("/waiting_for") != "-" {
            lines.push(format!("      waits for: {}", text("/waiting_for")));
        }
    }
    lines.join("\n")
}

async fn explain_node(api: &Api, text: &str, output: Output) -> Result<(), Failure> {
    let id = resolve(api, text).await?;
    let node = api.get(&format!("/v1/nodes/{}", encode(&id))).await?;
    let everywhere = api.list("/v1/instances").await?;
    let items = everywhere.get("items").and_then(Value::as_array);
    let here: Vec<Value> = items
        .into_iter()
        .flatten()
        .filter(|i| i.get("node").and_then(Value::as_str) == Some(id.as_str()))
        .cloned()
        .collect();
    match output {
        Output::Table | Output::Wide => {
            show::line(&show::fields(&node, NODE.columns));
            show::line("");
            if here.is_empty() {
                show::line("no instance runs on it");
            } else {
                let wide = output == Output::Wide;
                show::line(&show::items_table(&here, INSTANCE.columns, wide));
            }
            Ok(())
        }
        Output::Json | Output::Yaml | Output::Name => {
            show::object(&json!({ "id": id, "node": node, "instances": here }), &NODE, output)
        }
    }
}
