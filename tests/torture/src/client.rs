//! A client that sends bytes as they are and sees every byte that comes back.

use crate::strict::{Kind, Malformed, Message, Reader};
use crate::wait::PATIENCE;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One connection to the front.
#[derive(Debug)]
pub struct Client {
    /// What comes back.
    pub reader: Reader<TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Client { reader: Reader::new(stream) }
    }

    /// Sends; false when the other side no longer takes anything.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.io.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The next answer, interim ones included; `None` at the end of the connection.
    ///
    /// # Errors
    /// [`Malformed`], also when nothing comes in time.
    pub async fn any_answer(&mut self, bodiless: bool) -> Result<Option<Message>, Malformed> {
        let reading = self.reader.message(Kind::Answer { bodiless });
        let late = |_| Malformed("nothing came in time".to_owned());
        timeout(PATIENCE, reading).await.map_err(late)?
    }

    /// The next final answer.
    ///
    /// # Errors
    /// As [`Client::any_answer`].
    pub async fn answer(&mut self, bodiless: bool) -> Result<Option<Message>, Malformed> {
        loop {
            match self.any_answer(bodiless).await? {
                Some(answer) if answer.status() < 200 && answer.status() != 101 => {}
                other => return Ok(other),
            }
        }
    }

    /// Whether the other side ends the connection, without another byte.
    pub async fn is_closed(&mut self) -> bool {
        if !self.reader.ahead.is_empty() {
            return false;
        }
        matches!(timeout(PATIENCE, self.reader.fill()).await, Ok(false))
    }

    /// Reads to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let reading = async { while self.reader.fill().await {} };
        let _late = timeout(PATIENCE, reading).await;
        std::mem::take(&mut self.reader.ahead)
    }
}
