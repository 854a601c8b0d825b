//! A host that has no descriptors left: no instance is blamed, and idle connections make room. The
//! limit is the process's own, so this file has one test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Answer, PATIENCE, Running, Setup, front, read_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Few enough to be used up at once.
const DESCRIPTORS: u64 = 600;
/// New connections: more than the descriptors that something beside the test may give back.
const LATE: usize = 16;

/// Takes every descriptor that is left.
fn take_all(taken: &mut Vec<File>) {
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
}

/// An instance that keeps no connection: each request needs a new one. It lives in this process too,
/// and has something to give up for a connection that reached it after all.
async fn instance() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut spare: Vec<File> = (0..64).map(|_| File::open("/dev/null").unwrap()).collect();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                drop(spare.pop());
                continue;
            };
            if read_request(&mut stream).await.is_some() {
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

/// Asks on a connection that stays open.
async fn ask(stream: &mut TcpStream) -> Answer {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut bytes = vec![0; 4096];
    let mut have = 0;
    loop {
        let reading = tokio::time::timeout(PATIENCE, stream.read(&mut bytes[have..]));
        let n = reading.await.expect("in time").unwrap();
        assert!(n > 0, "the connection ended");
        have += n;
        let answer = Answer(String::from_utf8_lossy(&bytes[..have]).into_owned());
        let length = answer.head().lines().find_map(|l| l.strip_prefix("content-length: "));
        if length.is_some_and(|n| answer.body().len() >= n.parse().unwrap()) {
            return answer;
        }
    }
}

#[tokio::test]
async fn lacking_descriptors_harms_no_instance_and_idle_connections_make_room() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum }).unwrap();
    let running = Running::with(Setup { workers: 1, ..Setup::default() }).await;
    let limit = running.metric("tally_balancer_connections_limit").await;
    assert_eq!(limit, Some(172.0), "two descriptors each, and some for all else");

    running.publish(&front("shop"), &[instance().await]).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(ask(&mut first).await.status(), 200);

    let late: Vec<TcpSocket> = (0..LATE).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let mut taken = Vec::new();
    // What runs beside the test may give a descriptor back in between, as answers do.
    let refused = async {
        loop {
            take_all(&mut taken);
            let answer = ask(&mut first).await;
            if answer.status() != 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("in time");
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(refused.has("retry-after: 2") && refused.body().contains("ulimit -n"), "{refused:?}");

    // New connections: one takes the place of the one that is idle.
    take_all(&mut taken);
    let late = late.into_iter().map(|socket| socket.connect(running.address));
    let mut late = futures_util::future::try_join_all(late).await.unwrap();
    let mut byte = [0];
    let ended = tokio::time::timeout(PATIENCE, first.read(&mut byte)).await.expect("in time");
    assert_eq!(ended.unwrap_or(0), 0);
    drop((first, taken));
    for late in &mut late {
        assert_eq!(ask(late).await.status(), 200);
    }
    let evicted = "tally_balancer_connections_ended_total{reason=\"evicted\"}";
    assert_eq!(running.metric(evicted).await, Some(1.0));
    let retries = "tally_balancer_retries_total{service=\"shop\"}";
    assert_eq!(running.metric(retries).await, Some(0.0), "nothing else was tried");
}
