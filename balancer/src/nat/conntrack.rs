//! The kernel's table of connections, asked over netlink: which ones were sent on to which
//! instance, and away with those of a dead one.

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A dump goes on as long as answers come; a kernel that says nothing for this long says no more.
const DEADLINE: Duration = Duration::from_secs(1);
/// Connections read at once: more than the usual table holds.
const ENTRIES_MAX: usize = 1 << 20;
/// One read of a dump: the kernel fills at most 32 KiB at a time.
const READ_BYTES: usize = 64 << 10;

const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const HEADER_BYTES: usize = 16;
const FAMILY_BYTES: usize = 4;
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const STATUS_MASK: u16 = 26;
const STATUS_DST_NAT: u32 = 1 << 5;
const TCP: u8 = 6;
/// One walk for both: the kernel takes each bucket's lock, full or not, and there are as many as
/// the machine is large.
const EVERY_FAMILY: u8 = 0;

/// How far a TCP connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Being opened, open, or half closed.
    Open,
    /// Over; the kernel remembers it for a while.
    Over,
}

/// One connection that was sent on to another place than it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who opened it.
    pub client: SocketAddr,
    /// Where it wanted to go.
    pub asked: SocketAddr,
    /// Where it went.
    pub instance: SocketAddr,
    /// How far it is.
    pub phase: Phase,
}

/// A socket to the kernel.
pub struct Conntrack {
    socket: OwnedFd,
    sequence: u32,
}

/// A socket to the kernel that is opened when needed, and anew after an error.
#[derive(Default)]
pub struct Line(Option<Conntrack>);

impl Line {
    /// Asks something, on a thread where waiting for the kernel holds up nobody.
    ///
    /// # Errors
    /// What the system said.
    pub async fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Conntrack) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let open = self.0.take();
        let asking = tokio::task::spawn_blocking(move || {
            let mut conntrack = open.map_or_else(Conntrack::open, Ok)?;
            let answer = question(&mut conntrack)?;
            Ok::<_, io::Error>((conntrack, answer))
        });
        let (conntrack, answer) = asking.await??;
        self.0 = Some(conntrack);
        Ok(answer)
    }
}

impl Conntrack {
    /// Opens it.
    ///
    /// # Errors
    /// What the system said.
    pub fn open() -> io::Result<Conntrack> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, Some(DEADLINE))?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Conntrack { socket, sequence: 0 })
    }

    /// Hands every TCP connection with a changed destination to `each`.
    ///
    /// # Errors
    /// What the system said.
    pub fn list(&mut self, mut each: impl FnMut(Flow)) -> io::Result<()> {
        let mut attributes = Vec::new();
        // Kernels that do not know the filter send all; `Flow::read` leaves the others out.
        put(&mut attributes, STATUS, &STATUS_DST_NAT.to_be_bytes());
        put(&mut attributes, STATUS_MASK, &STATUS_DST_NAT.to_be_bytes());
        self.send(GET, FLAG_DUMP, EVERY_FAMILY, &attributes)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut entries = 0;
        loop {
            let n = self.receive(&mut buffer)?;
            for (kind, body) in Messages(&buffer[..n]) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => return refused(body),
                    _ if entries < ENTRIES_MAX => {
                        entries += 1;
                        if let Some(flow) = body.get(FAMILY_BYTES..).and_then(Flow::read) {
                            each(flow);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Forgets a connection: its next packet is as from nowhere, and both ends learn that it is
    /// over. One that is gone already is as good as forgotten.
    ///
    /// # Errors
    /// What the system said.
    pub fn forget(&mut self, flow: &Flow) -> io::Result<()> {
        let family = if flow.client.is_ipv4() { 2 } else { 10 };
        let mut attributes = Vec::new();
        nest(&mut attributes, TUPLE_ORIG, &tuple(flow.client, flow.asked));
        self.send(DELETE, FLAG_ACK, family, &attributes)?;
        let mut buffer = [0; 4096];
        let n = self.receive(&mut buffer)?;
        for (kind, body) in Messages(&buffer[..n]) {
            if kind == ERROR {
                return match refused(body) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    answer => answer,
                };
            }
        }
        Ok(())
    }

    fn send(&mut self, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER_BYTES + FAMILY_BYTES + attributes.len();
        let mut message = Vec::with_capacity(length);
        message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((FLAG_REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend([family, 0, 0, 0]);
        message.extend(attributes);
        net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((n, _)) => return Ok(n),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// An error message: 0 is an acknowledgement.
fn refused(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn aligned(length: usize) -> usize {
    length.div_ceil(4) * 4
}

fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(aligned(to.len()), 0);
}

fn nest(to: &mut Vec<u8>, kind: u16, inner: &[u8]) {
    put(to, kind | NESTED, inner);
}

fn tuple(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (mut ip, mut proto, mut all) = (Vec::new(), Vec::new(), Vec::new());
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(&mut ip, 1, &source.octets());
            put(&mut ip, 2, &destination.octets());
        }
        (source, destination) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            put(&mut ip, 3, &v6(source).octets());
            put(&mut ip, 4, &v6(destination).octets());
        }
    }
    put(&mut proto, 1, &[TCP]);
    put(&mut proto, 2, &source.port().to_be_bytes());
    put(&mut proto, 3, &destination.port().to_be_bytes());
    nest(&mut all, 1, &ip);
    nest(&mut all, 2, &proto);
    all
}

/// The messages of one read: kind and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let head = self.0.get(..HEADER_BYTES)?;
        let length = u32::from_ne_bytes(head[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(head[4..6].try_into().ok()?);
        let body = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or(&[]);
        Some((kind, body))
    }
}

/// The attributes of one level: kind and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let head = self.0.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & KIND_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

fn find(level: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(level).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Source and destination of one direction, if it is TCP.
fn ends(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ip, proto) = (find(tuple, 1)?, find(tuple, 2)?);
    if *find(proto, 1)?.first()? != TCP {
        return None;
    }
    let port = |kind| Some(u16::from_be_bytes(find(proto, kind)?.try_into().ok()?));
    let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(find(ip, kind)?).ok()?));
    let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(find(ip, kind)?).ok()?));
    let (source, destination) = (v4(1).or_else(|| v6(3))?, v4(2).or_else(|| v6(4))?);
    Some((SocketAddr::new(source, port(2)?), SocketAddr::new(destination, port(3)?)))
}

impl Flow {
    /// Reads one entry; `None` for what is not a TCP connection with a changed destination.
    fn read(entry: &[u8]) -> Option<Flow> {
        let status = u32::from_be_bytes(find(entry, STATUS)?.try_into().ok()?);
        if status & STATUS_DST_NAT == 0 {
            return None;
        }
        let (client, asked) = ends(find(entry, TUPLE_ORIG)?)?;
        let (instance, _) = ends(find(entry, TUPLE_REPLY)?)?;
        let state = find(entry, PROTOINFO).and_then(|info| find(info, 1));
        let state = state.and_then(|tcp| find(tcp, 1)).and_then(|state| state.first());
        // 1 to 6: from the first SYN to the last ACK; 9: opened from both sides.
        let phase = if matches!(state, Some(1..=6 | 9)) { Phase::Open } else { Phase::Over };
        Some(Flow { client, asked, instance, phase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(flow: &Flow, status: u32, state: u8) -> Vec<u8> {
        let (mut all, mut tcp, mut info) = (Vec::new(), Vec::new(), Vec::new());
        nest(&mut all, TUPLE_ORIG, &tuple(flow.client, flow.asked));
        nest(&mut all, TUPLE_REPLY, &tuple(flow.instance, flow.client));
        put(&mut all, STATUS, &status.to_be_bytes());
        put(&mut tcp, 1, &[state]);
        nest(&mut info, 1, &tcp);
        nest(&mut all, PROTOINFO, &info);
        all
    }

    #[test]
    fn entries_read_as_written_and_others_are_left_out() {
        for (client, asked, instance) in [
            ("10.0.0.9:4000", "10.0.0.1:5432", "10.1.0.1:80"),
            ("[fd00::9]:4000", "[fd00::1]:5432", "[fd00::2]:80"),
        ] {
            let flow = Flow {
                client: client.parse().unwrap(),
                asked: asked.parse().unwrap(),
                instance: instance.parse().unwrap(),
                phase: Phase::Open,
            };
            assert_eq!(Flow::read(&entry(&flow, STATUS_DST_NAT | 8, 3)), Some(flow));
            let over = Flow { phase: Phase::Over, ..flow };
            assert_eq!(Flow::read(&entry(&flow, STATUS_DST_NAT, 7)), Some(over));
            assert_eq!(Flow::read(&entry(&flow, 8, 3)), None, "not sent elsewhere");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for (_, body) in Messages(&bytes) {
                let _read = Flow::read(body);
            }
            let _read = Flow::read(&bytes);
            let _code = refused(&bytes);
        }
    }
}
