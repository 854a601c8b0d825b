//! WebSocket by Autobahn: through the front door as without it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::net::TcpStream;
use torture::front::Front;
use torture::tunnel::Autobahn;
use torture::wait::until;

/// Everything but the many sizes of the limits and of compression, of which some stand for all.
const SHORT: [&str; 16] = [
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.1.4", "9.2.4", "9.3.4", "9.5.3",
    "10.*", "12.1.1", "12.1.10", "13.3.5",
];

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_are_the_same_through_the_front_door() {
    let Some(autobahn) = Autobahn::given() else {
        torture::skipped("websocket", "the suite is not installed; see `cargo xtask test --help`");
        return;
    };
    let work = tempfile::tempdir().expect("a folder");
    let echo = free();
    let _server = autobahn.echo(echo, work.path());
    until("the echo server", || async { TcpStream::connect(echo).await.map(drop) }).await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[echo]).await;
    let (cases, patience): (&[&str], u64) =
        if torture::long() { (&["*"], 1500) } else { (&SHORT, 150) };
    let patience = Duration::from_secs(patience);
    let direct = autobahn.play(echo, cases, work.path(), patience).await;
    let through = autobahn.play(front.address, cases, work.path(), patience).await;
    let good = direct.values().filter(|(behavior, _)| behavior == "OK").count();
    torture::note(&format!("{} cases, {good} of them OK directly", direct.len()));
    assert!(direct.len() > 200, "too few cases were played: {}", direct.len());
    let differ: Vec<_> = direct
        .iter()
        .filter(|(name, told)| through.get(*name) != Some(told))
        .map(|(name, told)| format!("{name}: direct {told:?}, through {:?}", through.get(name)))
        .collect();
    assert!(differ.is_empty() && direct.len() == through.len(), "{differ:#?}");
    front.is_quiet().await;
}
