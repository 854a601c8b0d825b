//! Other people's proxies, from their packages, between the front door and a responder.

use crate::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// For a polite end, in looks of [`LOOK`].
const LOOKS: u32 = 100;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// One of the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx
    Nginx,
    /// HAProxy
    HaProxy,
    /// Caddy
    Caddy,
    /// Apache
    Apache,
}

impl Kind {
    /// The program, the file its configuration goes to, the configuration, and how it is started.
    fn parts(self) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
        match self {
            Kind::Nginx => {
                ("nginx", "nginx.conf", include_str!("../peers/nginx.conf"), &["-c", "{FILE}"])
            }
            Kind::HaProxy => {
                let text = include_str!("../peers/haproxy.cfg");
                ("haproxy", "haproxy.cfg", text, &["-db", "-f", "{FILE}"])
            }
            Kind::Caddy => {
                let words = &["run", "--adapter", "caddyfile", "--config", "{FILE}"];
                ("caddy", "Caddyfile", include_str!("../peers/Caddyfile"), words)
            }
            Kind::Apache => {
                let text = include_str!("../peers/apache.conf");
                ("apache2", "apache.conf", text, &["-DFOREGROUND", "-f", "{FILE}"])
            }
        }
    }
}

/// A running proxy, ended with this value.
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Peer {
    /// Starts one in front of `responder`; `None` where it is not installed.
    ///
    /// # Panics
    /// When it is installed and does not serve.
    pub async fn start(kind: Kind, responder: SocketAddr) -> Option<Peer> {
        let (program, file, text, words) = kind.parts();
        let folder = tempfile::Builder::new().prefix("tally-t-").tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let path = folder.path().join(file);
        let dir = folder.path().display().to_string();
        let text = text
            .replace("{DIR}", &dir)
            .replace("{LISTEN}", &address.to_string())
            .replace("{PORT}", &address.port().to_string())
            .replace("{RESPONDER}", &responder.to_string());
        std::fs::write(&path, text).expect("its configuration");
        let path = path.display().to_string();
        let log = std::fs::File::create(folder.path().join("out")).expect("a log");
        let sbin = format!("/usr/sbin/{program}");
        let child = [program, &sbin].into_iter().find_map(|name| {
            Command::new(name)
                .args(words.iter().map(|word| word.replace("{FILE}", &path)))
                .env("HOME", &dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone().ok()?)
                .stderr(log.try_clone().ok()?)
                .spawn()
                .ok()
        })?;
        let peer = Peer { address, child, _folder: folder };
        until(program, || async {
            let said = || std::fs::read_to_string(format!("{dir}/out")).unwrap_or_default();
            TcpStream::connect(address).map(drop).map_err(|e| format!("{e}: {}", said()))
        })
        .await;
        Some(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its own children end only when it is asked politely.
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..LOOKS {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
