//! The access log: one line for each request, written by a thread of its own. A request pays for
//! a small record in a bounded line; when that is full, the record is dropped and counted.

use super::client::Client;
use super::request::Request;
use crate::view::Service;
use domain::{Clock, Mono, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Records that wait to be written: a disk that stalls for a fraction of a second loses none.
const WAITING_MAX: usize = 16_384;
/// Of a target or a header no more is logged: a line stays a line.
const TEXT_BYTES_MAX: usize = 1024;
/// How often lines reach the file, and how often it is looked whether the file was moved away.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// `balancer.access_log` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// The file; `-` is standard output. A file that is moved away is opened anew.
    pub path: PathBuf,
    /// How a line is written.
    #[serde(default)]
    pub format: Format,
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object.
    #[default]
    Json,
    /// The combined log format of web servers, with service and duration behind it.
    Common,
}

/// What is told of one request.
#[derive(Debug)]
pub struct Seen {
    peer: String,
    method: Box<[u8]>,
    host: Box<[u8]>,
    target: Box<[u8]>,
    agent: Box<[u8]>,
    referer: Box<[u8]>,
    id: Box<[u8]>,
    service: Option<Arc<Service>>,
    old: bool,
    status: u16,
    bytes: u64,
    arrived: Mono,
}

/// Logged for a client that was told nothing, as in the metrics.
const CLIENT_GONE: u16 = 499;

fn cut(text: &[u8]) -> Box<[u8]> {
    text[..text.len().min(TEXT_BYTES_MAX)].into()
}

impl Seen {
    /// What is known when a request is over.
    #[must_use]
    pub fn of(
        request: &Request,
        client: &Client,
        service: Option<&Arc<Service>>,
        arrived: Mono,
    ) -> Seen {
        Seen {
            peer: client.conn.peer.clone(),
            method: cut(request.method_name()),
            host: cut(request.host()),
            target: cut(request.target()),
            agent: cut(request.header(b"user-agent").unwrap_or_default()),
            referer: cut(request.header(b"referer").unwrap_or_default()),
            id: cut(request.id()),
            service: service.cloned(),
            old: request.old,
            status: if client.status > 0 { client.status } else { CLIENT_GONE },
            bytes: client.sent,
            arrived,
        }
    }
}

impl Seen {
    /// What is known of a request that was not read, or not to its end.
    #[must_use]
    pub fn unread(client: &Client, status: u16, now: Mono) -> Seen {
        let nothing = || Box::from(&[][..]);
        Seen {
            peer: client.conn.peer.clone(),
            method: nothing(),
            host: nothing(),
            target: nothing(),
            agent: nothing(),
            referer: nothing(),
            id: nothing(),
            service: None,
            old: false,
            status,
            bytes: client.sent,
            arrived: now,
        }
    }

    fn service(&self) -> Option<&str> {
        self.service.as_ref().map(|service| service.name.as_str())
    }
}

/// A record with the moments only its worker knew.
struct Record {
    seen: Seen,
    took: Duration,
    at: Timestamp,
}

/// The workers' end of the log.
pub struct Log {
    line: SyncSender<Record>,
    clock: Arc<dyn Clock>,
    /// Records that found the line full.
    pub dropped: AtomicU64,
}

impl Log {
    /// Opens the file and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be written or the thread not be started.
    pub fn open(config: &AccessLog, clock: Arc<dyn Clock>) -> io::Result<Log> {
        let (line, records) = sync_channel(WAITING_MAX);
        let sink = Sink::open(&config.path)?;
        let format = config.format;
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&records, sink, format))?;
        Ok(Log { line, clock, dropped: AtomicU64::new(0) })
    }

    /// Tells of a request that is over now.
    pub fn tell(&self, seen: Seen, now: Mono) {
        let record = Record { took: now.since(seen.arrived), at: self.clock.now(), seen };
        if self.line.try_send(record).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Where lines go.
enum Sink {
    Out(io::Stdout),
    File { path: PathBuf, file: BufWriter<File>, inode: u64 },
}

impl Sink {
    fn open(path: &Path) -> io::Result<Sink> {
        if path == Path::new("-") {
            return Ok(Sink::Out(io::stdout()));
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Sink::File { path: path.to_owned(), file: BufWriter::new(file), inode })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Out(out) => out.write_all(line),
            Sink::File { file, .. } => file.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Out(out) => out.flush(),
            Sink::File { path, file, inode } => {
                file.flush()?;
                // Moved away by whoever turns logs over: a new one takes its place.
                let there = std::fs::metadata(&*path).map(|m| m.ino());
                if there.ok() != Some(*inode) {
                    let fresh = OpenOptions::new().create(true).append(true).open(&*path)?;
                    *inode = fresh.metadata()?.ino();
                    *file = BufWriter::new(fresh);
                }
                Ok(())
            }
        }
    }
}

/// Writes until all workers are gone. A full disk loses lines, and says so once until it is over.
fn write_all(records: &Receiver<Record>, mut sink: Sink, format: Format) {
    let mut line = Vec::new();
    let mut failing = false;
    let mut flushed = Timestamp::default();
    loop {
        let outcome = match records.recv_timeout(FLUSH_EVERY) {
            Ok(record) => {
                line.clear();
                write_one(&mut line, &record, format);
                let due = record.at.since(flushed) >= FLUSH_EVERY || record.at < flushed;
                let written = sink.write(&line);
                if due {
                    flushed = record.at;
                }
                if due { written.and_then(|()| sink.flush()) } else { written }
            }
            Err(RecvTimeoutError::Timeout) => sink.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                let _last_words = sink.flush();
                return;
            }
        };
        if let Err(error) = &outcome
            && !failing
        {
            tracing::warn!(%error, "the access log cannot be written; requests go on unlogged");
        }
        failing = outcome.is_err();
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn write_one(line: &mut Vec<u8>, record: &Record, format: Format) {
    let (Record { seen, took, at }, version) =
        (record, if record.seen.old { "1.0" } else { "1.1" });
    match format {
        Format::Json => {
            let document = serde_json::json!({
                "at": stamp(*at, "%Y-%m-%dT%H:%M:%S%.3fZ"),
                "client": seen.peer,
                "method": text(&seen.method),
                "host": text(&seen.host),
                "target": text(&seen.target),
                "version": version,
                "status": seen.status,
                "bytes": seen.bytes,
                "duration_seconds": took.as_secs_f64(),
                "service": seen.service(),
                "request_id": text(&seen.id),
                "user_agent": text(&seen.agent),
            });
            // Plain strings and numbers: writing them as JSON cannot fail.
            let _cannot_fail = serde_json::to_writer(&mut *line, &document);
        }
        Format::Common => {
            let when = stamp(*at, "%d/%b/%Y:%H:%M:%S +0000");
            let (referer, agent) = (quoted(&seen.referer), quoted(&seen.agent));
            let (method, target) = (quoted(&seen.method), quoted(&seen.target));
            let _cannot_fail = write!(
                line,
                "{} - - [{when}] \"{method} {target} HTTP/{version}\" {} {} \"{referer}\" \"{agent}\" {} {:.6}",
                seen.peer,
                seen.status,
                seen.bytes,
                seen.service().unwrap_or("-"),
                took.as_secs_f64(),
            );
        }
    }
    line.push(b'\n');
}

/// Text between quotation marks that no client can end.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for c in text(bytes).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

fn stamp(at: Timestamp, form: &str) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    at.strftime(form).to_string()
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
