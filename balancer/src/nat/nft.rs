//! Calls `nft`: one process per change, each change whole or not at all.

use serde_json::Value;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A thousand instances take 20 ms; what takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(5);
/// Where it lies when the path of an ordinary user does not name it.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// Of what it complains, this much is told.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Why `nft` did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is none.
    #[error("nftables is not installed")]
    Missing,
    /// It could not be run.
    #[error("nft cannot be run")]
    Run(#[source] io::Error),
    /// It took too long.
    #[error("nft did not end within {DEADLINE:?}")]
    Deadline,
    /// It refused.
    #[error("nft refused: {0}")]
    Refused(String),
}

/// Carries a transaction out.
///
/// # Errors
/// [`NftError`]; then nothing of it was done.
pub async fn apply(script: &Value) -> Result<(), NftError> {
    call(&["-j", "-f", "-"], &script.to_string()).await.map(drop)
}

/// Asks whether a transaction would be accepted.
///
/// # Errors
/// [`NftError`].
pub async fn check(script: &Value) -> Result<(), NftError> {
    call(&["-c", "-j", "-f", "-"], &script.to_string()).await.map(drop)
}

/// The chains of a table; none when there is no such table.
pub async fn chains(table: &str) -> Vec<String> {
    let Ok(text) = call(&["-j", "list", "table", "inet", table], "").await else {
        return Vec::new();
    };
    let listed: Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
    let names = objects.iter().filter_map(|o| o["chain"]["name"].as_str());
    names.map(ToOwned::to_owned).collect()
}

async fn call(args: &[&str], input: &str) -> Result<String, NftError> {
    let mut child = None;
    for place in PLACES {
        let spawned = Command::new(place)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        match spawned {
            Ok(running) => {
                child = Some(running);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(NftError::Run(error)),
        }
    }
    let mut child = child.ok_or(NftError::Missing)?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            // It may have refused before it read all; its exit says so.
            let _early = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(DEADLINE, talk)
        .await
        .map_err(|_elapsed| NftError::Deadline)?
        .map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(NftError::Refused(first.trim().chars().take(COMPLAINT_CHARS_MAX).collect()))
}
