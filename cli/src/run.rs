//! From the command line to the work, and from its end to an exit code.

#![expect(clippy::print_stderr, reason = "errors and addresses are for people, on stderr")]

use crate::args::{Cli, Command, DataArgs, RoleArgs, UpArgs};
use crate::client::GlobalArgs;
use crate::commands::{self, OperatorCommand};
use crate::settings::Settings;
use crate::up::Pace;
use crate::{demo, down, node, processes, proxy, up};
use chassis::config::ConfigError;
use chassis::telemetry::{self, LogFormat};
use chassis::{Listen, Shutdown};
use std::process::ExitCode;

/// Usage errors, before anything was bound or sent.
const EXIT_USAGE: u8 = 2;

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    // Two threads carry the control plane; the balancer has threads of its own. A receiver alone
    // has one: handing each other work costs two more than the work.
    let mut threads = if matches!(cli.command, Command::LoadReceiver(_)) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = threads.worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tally: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(Box::pin(dispatch(cli)))
}

async fn dispatch(cli: Cli) -> ExitCode {
    let global = cli.global;
    let ended = match cli.command {
        Command::Operator(OperatorCommand::Node(commands::NodeCommand::Join(args))) => {
            log("info");
            Box::pin(node::join(args, &global)).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Operator(command) => return Box::pin(commands::run(command, &global)).await,
        Command::Demo(args) => {
            log(if args.keep { "info" } else { "error" });
            Box::pin(demo::run(args, global.json)).await
        }
        Command::DemoService(args) => {
            Box::pin(demo::run_service(args)).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Up(args) => Box::pin(up_command(args, &global)).await,
        Command::Down(args) => Box::pin(down_command(args)).await,
        Command::Proxy(args) => {
            log("info,balancer=warn");
            Box::pin(proxy::run(*args)).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Balancer(args) => role(processes::Role::Balancer, args, &global).await,
        Command::LoadReceiver(args) => role(processes::Role::LoadReceiver, args, &global).await,
        Command::ContainerManager(args) => {
            role(processes::Role::ContainerManager, args, &global).await
        }
        Command::MachineManager(args) => role(processes::Role::MachineManager, args, &global).await,
        Command::Executor(args) => node_role(args.data, true).await,
        Command::Transmitter(args) => node_role(args.data, false).await,
        Command::InstanceShim { dir } => return executor::shim_main(&dir),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tally: {error:#}");
        let usage = error.downcast_ref::<ConfigError>().is_some()
            || error.downcast_ref::<processes::UsageError>().is_some();
        ExitCode::from(if usage { EXIT_USAGE } else { 1 })
    })
}

async fn node_role(data: std::path::PathBuf, executor: bool) -> anyhow::Result<ExitCode> {
    log("info");
    Box::pin(node::role(&data, executor)).await.map(|()| ExitCode::SUCCESS)
}

async fn role(
    role: processes::Role,
    args: RoleArgs,
    global: &GlobalArgs,
) -> anyhow::Result<ExitCode> {
    Box::pin(processes::run(role, args, global.api.clone())).await.map(|()| ExitCode::SUCCESS)
}

/// Starts logging with the environment's filter or `default`.
fn log(default: &str) {
    let told = chassis::config::env("TALLY_LOG").or_else(|| chassis::config::env("RUST_LOG"));
    let filter = told.as_deref().unwrap_or(default);
    if let Err(why) = telemetry::init(filter, LogFormat::Auto) {
        eprintln!("tally: {why}");
    }
}

async fn up_command(args: UpArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(
        &args.data,
        &[
            ("balancer.listen", args.listen.clone()),
            ("container_manager.api", global.api.clone()),
            ("redis", args.redis.clone()),
            ("registry", args.registry.clone()),
        ],
    )?;
    log(&settings.log);
    let shutdown = Shutdown::new();
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });
    let mut running = up::start(&settings, Pace::Normal).await?;
    let down = down::listen(&running.data().join("run"), &shutdown)?;
    if let Err(error) = running.ready().await {
        // Not ended: the front door serves from its last view, whatever keeps the managers.
        tracing::error!(error = %format!("{error:#}"), "the managers are not ready yet");
    }
    announce(&running);
    let waited = running.wait(shutdown.started()).await;
    if down.is_wanted() {
        let ended = running.down().await;
        down.tell(&ended);
        return waited.and(ended).map(|()| ExitCode::SUCCESS);
    }
    let data = running.data().display().to_string();
    let stopped = running.stop().await;
    eprintln!(
        "instances keep running; `tally up --data {data}` finds them again, \
         `tally down --data {data}` stops them"
    );
    waited.and(stopped).map(|()| ExitCode::SUCCESS)
}

fn announce(running: &up::Running) {
    let api = match running.api() {
        Listen::Tcp(address) => format!("http://{address}"),
        unix @ Listen::Unix(_) => unix.to_string(),
    };
    eprintln!("tally is up on {}", running.data().display());
    eprintln!("  requests   http://{}/   (the Host header names the service)", running.front());
    eprintln!("  API        {api}");
    if let Some(token) = running.admin_token() {
        eprintln!("  token      {token}   (TALLY_TOKEN for the commands)");
    }
    eprintln!("  next       tally apply -f service.yaml     tally service ls     tally top");
}

async fn down_command(args: DataArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&args, &[])?;
    log("warn");
    Box::pin(down::run(settings)).await.map(|()| ExitCode::SUCCESS)
}
