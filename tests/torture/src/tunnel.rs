//! The WebSocket suite: Autobahn's echo server and its fuzzing client, run by Python 2.7.

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Starts the suite with a folder that has it installed.
const STARTER: &str = "import site, sys\nsite.addsitedir(sys.argv.pop(1))\n\
                       from autobahntestsuite.wstest import run\nrun()\n";

/// Starts its echo server, which else refuses whoever came by another port than its own.
const ECHO: &str = "import site, sys\nsite.addsitedir(sys.argv[1])\n\
                    from autobahntestsuite.testee import TesteeServerFactory\n\
                    from twisted.internet import reactor\n\
                    factory = TesteeServerFactory('ws://127.0.0.1')\n\
                    factory.externalPort = None\n\
                    reactor.listenTCP(int(sys.argv[2]), factory, interface='127.0.0.1')\n\
                    reactor.run()\n";

/// The suite as `cargo xtask test` installed it.
#[derive(Debug, Clone)]
pub struct Autobahn {
    python: PathBuf,
    folder: PathBuf,
}

impl Autobahn {
    /// From `TALLY_TEST_AUTOBAHN`: the interpreter and the folder.
    #[must_use]
    pub fn given() -> Option<Autobahn> {
        let place = crate::given("TALLY_TEST_AUTOBAHN")?;
        let (python, folder) = place.split_once(' ')?;
        Some(Autobahn { python: python.into(), folder: folder.into() })
    }

    fn command(&self, starter: &str, arguments: &[&str], work: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command
            .args(["-W", "ignore", "-c", starter])
            .arg(&self.folder)
            .args(arguments)
            .current_dir(work)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// An echo server at `address`, ended with the value.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn echo(&self, address: SocketAddr, work: &Path) -> Child {
        let port = address.port().to_string();
        self.command(ECHO, &[&port], work).spawn().expect("it starts")
    }

    /// Plays cases against `address`; each case's verdict and the verdict on its closing.
    ///
    /// # Panics
    /// When it does not end, or tells nothing.
    pub async fn play(
        &self,
        address: SocketAddr,
        cases: &[&str],
        work: &Path,
        patience: Duration,
    ) -> BTreeMap<String, (String, String)> {
        let reports = work.join("reports");
        let spec = serde_json::json!({
            "outdir": reports.display().to_string(),
            "servers": [{"agent": "echo", "url": format!("ws://{address}")}],
            "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
        });
        std::fs::write(work.join("spec.json"), spec.to_string()).expect("a file");
        let mut client = self.command(STARTER, &["-m", "fuzzingclient", "-s", "spec.json"], work);
        let ended = tokio::time::timeout(patience, client.status()).await;
        ended.expect("it ends").expect("it starts");
        let index = std::fs::read(reports.join("index.json")).expect("its report");
        let index: Value = serde_json::from_slice(&index).expect("its report is JSON");
        let cases = index["echo"].as_object().expect("cases");
        let word = |case: &Value, key: &str| case[key].as_str().unwrap_or("").to_owned();
        let told = |case: &Value| (word(case, "behavior"), word(case, "behaviorClose"));
        cases.iter().map(|(name, case)| (name.clone(), told(case))).collect()
    }
}
