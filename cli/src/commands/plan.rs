//! `tally plan`: what a file of manifests would change, field by field, with what would follow.

use super::apply;
use crate::client::{Failure, GlobalArgs, Output, Write};
use crate::show::{self, printable};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::process::ExitCode;
use wire::manifest::Manifest;
use wire::operator::{PlanAnswer, PlannedChange};

/// Exit code of `--exit-code` when something would change; 0 when nothing would.
const CHANGES: u8 = 10;

/// What `tally plan --help` teaches.
pub const HELP: &str = "Show what a file of manifests would change, and why, without changing it.\n\n\
    The server plans with the same code that would act, so the numbers are those that would \
    follow: instances, nodes, money.\n\n\
    Examples:\n  \
      tally plan -f shop.yaml\n  \
      tally plan -f shop.yaml --exit-code   exit code 0: no change; 10: changes\n  \
      tally plan -f shop.yaml -o json";

/// `tally plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// File of manifests (.yaml, .toml, .json), or - for the standard input; may be repeated.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub file: Vec<String>,
    /// Exit with 10 when something would change, with 0 when nothing would.
    #[arg(long)]
    pub exit_code: bool,
}

/// Carries it out.
///
/// # Errors
/// As [`Failure`] says.
pub async fn run(args: &PlanArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let manifests = apply::read(&args.file)?;
    let api = global.connect()?;
    let body = Value::Array(manifests.iter().map(Manifest::to_value).collect());
    let answer = api.write(Write::new(Method::POST, "/v1/plan", Some(&body))).await?;
    let plan: PlanAnswer = serde_json::from_value(answer.clone())
        .map_err(|e| Failure::failed(format!("the plan cannot be read: {e}")))?;
    match global.output() {
        Output::Json => show::line(&show::json(&answer)),
        Output::Yaml => show::line(show::yaml(&answer)?.trim_end()),
        Output::Name => {
            plan.changes.iter().filter(|c| c.action != "none").for_each(|c| show::line(&label(c)))
        }
        Output::Table | Output::Wide => show::line(&words(&plan)),
    }
    let changes = plan.changes.iter().any(|c| c.action != "none");
    Ok(if args.exit_code && changes { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

fn label(change: &PlannedChange) -> String {
    let (kind, name) = (printable(&change.kind), printable(&change.name));
    if name.is_empty() { kind } else { format!("{kind}/{name}") }
}

/// The plan for people: one block per manifest.
fn words(plan: &PlanAnswer) -> String {
    let mut lines = Vec::new();
    for change in &plan.changes {
        let (mark, version) = match change.action.as_str() {
            "create" => ('+', String::new()),
            "none" => ('=', format!(" (version {})", change.generation)),
            _ => ('~', format!(" (version {0}; apply with --if-version {0})", change.generation)),
        };
        let action = if change.action == "none" { "no change" } else { &change.action };
        lines.push(format!("{mark} {}: {}{version}", label(change), printable(action)));
        // What is created is the whole file that was just handed in.
        for field in change.fields.iter().filter(|f| !f.pointer.is_empty()) {
            let (from, to) = (short(&field.from), short(&field.to));
            lines.push(format!("    {}: {from} -> {to}", printable(&field.pointer)));
        }
        for effect in &change.effects {
            lines.push(format!("    {}", printable(effect)));
        }
    }
    lines.join("\n")
}

fn short(value: &Value) -> String {
    if value.is_null() { "(absent)".to_owned() } else { printable(&value.to_string()) }
}
