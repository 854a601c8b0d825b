//! How sleeping instances tell their loads: datagrams to the load-receiver, late if so planned.

use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;

use super::{Group, Sleeper};

/// Instances look at themselves so often, also when they report more seldom.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks at a group's instances and sends their reports until the task ends.
#[expect(clippy::disallowed_methods, reason = "instances of a measurement read the real clock")]
pub(super) async fn reports(group: Group, members: Vec<Rc<Sleeper>>) {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await else { return };
    let mut beat = tokio::time::interval(LOOK_EVERY.min(group.report_every));
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut late: VecDeque<(Instant, String)> = VecDeque::new();
    let mut reported: Option<Instant> = None;
    let mut seq = 0_u64;
    loop {
        beat.tick().await;
        let now = Instant::now();
        let states: Vec<_> = members.iter().map(|member| member.state()).collect();
        let Some(to) = group.report_to else { continue };
        // A beat that comes a little early is still the one.
        if reported.is_some_and(|at| now - at + LOOK_EVERY / 4 < group.report_every) {
            continue;
        }
        reported = Some(now);
        seq += 1;
        let mut text = String::new();
        for (index, state) in states.iter().enumerate() {
            if !members[index].plan.open {
                continue;
            }
            let _written = writeln!(
                text,
                "bench/bench-{index:010} {:.4} in_flight={} rps={:.2} seq={seq}",
                state.load, state.in_flight, state.rps
            );
        }
        late.push_back((now + group.report_delay, text));
        while late.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, text)) = late.pop_front() {
                // A lost report is what datagrams are like.
                let _sent = socket.send_to(text.as_bytes(), to).await;
            }
        }
    }
}
