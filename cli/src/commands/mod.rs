//! What operators can say to a running Tally, and where each command is carried out.

mod apply;
mod budget;
mod events;
mod explain;
mod generate;
mod health;
mod instance;
mod join_args;
mod node;
mod node_type;
mod plan;
mod report;
mod service;
mod setting;
mod shapes;
mod since;
mod top;
mod wait;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use generate::{completion, man};
pub use join_args::JoinArgs;
pub use node::NodeCommand;

use crate::client::{Failure, GlobalArgs};
use crate::show;
use clap::{Args, CommandFactory, Subcommand};
use std::process::ExitCode;

/// Commands that talk to the API of a running Tally.
#[derive(Debug, Clone, Subcommand)]
pub enum OperatorCommand {
    /// Declare services, node types and the budget, and wait until they stand.
    #[command(long_about = apply::HELP)]
    Apply(apply::ApplyArgs),
    /// Show what a file of manifests would change, and why, without changing it.
    #[command(long_about = plan::HELP)]
    Plan(plan::PlanArgs),
    /// Services: list, look at, hold at a number, wake, restart, remove.
    #[command(subcommand, visible_alias = "services")]
    Service(service::ServiceCommand),
    /// Instances: list, look at, stop, read their logs.
    #[command(subcommand, visible_alias = "instances")]
    Instance(instance::InstanceCommand),
    /// Nodes: list, order, drain, protect, measure, invite, join.
    #[command(subcommand, visible_alias = "nodes")]
    Node(NodeCommand),
    /// Node types: what can be ordered, and at what price.
    #[command(subcommand)]
    NodeType(node_type::NodeTypeCommand),
    /// The monthly cap: what is spent, promised and free; set it.
    #[command(subcommand)]
    Budget(budget::BudgetCommand),
    /// Say why: the last decisions of a service with their inputs, a node's state, a setting.
    #[command(subcommand)]
    Explain(explain::ExplainCommand),
    /// Send one load report by hand.
    #[command(long_about = report::HELP)]
    Report(report::ReportArgs),
    /// Watch services, nodes and money, every second.
    #[command(long_about = top::HELP)]
    Top(top::TopArgs),
    /// Show events: decisions, state changes, refusals.
    #[command(long_about = events::HELP)]
    Events(events::EventsArgs),
    /// Ask the parts whether they are ready: exit code 0 or 1.
    #[command(long_about = health::HELP)]
    Health(health::HealthArgs),
    /// Show the version.
    Version,
    /// Print a completion script for a shell.
    #[command(long_about = "Print a completion script for a shell.\n\n\
        Example, for bash:\n  tally completion bash > /etc/bash_completion.d/tally")]
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(long_about = "Write the manual pages into a folder.\n\n\
        Example:\n  tally man /usr/local/share/man/man1")]
    Man {
        /// The folder; made if it does not exist.
        dir: std::path::PathBuf,
    },
}

/// What every changing command takes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct WriteArgs {
    /// Let the server say what would happen, without changing anything.
    #[arg(long)]
    pub dry_run: bool,
}

impl WriteArgs {
    /// The words a sentence ends with.
    #[must_use]
    pub fn note(self) -> &'static str {
        if self.dry_run { " (dry run: nothing was changed)" } else { "" }
    }
}

/// Carries out one command; every failure is said on stderr and becomes the exit code.
pub async fn run(command: OperatorCommand, global: &GlobalArgs) -> ExitCode {
    match Box::pin(dispatch(command, global)).await {
        Ok(code) => code,
        Err(failure) => {
            show::failure(&failure);
            failure.exit_code()
        }
    }
}

async fn dispatch(command: OperatorCommand, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let done = ExitCode::SUCCESS;
    match command {
        OperatorCommand::Apply(args) => apply::run(&args, global).await.map(|()| done),
        OperatorCommand::Plan(args) => plan::run(&args, global).await,
        OperatorCommand::Service(command) => service::run(command, global).await.map(|()| done),
        OperatorCommand::Instance(command) => instance::run(command, global).await.map(|()| done),
        OperatorCommand::Node(command) => node::run(command, global).await.map(|()| done),
        OperatorCommand::NodeType(command) => node_type::run(command, global).await.map(|()| done),
        OperatorCommand::Budget(command) => budget::run(command, global).await.map(|()| done),
        OperatorCommand::Explain(command) => explain::run(command, global).await.map(|()| done),
        OperatorCommand::Report(args) => report::run(&args, global).await.map(|()| done),
        OperatorCommand::Top(args) => top::run(&args, global).await.map(|()| done),
        OperatorCommand::Events(args) => events::run(&args, global).await.map(|()| done),
        OperatorCommand::Health(args) => health::run(&args, global).await,
        OperatorCommand::Version => generate::version(global.output()).map(|()| done),
        OperatorCommand::Completion { shell } => {
            completion(crate::args::Cli::command(), shell);
            Ok(done)
        }
        OperatorCommand::Man { dir } => man(&crate::args::Cli::command(), &dir).map(|()| done),
    }
}
