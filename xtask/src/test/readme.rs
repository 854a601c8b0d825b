//! Running the README's quick-start: what a newcomer copies must work.
//!
//! A block fenced as ```` ```sh quickstart ```` (or `bash`, or `test`) is executed; one fenced as ```` ```yaml file=NAME ````
//! is written to that file first. Blocks run in order in one shell, as in a newcomer's terminal:
//! folder and variables carry over, programs in the background live until the last block.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Bounds, Ran};
use crate::score::Score;

/// The quick-start promises minutes; the tests' machine may be slow.
const DEADLINE: Duration = Duration::from_secs(300);
/// The shell says this before each block, followed by the block's number.
const MARK: &str = "@@ README block ";
/// The addresses a `tally up` without flags binds (see the contract), and those of the proxy's block;
/// taken, nothing can be tried.
const PORTS: [u16; 7] = [7400, 7402, 7404, 8080, 8081, 9001, 9002];

/// A fenced block the README marks for us.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Line of the opening fence, counted from 1.
    line: usize,
    kind: Kind,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Run,
    File(String),
}

/// Runs all blocks of `readme` in the folder `scratch`, with the folder of `tally` first on PATH.
pub fn run(readme: &Path, scratch: &Path, tally: &Path, log: &Path) -> Result<Score> {
    let text = std::fs::read_to_string(readme).context("read the README")?;
    let blocks = blocks(&text);
    if !blocks.iter().any(|block| block.kind == Kind::Run) {
        return Ok(Score::fail("README: no block is marked ```sh quickstart"));
    }
    if let Some(port) = PORTS.into_iter().find(|port| taken(*port)) {
        let why = format!("port {port} is in use by another program");
        return Ok(Score::skip("README quick-start", why));
    }
    std::fs::create_dir_all(scratch)?;
    let bin = tally.parent().context("the binary has no folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .args(["-c", &script(&blocks)])
        .current_dir(scratch)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("TMPDIR", scratch)
        .env_remove("TALLY_API")
        .env_remove("TALLY_TOKEN");
    let bounds = Bounds {
        name: "README",
        log: Some(log),
        deadline: DEADLINE,
        heartbeat: true,
        interruptible: true,
    };
    let ran = process::run(command, &bounds, &mut |_| {})?;
    end_leftovers(scratch, bin);
    Ok(judge(&blocks, &ran))
}

fn taken(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_err()
}

/// The blocks that are marked, in order.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut foreign = false; // inside a block that is not ours
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), None) if foreign => foreign = false,
            (Some(info), None) => {
                open = kind(info).map(|kind| Block { line: index + 1, kind, text: String::new() });
                foreign = open.is_none();
            }
            (None, None) => {}
        }
    }
    blocks
}

fn kind(info: &str) -> Option<Kind> {
    let mut words = info.split_whitespace();
    let language = words.next()?;
    let mark = words.next()?;
    if let Some(name) = mark.strip_prefix("file=") {
        return Some(Kind::File(name.to_owned()));
    }
    (matches!(language, "bash" | "sh") && matches!(mark, "test" | "quickstart"))
        .then_some(Kind::Run)
}

/// One shell script of all blocks: each is announced, the first failing command ends it, and at
/// the end the programs left in the background are stopped.
fn script(blocks: &[Block]) -> String {
    let mut script = String::from(
        "set -euo pipefail\n\
         stop_rest() { trap - EXIT; local rest; rest=$(jobs -p); \
         [ -z \"$rest\" ] || { kill $rest 2>/dev/null || true; wait $rest 2>/dev/null || true; }; }\n\
         trap stop_rest EXIT\n",
    );
    for (index, block) in blocks.iter().enumerate() {
        match &block.kind {
            Kind::Run => {
                let _infallible = writeln!(script, "echo '{MARK}{index}'\n{}", block.text);
            }
            Kind::File(name) => {
                let _infallible = writeln!(script, "cat > '{name}' <<'@@END'\n{}@@END", block.text);
            }
        }
    }
    script
}

/// A block passed if a later one began or the whole ended well; the last one begun failed
/// otherwise, and those after it never ran.
fn judge(blocks: &[Block], ran: &Ran) -> Score {
    let mut score = Score::default();
    let begun = ran.output.matches(MARK).count();
    let runs = blocks.iter().filter(|block| block.kind == Kind::Run);
    for (order, block) in runs.enumerate() {
        let name = format!("README block at line {}", block.line);
        if order + 1 < begun || (order + 1 == begun && ran.ok()) {
            score.add(Score::pass());
        } else if order + 1 == begun || begun == 0 {
            println!("{}", ran.tail(40));
            score.add(Score::fail(format!("{name}: {:?}", ran.end)));
        } else {
            score.add(Score::skip(name, "an earlier block failed"));
        }
    }
    score
}

/// Instances outlive `tally up` on purpose. What still runs the tested binary, or in the scratch
/// folder, is ended here: nothing of the quick-start stays behind.
fn end_leftovers(scratch: &Path, bin: &Path) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let link = |name: &str| std::fs::read_link(entry.path().join(name)).unwrap_or_default();
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
        let names_scratch = cmdline.contains(&*scratch.to_string_lossy());
        let is_tally = link("exe") == bin.join("tally");
        if pid != std::process::id()
            && (link("cwd").starts_with(scratch) || (is_tally && names_scratch))
        {
            process::signal(pid, "KILL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::End;

    const README: &str = "\
# Title
```bash
never run
```
```yaml file=shop.yaml
kind: service
```
Text.
```bash test
tally up &
```
```sh quickstart
curl it
```
";

    #[test]
    fn only_marked_blocks_are_taken_with_their_lines() {
        let found = blocks(README);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].kind, Kind::File("shop.yaml".into()));
        assert_eq!((found[1].line, found[1].text.as_str()), (9, "tally up &\n"));
        assert_eq!((found[2].line, found[2].text.as_str()), (12, "curl it\n"));
    }

    #[test]
    fn a_failing_block_fails_and_the_rest_is_skipped() {
        let found = blocks(README);
        let ran = Ran { end: End::Failed("exit 1".into()), output: format!("{MARK}1\noops\n") };
        let score = judge(&found, &ran);
        assert_eq!(score.line(), "0 passed, 1 failed, 1 skipped");
        assert!(score.failures[0].contains("line 9"));
    }

    #[test]
    fn the_script_runs_blocks_in_one_shell_and_stops_what_they_left() {
        let dir = tempfile::tempdir().unwrap();
        let readme = "```bash test\nname=tally\nsleep 600 &\necho $! > pid\n```\n\
                      ```text file=note.txt\nhello\n```\n\
                      ```bash test\ntest $name = tally\ngrep hello note.txt\n```\n\
                      ```bash test\nfalse\n```\n";
        let found = blocks(readme);
        let mut command = Command::new("bash");
        command.args(["-c", &script(&found)]).current_dir(dir.path());
        let ran = process::quiet(command, Duration::from_secs(60)).unwrap();
        let score = judge(&found, &ran);
        assert_eq!(score.line(), "2 passed, 1 failed", "{}", ran.output);
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }
}
