//! What the command line says about itself: version, completion scripts, manual pages.

use crate::client::{Failure, Output};
use crate::show;
use clap::Command;
use std::path::Path;

/// Prints the version of the product and of its messages.
///
/// # Errors
/// [`Failure::Failed`] when it cannot be printed.
pub fn version(output: Output) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let body = serde_json::json!({
        "name": "tally",
        "version": version,
        "wire": wire::WIRE_VERSION,
    });
    show::outcome(&body, version, &format!("tally {version}"), output)
}

/// Prints a completion script for the whole command line.
pub fn completion(mut command: Command, shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "tally", &mut script);
    show::raw(&script);
}

/// Writes one manual page for `tally` and for each command that is not hidden.
///
/// # Errors
/// [`Failure::Failed`] naming the folder.
pub fn man(command: &Command, dir: &Path) -> Result<(), Failure> {
    let failed =
        |e: std::io::Error| Failure::failed(format!("{} cannot be written: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command.clone(), dir).map_err(failed)?;
    show::note(&format!("the manual pages are in {}", dir.display()));
    Ok(())
}
