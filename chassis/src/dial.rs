//! Connects, and says whose fault it is when that fails.

use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Connects to somebody else.
///
/// # Errors
/// What the system said.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    not_oneself(TcpStream::connect(address).await?)
}

/// The kernel can connect a socket to itself when the port is one it gives out by itself and
/// nobody listens there.
fn not_oneself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Whether this process or host lacks what a connection needs: descriptors, memory, ports. It says
/// nothing of the other side.
#[must_use]
pub fn is_our_lack(error: &io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    #[tokio::test]
    async fn a_socket_connected_to_itself_has_reached_nobody() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        let error = not_oneself(stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!is_our_lack(&error));
    }

    #[tokio::test]
    async fn who_listens_is_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(connect(address).await.unwrap().peer_addr().unwrap(), address);
    }

    #[test]
    fn a_lack_is_told_from_a_refusal() {
        for (errno, ours) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
            (Errno::TIMEDOUT, false),
        ] {
            assert_eq!(is_our_lack(&errno.into()), ours, "{errno:?}");
        }
        assert!(!is_our_lack(&io::ErrorKind::TimedOut.into()));
    }
}
