//! What suites of hostile traffic need: a front door in a process of its own, instances that keep
//! count, clients that see every byte, and a reader of HTTP/1.1 that forgives nothing.

pub mod board;
pub mod client;
pub mod front;
pub mod grammar;
pub mod honest;
pub mod instance;
pub mod manager;
pub mod peer;
pub mod strict;
pub mod tunnel;
pub mod wait;

/// Says that a story cannot be played here; `cargo xtask test` counts it and shows the reason.
#[expect(clippy::print_stdout, reason = "the test's output is where xtask looks")]
pub fn skipped(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
}

/// Says what a story measured; kept in the stage's log.
#[expect(clippy::print_stdout, reason = "figures are for whoever reads the stage's log")]
pub fn note(text: &str) {
    println!("FIGURE: {text}");
}

/// Whether the long form of a story was asked for (`cargo xtask test --only soak`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("TALLY_TORTURE_LONG").is_some()
}

/// A variable of the harness, by name.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a harness reads its own environment")]
pub fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
