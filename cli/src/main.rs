//! The `tally` binary: every role, `tally up`, `tally demo`, operator commands.

mod args;
mod client;
mod commands;
mod data;
mod demo;
mod down;
mod host;
mod node;
mod processes;
mod proxy;
mod roles;
mod run;
mod settings;
mod show;
mod up;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The shim must stay one small thread: it is the parent of somebody else's process.
    if let Command::InstanceShim { dir } = &cli.command {
        return executor::shim_main(dir);
    }
    run::run(cli)
}
