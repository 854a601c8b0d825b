//! Instances that come and go while requests run: drained, then stopped, then started again.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::peer::Peer;
use crate::sleep::Sleepers;

/// One start or one stop in this time.
const EVERY: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Stops and starts one instance of a group after the other until `end`.
pub(super) fn churn(
    sleepers: &Sleepers,
    group: usize,
    (addresses, proxy): (Vec<SocketAddr>, Option<&mut Peer>),
    started: Instant,
    end: Duration,
) {
    let Some(proxy) = proxy else { return };
    let mut tell = |draining: Option<usize>, gone: Option<usize>| {
        let mut line = String::new();
        for (index, address) in addresses.iter().enumerate().filter(|(i, _)| Some(*i) != gone) {
            let mark = if draining == Some(index) { "-" } else { "" };
            let _written = write!(line, "{mark}{address} ");
        }
        // A proxy that ended fails all requests, which is seen.
        let _told = proxy.tell(&line);
    };
    let wait_until = |at: Duration| std::thread::sleep(at.saturating_sub(started.elapsed()));
    let mut at = EVERY;
    for turn in 0.. {
        let instance = turn % addresses.len();
        wait_until(at);
        if at + EVERY >= end {
            return;
        }
        tell(Some(instance), None);
        // As safe stop does it: only when nothing is in flight there.
        while sleepers.in_flight(group, instance) > 0 && started.elapsed() < at + EVERY - LOOK {
            std::thread::sleep(LOOK);
        }
        tell(None, Some(instance));
        std::thread::sleep(LOOK);
        sleepers.open(group, instance, false);
        wait_until(at + EVERY);
        sleepers.open(group, instance, true);
        std::thread::sleep(LOOK);
        tell(None, None);
        at += 2 * EVERY;
    }
}
