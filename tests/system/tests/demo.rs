//! `tally demo`: what a newcomer sees first happens, and nothing of it is left.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use system_tests::process::{Process, end_all, processes_of, tail, tally};
use system_tests::wait::until;

/// The shortest load the demo plays.
const SECONDS: &str = "40";

/// A demo's own temporary folder with a binary of its own, so that every process of the demo carries
/// the folder in its command line; and an end to whatever a failed story leaves.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::Builder::new().prefix("tally-t-").tempdir().expect("a folder"))
    }

    /// The binary, under a name that nobody else runs.
    fn program(&self) -> PathBuf {
        let program = self.0.path().join("tally");
        if !program.exists() && std::fs::hard_link(tally(), &program).is_err() {
            std::fs::copy(tally(), &program).expect("a copy of the binary");
        }
        program
    }

    /// Where the demo puts its own folder.
    fn tmp(&self) -> PathBuf {
        let tmp = self.0.path().join("tmp");
        std::fs::create_dir_all(&tmp).expect("the temporary folder");
        tmp
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        end_all(self.0.path());
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the temporary folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

async fn nothing_left(folder: &Folder) {
    assert_eq!(entries(&folder.tmp()), Vec::<PathBuf>::new(), "files are left");
    until("the end of every process", || {
        let left = processes_of(folder.0.path());
        std::future::ready(if left.is_empty() { Ok(()) } else { Err(left) })
    })
    .await;
}

// One test, not two: a demo beside another would measure the other's load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shows_everything_and_leaves_nothing_even_when_interrupted() {
    interrupted().await;
    whole().await;
}

async fn interrupted() {
    let folder = Folder::new();
    let args = ["demo", "--plain", "--seconds", SECONDS].map(str::to_owned);
    let env = [("TMPDIR".to_owned(), folder.tmp().display().to_string())];
    let demo = Process::start_program(&folder.program(), "demo", folder.0.path(), &args, &env);
    let log = folder.0.path().join("demo.log");
    until("an instance under load", || {
        let running = processes_of(folder.0.path());
        let serves = running.iter().any(|(_, line)| line.contains("demo-service"));
        let told = std::fs::read_to_string(&log).unwrap_or_default();
        let answered = told.contains("demo.first_request");
        std::future::ready(if serves && answered { Ok(()) } else { Err((running, tail(&log))) })
    })
    .await;
    let ended = demo.interrupt().await;
    assert!(!ended.success(), "an interrupted demo has not shown everything");
    assert!(!tail(&log).contains("panicked"), "{}", tail(&log));
    nothing_left(&folder).await;
}

async fn whole() {
    let folder = Folder::new();
    let (tmp, program) = (folder.tmp(), folder.program());
    let running = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        command.args(["demo", "--plain", "--json", "--seconds", SECONDS]);
        command.env("TMPDIR", tmp).stdin(Stdio::null()).output().expect("running the demo")
    });
    let output = running.await.expect("the demo");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(summary["ok"], true, "{summary:#}\n{told}");
    assert!(output.status.success(), "{told}");
    assert_eq!(summary["failed_requests"], 0, "{summary:#}");
    assert_eq!(summary["instances_end"], 0, "{summary:#}");
    let number =
        |name: &str| summary[name].as_f64().unwrap_or_else(|| panic!("{name}: {summary:#}"));
    for positive in [
        "seconds",
        "requests",
        "wake_ms",
        "p99_ms_before",
        "p99_ms_after",
        "slow_instance_share_before",
    ] {
        assert!(number(positive) > 0.0, "{positive}: {summary:#}");
    }
    assert!(number("slow_instance_share_after") < number("slow_instance_share_before"));
    assert!(number("instances_max") >= 3.0 && number("nodes_max") >= 2.0, "{summary:#}");
    for money in ["spent", "obligations", "cap"] {
        let text = summary[money].as_str().unwrap_or_default();
        assert!(text.ends_with(" EUR"), "{money}: {summary:#}");
    }
    let held = &summary["held_back"][0];
    assert!(held["needs"].is_string() && held["until"].is_string(), "{held}");
    let moments = summary["timeline"].as_array().expect("the timeline");
    let right = |m: &Value| {
        m["at_seconds"].is_number() && m["event"].is_string() && m["detail"].is_string()
    };
    assert!(!moments.is_empty() && moments.iter().all(right), "{summary:#}");
    nothing_left(&folder).await;
}
