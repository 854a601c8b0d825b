//! The instances of the measurements that burn nothing: they answer every HTTP/1.1 request at once,
//! and keep connections.
//!
//! `responder BYTES ADDRESS...`: one process listens on all addresses. It understands requests
//! without a body, which is all that the generators send.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// End of a request's head.
const END: &[u8] = b"\r\n\r\n";
/// A head larger than this is not from our generators.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "responder BYTES HOST:PORT...";
    let bytes: usize = args.next().context(usage)?.parse().context(usage)?;
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {bytes}\r\n\r\n");
    answer.extend("Hello, Tally".chars().cycle().take(bytes));
    let answer: Rc<[u8]> = answer.into_bytes().into();
    let local = LocalSet::new();
    for address in args {
        let address: SocketAddr = address.parse().context("an address is not HOST:PORT")?;
        let listener = TcpListener::bind(address).await.context("bind")?;
        local.spawn_local(accept(listener, Rc::clone(&answer)));
    }
    local.await;
    Ok(())
}

async fn accept(listener: TcpListener, answer: Rc<[u8]>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        if stream.set_nodelay(true).is_ok() {
            let answer = Rc::clone(&answer);
            // A connection that breaks is the generator's end.
            tokio::task::spawn_local(async move { serve(stream, &answer).await.is_ok() });
        }
    }
}

async fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    loop {
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        let mut taken = 0;
        while let Some(at) = find(&head[taken..], END) {
            taken += at + END.len();
            stream.write_all(answer).await?;
        }
        head.drain(..taken);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
