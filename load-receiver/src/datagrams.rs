//! Reports by datagram: read as fast as they come, and what the system dropped is counted.

use crate::admit::Sender;
use crate::decode::{self, DATAGRAM_BYTES_MAX};
use crate::metrics::Counts;
use crate::receive::Receiver;
use chassis::Shutdown;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Datagrams taken before others get their turn: a hundred microseconds' worth.
const AT_ONCE: usize = 64;
/// Datagrams at one waking that are called many: then the next ones are left to gather.
const MANY: usize = 4;
/// How long they gather, since waking for each costs more than reading it.
const GATHER: Duration = Duration::from_millis(2);
/// Bytes the system may keep for us: a hundred milliseconds of a cell's reports. It grants what its
/// own bound (`net.core.rmem_max`) allows.
const BUFFER_BYTES: usize = 8 << 20;
/// After a failure of the socket.
const FAILED_PAUSE: Duration = Duration::from_millis(10);
/// The system is asked this often how many it dropped.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Takes datagrams until the shutdown starts. Nothing is answered; what is refused is counted.
pub(crate) async fn receive(socket: UdpSocket, receiver: Receiver, shutdown: Shutdown) {
    if let Err(why) = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES) {
        tracing::debug!(%why, "the system keeps as many datagrams as it likes");
    }
    let mut buffer = vec![0u8; DATAGRAM_BYTES_MAX];
    let mut drops = Drops::of(&socket);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            _ = look.tick() => drops.count(&receiver.counts),
            ready = socket.readable() => {
                let taken = if ready.is_ok() { drain(&socket, &mut buffer, &receiver) } else { None };
                match taken {
                    // More than one turn's worth came: no need to let them gather.
                    Some(count) if count >= AT_ONCE => tokio::task::yield_now().await,
                    Some(count) if count >= MANY => tokio::time::sleep(GATHER).await,
                    Some(_few) => {}
                    // No memory, or worse: wait a little instead of spinning.
                    None => tokio::time::sleep(FAILED_PAUSE).await,
                }
            }
        }
    }
}

/// Takes what is there, and says how many; `None` when the socket failed.
fn drain(socket: &UdpSocket, buffer: &mut [u8], receiver: &Receiver) -> Option<usize> {
    for count in 0..AT_ONCE {
        match socket.try_recv_from(buffer) {
            Ok((length, from)) => {
                let local = from.ip().to_canonical().is_loopback();
                let decoded = decode::datagram(buffer.get(..length).unwrap_or_default());
                receiver.take(decoded, Sender { local, token: None });
            }
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Some(count),
            Err(why) => {
                tracing::debug!(%why, "a datagram could not be received");
                return None;
            }
        }
    }
    Some(AT_ONCE)
}

/// What the system dropped of one socket, which it tells in a table of all sockets.
struct Drops {
    inode: Option<u64>,
    counted: u64,
}

/// The tables, for each family of addresses.
const TABLES: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];
/// Longest table read: some ten thousand sockets.
const TABLE_BYTES_MAX: u64 = 2 << 20;

impl Drops {
    fn of(socket: &UdpSocket) -> Drops {
        Drops { inode: rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino), counted: 0 }
    }

    fn count(&mut self, counts: &Counts) {
        let Some(inode) = self.inode else { return };
        let told = TABLES.iter().find_map(|table| drops_in(&read(table)?, inode));
        if let Some(told) = told {
            counts.dropped(told.saturating_sub(self.counted));
            self.counted = self.counted.max(told);
        }
    }
}

fn read(table: &str) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(table).ok()?.take(TABLE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The last column of the line whose tenth is the socket's number.
fn drops_in(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let mut lines = table.lines().skip(1);
    let line = lines.find(|line| line.split_ascii_whitespace().nth(9) == Some(inode.as_str()))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn what_the_system_drops_is_counted() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        let to = socket.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut drops = Drops::of(&socket);
        let counts = Counts::default();
        drops.count(&counts);
        assert_eq!((drops.counted, drops.inode.is_some()), (0, true));
        for _ in 0..200 {
            sender.send_to(&[0; 1000], to).unwrap();
        }
        drops.count(&counts);
        assert!(drops.counted > 0, "a socket of four KiB keeps no two hundred datagrams");
    }

    #[test]
    fn a_table_without_the_socket_says_nothing() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  53: 0100007F:1CEA 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17\n";
        assert_eq!(drops_in(table, 4711), Some(17));
        assert_eq!(drops_in(table, 4712), None);
        assert_eq!(drops_in("", 1), None);
    }
}
