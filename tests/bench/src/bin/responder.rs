//! The upstream of the measurements: answers every HTTP/1.1 request at once, and keeps connections.
//!
//! It understands requests without a body, which is all that the generator sends.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\nHello, Tally";
/// End of a request's head.
const END: &[u8] = b"\r\n\r\n";
/// A head larger than this is not from our generator.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("say where to listen: responder HOST:PORT")?;
    let address: SocketAddr = address.parse().context("the address is not HOST:PORT")?;
    let listener = TcpListener::bind(address).await.context("bind")?;
    loop {
        let (stream, _peer) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A connection that breaks is the generator's end.
            let _ended = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    let mut out = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        let mut taken = 0;
        while let Some(at) = find(&head[taken..], END) {
            taken += at + END.len();
            out.extend_from_slice(ANSWER);
        }
        head.drain(..taken);
        stream.write_all(&out).await?;
        out.clear();
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
