//! The project's chores: `cargo xtask test | tidy | bench | images`.
#![expect(clippy::print_stdout, reason = "a chore talks to the person who started it")]
#![expect(
    clippy::disallowed_methods,
    reason = "chores run beside the product: they read the clock and the environment themselves"
)]

mod apt;
mod bench;
mod images;
mod process;
mod root;
mod score;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
The project's chores.

  cargo xtask test     sets up what the tests need and runs them all; what CI runs
  cargo xtask tidy     the house rules that are code: floors, file heads, bans
  cargo xtask bench    Tally's balancer beside HAProxy on this machine
  cargo xtask images   container images from host binaries, without any registry

Each has --help.";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    if let Err(error) = process::watch_signals() {
        println!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let ended = match chore.as_str() {
        "test" => test::main(&rest),
        "tidy" => tidy::main(&rest),
        "bench" => bench::main(&rest),
        "images" => images::main(&rest),
        "" | "help" | "--help" | "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            println!("error: there is no chore `{other}`\n\n{HELP}");
            return ExitCode::from(USAGE);
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Exit code for a command line that cannot be understood, as in the `tally` binary.
const USAGE: u8 = 2;
