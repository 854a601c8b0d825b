//! Runs one command to its end: bounded in time, its output bounded in size, nothing left behind.

use crate::engine::{CommandEnd, OUTPUT_BYTES_KEPT};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

/// Runs `command` for at most `limit`; then its whole process group is killed.
pub async fn run(mut command: Command, limit: Duration) -> CommandEnd {
    let (mut child, mut output) = match spawn(&mut command) {
        Ok(both) => both,
        Err(error) => return CommandEnd { code: None, output: format!("cannot run it: {error}") },
    };
    // The pipe ends only when every writer is gone, ours included.
    drop(command);
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut tail = Tail::default();
    let ended = tokio::time::timeout(limit, wait(&mut child, &mut output, &mut tail)).await;
    if let Some(group) = group {
        // What it started in the background goes with it.
        let _none_left = kill_process_group(group, Signal::KILL);
    }
    match ended {
        Ok(Ok(status)) => CommandEnd { code: status.code(), output: tail.text() },
        Ok(Err(error)) => CommandEnd { code: None, output: error.to_string() },
        Err(_elapsed) => {
            let output = format!("killed after {limit:?}; {}", tail.text());
            CommandEnd { code: None, output }
        }
    }
}

fn spawn(command: &mut Command) -> io::Result<(Child, Receiver)> {
    let (reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn()?;
    Ok((child, Receiver::from_owned_fd(reader.into())?))
}

async fn wait(
    child: &mut Child,
    output: &mut Receiver,
    tail: &mut Tail,
) -> io::Result<std::process::ExitStatus> {
    let mut chunk = [0_u8; 4096];
    let mut open = true;
    let status = loop {
        tokio::select! {
            biased;
            read = output.read(&mut chunk), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(n) => tail.take(&chunk[..n]),
            },
            status = child.wait() => break status?,
        }
    };
    while let Ok(n @ 1..) = output.try_read(&mut chunk) {
        tail.take(&chunk[..n]);
    }
    Ok(status)
}

/// The end of an output.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Adds what came; the oldest goes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let over = self.0.len().saturating_sub(OUTPUT_BYTES_KEPT);
        self.0.drain(..over);
    }

    /// As text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn status_and_output_are_told() {
        let end = run(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(20)).await;
        assert_eq!(end.code, Some(3));
        assert_eq!(end.output, "out\nerr\n");
    }

    #[tokio::test]
    async fn only_the_end_of_much_output_is_kept() {
        let end = run(shell("seq 1 20000"), Duration::from_secs(20)).await;
        assert_eq!(end.code, Some(0));
        assert!(end.output.len() <= OUTPUT_BYTES_KEPT && end.output.ends_with("20000\n"));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_killed() {
        let end = run(shell("echo begun; sleep 600"), Duration::from_millis(200)).await;
        assert_eq!(end.code, None);
        assert!(end.output.starts_with("killed after"), "{}", end.output);
    }

    #[tokio::test]
    async fn a_background_process_does_not_hold_it_up() {
        let end = run(shell("sleep 600 & exit 0"), Duration::from_secs(20)).await;
        assert_eq!(end.code, Some(0));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_told() {
        let end = run(Command::new("/no/such/program"), Duration::from_secs(20)).await;
        assert!(end.code.is_none() && end.output.contains("cannot run it"));
    }
}
