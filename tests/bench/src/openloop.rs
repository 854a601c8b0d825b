//! An open-loop generator: requests leave when they are due, however slow the answers are, and
//! latency counts from that moment. One thread, kept-alive connections, many doors.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::answer::{Answer, Progress};

/// One request: when it is due, where it goes, for whom it counts, how much work it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shot {
    /// From the start.
    pub at: Duration,
    /// Index of the address.
    pub door: usize,
    /// Index of the record.
    pub party: usize,
    /// Told to the instance in [`DEMAND_HEADER`].
    pub demand_micros: u32,
}

/// The request header with the microseconds of work that a request asks for.
pub const DEMAND_HEADER: &str = "x-demand-us";

/// How a run goes.
#[derive(Debug)]
pub struct Course<'a> {
    /// Where requests go.
    pub doors: &'a [SocketAddr],
    /// Connections to one door at once; more requests wait, and their waiting counts.
    pub connections_max: usize,
    /// Number of records.
    pub parties: usize,
    /// Requests due before this are sent and not recorded.
    pub warm_up: Duration,
    /// What is unanswered so long after the last request is counted as unfinished.
    pub patience: Duration,
}

/// What became of one party's requests.
#[derive(Debug)]
pub struct Record {
    /// Microseconds from when a request was due until its answer was whole; only good answers, and
    /// the unfinished ones with the time they have waited by then.
    pub latency: Histogram<u64>,
    /// Answers below 400.
    pub good: u64,
    /// Answers from 400, and connections that broke.
    pub failed: u64,
    /// No answer within the patience.
    pub unfinished: u64,
}

/// What a run gives.
#[derive(Debug)]
pub struct Seen {
    /// By party.
    pub records: Vec<Record>,
    /// Microseconds by which requests were looked at too late: the generator's own fault. Waiting for
    /// one of a door's connections is not.
    pub lateness: Histogram<u64>,
}

/// Longest latency told apart.
const LATENCY_MAX_MICROS: u64 = 600_000_000;
/// The timer's place among the events; connections are numbered from 0.
const TIMER: u64 = u64::MAX;
/// Events taken at once.
const EVENTS: usize = 256;

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, 3).context("make a histogram")
}

/// Sends all shots, which come in the order of their times, and collects the answers.
///
/// # Errors
/// When a door does not accept, or the system has no more descriptors.
pub fn run(course: &Course<'_>, shots: impl IntoIterator<Item = Shot>) -> Result<Seen> {
    let mut generator = Generator::new(course)?;
    let mut shots = shots.into_iter().peekable();
    let mut last = Duration::ZERO;
    loop {
        let now = generator.elapsed();
        while let Some(shot) = shots.next_if(|shot| shot.at <= now) {
            last = shot.at;
            generator.fire(shot)?;
        }
        let until = match shots.peek() {
            Some(next) => next.at,
            None if generator.waiting == 0 || now > last + course.patience => break,
            None => last + course.patience,
        };
        generator.wait(until)?;
    }
    Ok(generator.end())
}

struct Generator<'a> {
    course: &'a Course<'a>,
    start: Instant,
    epoll: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Connection>,
    free: Vec<usize>,
    idle: Vec<Vec<usize>>,
    open: Vec<usize>,
    queues: Vec<VecDeque<Shot>>,
    seen: Seen,
    waiting: u64,
    scratch: Vec<u8>,
}

struct Connection {
    stream: Option<TcpStream>,
    door: usize,
    flight: Option<Shot>,
    answer: Answer,
}

impl<'a> Generator<'a> {
    #[expect(clippy::disallowed_methods, reason = "a generator reads the real clock")]
    fn new(course: &'a Course<'a>) -> Result<Generator<'a>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("make an epoll")?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)
            .context("make a timer")?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)
            .context("watch the timer")?;
        let mut records = Vec::new();
        for _ in 0..course.parties {
            let latency = histogram()?;
            records.push(Record { latency, good: 0, failed: 0, unfinished: 0 });
        }
        let doors = course.doors.len();
        Ok(Generator {
            course,
            start: Instant::now(),
            epoll,
            timer,
            connections: Vec::new(),
            free: Vec::new(),
            idle: vec![Vec::new(); doors],
            open: vec![0; doors],
            queues: vec![VecDeque::new(); doors],
            seen: Seen { records, lateness: histogram()? },
            waiting: 0,
            scratch: vec![0; 64 << 10],
        })
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn counts(&self, shot: &Shot) -> bool {
        shot.at >= self.course.warm_up
    }

    fn fire(&mut self, shot: Shot) -> Result<()> {
        self.waiting += 1;
        let late = self.elapsed().saturating_sub(shot.at);
        if self.counts(&shot) {
            self.seen.lateness.saturating_record(micros(late));
        }
        if let Some(index) = self.idle[shot.door].pop() {
            return self.send(index, shot);
        }
        if self.open[shot.door] >= self.course.connections_max {
            self.queues[shot.door].push_back(shot);
            return Ok(());
        }
        let index = self.connect(shot.door)?;
        self.send(index, shot)
    }

    fn connect(&mut self, door: usize) -> Result<usize> {
        let address = self.course.doors[door];
        let stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.open[door] += 1;
        let index = self.free.pop().unwrap_or(self.connections.len());
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::IN).context("watch a connection")?;
        let connection =
            Connection { stream: Some(stream), door, flight: None, answer: Answer::default() };
        if index == self.connections.len() {
            self.connections.push(connection);
        } else {
            self.connections[index] = connection;
        }
        Ok(index)
    }

    fn send(&mut self, index: usize, shot: Shot) -> Result<()> {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: bench\r\n{DEMAND_HEADER}: {}\r\n\r\n",
            shot.demand_micros
        );
        let connection = &mut self.connections[index];
        connection.flight = Some(shot);
        let Some(stream) = &mut connection.stream else { bail!("an idle connection is closed") };
        // A request is far smaller than a socket's buffer: it goes whole, or the connection broke.
        if stream.write_all(request.as_bytes()).is_err() {
            self.broken(index)?;
        }
        Ok(())
    }

    fn wait(&mut self, until: Duration) -> Result<()> {
        // A timer of zero is none at all.
        let left = until.saturating_sub(self.elapsed()).max(Duration::from_nanos(1));
        let value = Timespec::try_from(left).context("a time")?;
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: none, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).context("set the timer")?;
        let mut events = Vec::with_capacity(EVENTS);
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why).context("wait for events"),
        }
        for event in events {
            let data = event.data.u64();
            if data != TIMER {
                self.ready(usize::try_from(data)?)?;
            }
        }
        Ok(())
    }

    fn ready(&mut self, index: usize) -> Result<()> {
        loop {
            let connection = &mut self.connections[index];
            let Some(stream) = &mut connection.stream else { return Ok(()) };
            let got = match stream.read(&mut self.scratch) {
                Ok(0) => return self.broken(index),
                Ok(got) => got,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.broken(index),
            };
            match connection.answer.take(&self.scratch[..got]) {
                Progress::More => {}
                Progress::Whole { status, keep } => return self.answered(index, status, keep),
                Progress::Nonsense => return self.broken(index),
            }
        }
    }

    fn answered(&mut self, index: usize, status: u16, keep: bool) -> Result<()> {
        let now = self.elapsed();
        let connection = &mut self.connections[index];
        connection.answer = Answer::default();
        let door = connection.door;
        if let Some(shot) = connection.flight.take() {
            self.waiting -= 1;
            if self.counts(&shot) {
                let record = &mut self.seen.records[shot.party];
                if status < 400 {
                    record.good += 1;
                    record.latency.saturating_record(micros(now.saturating_sub(shot.at)));
                } else {
                    record.failed += 1;
                }
            }
        }
        if keep {
            return match self.queues[door].pop_front() {
                Some(shot) => self.send(index, shot),
                None => {
                    self.idle[door].push(index);
                    Ok(())
                }
            };
        }
        self.close(index);
        self.next_of(door)
    }

    /// The connection ended. A request on it is lost.
    fn broken(&mut self, index: usize) -> Result<()> {
        let door = self.connections[index].door;
        if let Some(shot) = self.connections[index].flight.take() {
            self.waiting -= 1;
            if self.counts(&shot) {
                self.seen.records[shot.party].failed += 1;
            }
        } else {
            self.idle[door].retain(|idle| *idle != index);
        }
        self.close(index);
        self.next_of(door)
    }

    fn close(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.stream.take().is_some() {
            self.open[connection.door] -= 1;
            self.free.push(index);
        }
    }

    /// A connection's place is free for a request that waits.
    fn next_of(&mut self, door: usize) -> Result<()> {
        if let Some(shot) = self.queues[door].pop_front() {
            let index = self.connect(door)?;
            self.send(index, shot)?;
        }
        Ok(())
    }

    fn end(mut self) -> Seen {
        let now = self.elapsed();
        let flights = self.connections.iter().filter_map(|c| c.flight);
        let queued = self.queues.iter().flatten().copied();
        let counted = |shot: &Shot| shot.at >= self.course.warm_up;
        let left: Vec<Shot> = flights.chain(queued).filter(counted).collect();
        for shot in left {
            let record = &mut self.seen.records[shot.party];
            record.unfinished += 1;
            record.latency.saturating_record(micros(now.saturating_sub(shot.at)));
        }
        self.seen
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
