//! What every story needs: the built binary, a platform of real processes, requests, waiting.
//!
//! Stories wait for a level with a deadline, never for a time; a deadline only says that something
//! hangs.

pub mod api;
pub mod cell;
pub mod load;
pub mod namespace;
pub mod platform;
pub mod process;
pub mod redis;
pub mod wait;

/// Says that a story cannot be played here; `cargo xtask test` counts it and shows the reason.
#[expect(clippy::print_stdout, reason = "the test's output is where xtask looks")]
pub fn skipped(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
}
