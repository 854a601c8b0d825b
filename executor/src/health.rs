//! Probes: does an instance answer on its port, and well on its path.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::assignment::AssignedHealth;

/// Probes follow each other this closely while a start is young: most services are up within it.
pub const EAGER_PERIOD: Duration = Duration::from_millis(5);
/// For this long.
pub const EAGER_SPAN: Duration = Duration::from_secs(1);
/// Afterwards, until it is well.
pub const PATIENT_PERIOD: Duration = Duration::from_millis(50);
/// A ready instance is probed no more often than this, whatever was declared: a thousand of them
/// must not keep the node busy.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A probe has at least this long, so that a zero does not mean never.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// A status line is shorter than this.
const STATUS_LINE_BYTES: usize = 64;

/// The pause before the next probe of an instance that started `since` ago and is not yet well.
#[must_use]
pub fn start_pause(since: Duration) -> Duration {
    if since < EAGER_SPAN { EAGER_PERIOD } else { PATIENT_PERIOD }
}

/// The pause between probes of a ready instance.
#[must_use]
pub fn ready_pause(health: &AssignedHealth) -> Duration {
    Duration::from_millis(health.interval_ms).max(INTERVAL_MIN)
}

/// Probes once, within the declared timeout.
///
/// # Errors
/// What was wrong, in words.
pub async fn probe(address: SocketAddr, health: &AssignedHealth) -> Result<(), String> {
    let limit = Duration::from_millis(health.timeout_ms).max(TIMEOUT_MIN);
    let one = async {
        match health.path.as_deref() {
            None => connect(address).await.map(drop),
            Some(path) => get(address, path).await,
        }
    };
    match tokio::time::timeout(limit, one).await {
        Ok(result) => result,
        Err(_elapsed) => Err(format!("no answer from {address} within {limit:?}")),
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|e| format!("{address} does not accept connections: {e}"))?;
    // The kernel can connect a socket to itself when the port is one it gives out by itself.
    let own = stream.local_addr().ok();
    if own.is_some() && own == stream.peer_addr().ok() {
        return Err(format!("nobody listens on {address}"));
    }
    Ok(stream)
}

async fn get(address: SocketAddr, path: &str) -> Result<(), String> {
    let mut stream = connect(address).await?;
    let broke = |e: std::io::Error| format!("GET {path} broke off: {e}");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: tally\r\naccept: */*\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    let mut head = [0_u8; STATUS_LINE_BYTES];
    let mut have = 0;
    while have < head.len() && !head[..have].contains(&b'\n') {
        match stream.read(&mut head[have..]).await.map_err(broke)? {
            0 => break,
            n => have += n,
        }
    }
    match status(&head[..have]) {
        Some(code) if (200..400).contains(&code) => Ok(()),
        Some(code) => Err(format!("GET {path} answered {code}")),
        None => Err(format!("GET {path} answered something that is not HTTP")),
    }
}

/// The status in the first bytes of an answer.
fn status(head: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(head.get(..12)?).ok()?;
    text.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn health(path: Option<&str>) -> AssignedHealth {
        AssignedHealth {
            path: path.map(str::to_owned),
            interval_ms: 0,
            timeout_ms: 2000,
            failures: 1,
        }
    }

    async fn answer_once(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /up HTTP/1.1\r\nhost: 127.0.0.1:"));
            stream.write_all(text.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn two_and_three_hundreds_are_well() {
        for good in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 302 Found\r\n\r\n", "HTTP/1.1 204\r\n"] {
            let address = answer_once(good).await;
            assert_eq!(probe(address, &health(Some("/up"))).await, Ok(()), "{good}");
        }
        for bad in ["HTTP/1.1 503 No\r\n\r\n", "HTTP/1.1 404 Not Found\r\n", "SSH-2.0-x\r\n", ""] {
            let address = answer_once(bad).await;
            assert!(probe(address, &health(Some("/up"))).await.is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_port_that_accepts_is_well_without_a_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address, &health(None)).await, Ok(()));
        drop(listener);
        assert!(probe(address, &health(None)).await.unwrap_err().contains("does not accept"));
    }

    #[test]
    fn pauses_are_bounded_from_below() {
        assert_eq!(start_pause(Duration::ZERO), EAGER_PERIOD);
        assert_eq!(start_pause(EAGER_SPAN), PATIENT_PERIOD);
        assert_eq!(ready_pause(&health(None)), INTERVAL_MIN);
    }
}
