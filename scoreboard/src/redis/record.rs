//! Writes loads. Who alone writes a service's loads knows what stands there and needs a few plain
//! commands; whoever meets another writer looks first; where that does not do, a script does both.

use super::book::{Book, Entry, Last, apart, mark, name, read_last, read_mark};
use super::link::{CALL_DEADLINE, Link, Live};
use super::scripts::{Scripts, call};
use super::{Plain, lock, millis};
use crate::board::{BoardError, LOAD_TTL, TOLD_MAX};
use crate::{codec, keys};
use ::redis::{Cmd, Pipeline, RedisError, Value};
use domain::{Clock, InstanceId, LoadReport, ServiceName, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Mutex;

const DOING: &str = "record loads";
/// Others may write between a look and the write; after so many looks the script does it.
const LOOKS_MAX: usize = 3;
/// Reports of one service, and whether it has no balancer.
pub(super) struct Sheaf<'a> {
    pub(super) plain: bool,
    pub(super) reports: Vec<&'a LoadReport>,
}

pub(super) type Sheaves<'a> = BTreeMap<ServiceName, Sheaf<'a>>;

/// Sorts reports by service.
pub(super) fn sheaves<'a>(reports: &'a [LoadReport], plain: &Plain) -> Sheaves<'a> {
    let mut sheaves = Sheaves::new();
    let known = lock(plain);
    for report in reports {
        let service = report.instance.service();
        let sheaf = sheaves.entry(service).or_insert_with_key(|service| Sheaf {
            plain: known.get(service) == Some(&true),
            reports: Vec::new(),
        });
        sheaf.reports.push(report);
    }
    sheaves
}

/// Where loads are written, one call at a time.
pub(super) struct Desk {
    link: Link,
    clock: Arc<dyn Clock>,
    scripts: Arc<Scripts>,
    me: String,
    books: Mutex<HashMap<ServiceName, Book>>,
}

/// What became of one try.
enum Tried {
    /// So many were new.
    Written(usize),
    /// Somebody wrote meanwhile.
    Overtaken,
}

/// Whether the server is there and only did not like what was asked.
fn is_answer(error: &BoardError) -> bool {
    let BoardError::Unreachable { source, .. } = error else { return false };
    source.downcast_ref::<RedisError>().is_some_and(|why| {
        let read_only = why.code() == Some("READONLY");
        !read_only && !why.is_io_error() && !why.is_unrecoverable_error()
    })
}

impl Desk {
    pub(super) fn new(link: Link, clock: Arc<dyn Clock>, scripts: Arc<Scripts>) -> Desk {
        Desk { link, clock, scripts, me: name(), books: Mutex::default() }
    }

    /// Writes what it can, and takes it out of `sheaves`; the rest is the script's. Answers how
    /// many reports were new.
    ///
    /// # Errors
    /// When the server cannot be reached: nothing is known to be written.
    pub(super) async fn record(&self, sheaves: &mut Sheaves<'_>) -> Result<usize, BoardError> {
        let mut books = self.books.lock().await;
        let now = self.clock.monotonic();
        books.retain(|_, book| book.tidied.is_none_or(|at| now.since(at) < keys::PLAIN_EXPIRY));
        let tries = async {
            let mut live = self.link.connection(DOING).await?;
            for _look in 0..LOOKS_MAX {
                match self.once(&mut live, &mut books, sheaves).await? {
                    Tried::Written(new) => return Ok(new),
                    Tried::Overtaken => {}
                }
            }
            Ok(0)
        };
        let outcome = self.link.within(CALL_DEADLINE, DOING, tries).await;
        match outcome {
            Err(why) if is_answer(&why) => {
                // Something of another type stands there: the script clears it away.
                books.clear();
                Ok(0)
            }
            Err(why) => {
                books.clear();
                Err(why)
            }
            Ok(new) => Ok(new),
        }
    }

    /// Looks, and writes unless somebody else did meanwhile.
    async fn once<'a>(
        &self,
        live: &mut Live,
        books: &mut HashMap<ServiceName, Book>,
        sheaves: &mut Sheaves<'a>,
    ) -> Result<Tried, BoardError> {
        let (now, marks) = self.look(live, books, sheaves).await?;
        let mut mine = BTreeMap::new();
        for ((service, sheaf), mark) in sheaves.iter_mut().zip(marks) {
            let Some(mark) = mark else { continue };
            let Some(at) = read_mark(&mark, sheaf.plain) else { continue };
            let book = books.entry(service.clone()).or_default();
            if book.mark != mark {
                book.last.clear();
            }
            book.at = at;
            sheaf.reports.sort_by(|a, b| a.instance.cmp(&b.instance));
            mine.insert(service.clone(), &*sheaf);
        }
        self.learn(live, books, &mine).await?;
        let mut pipe = Pipeline::new();
        pipe.cmd("MULTI").ignore();
        let (mut new, mut after) = (0, Vec::new());
        for (service, sheaf) in &mine {
            let Some(book) = books.get(service) else { continue };
            let (entries, count) = book.judge(&sheaf.reports, now);
            new += count;
            if !entries.is_empty() {
                let tidy = book.is_due(self.clock.monotonic());
                let at = book.stamp(now);
                self.write(&mut pipe, service, sheaf.plain, &entries, (now, at), tidy);
                let kept = entries
                    .iter()
                    .map(|e| (e.report.instance.clone(), Some(Last { seq: e.seq, at })));
                after.push((service.clone(), sheaf.plain, at, tidy, kept.collect::<Vec<_>>()));
            }
        }
        let done: Vec<ServiceName> = mine.into_keys().collect();
        if !after.is_empty() {
            pipe.cmd("EXEC");
            let (outcome,): (Value,) = self.link.query(live, &pipe, DOING).await?;
            if outcome == Value::Nil {
                return Ok(Tried::Overtaken);
            }
        }
        let written = self.clock.monotonic();
        for (service, plain, at, tidy, kept) in after {
            let book = books.entry(service).or_default();
            book.mark = mark(&self.me, plain, at);
            book.at = at;
            book.last.extend(kept);
            if tidy {
                book.tidied = Some(written);
                book.last.retain(|_, last| last.is_some_and(|last| !apart(last.at, now)));
            }
        }
        done.iter().for_each(|service| drop(sheaves.remove(service)));
        Ok(Tried::Written(new))
    }

    /// The server's time, and who wrote last; whoever writes from now on makes the write fail.
    async fn look(
        &self,
        live: &mut Live,
        books: &HashMap<ServiceName, Book>,
        sheaves: &Sheaves<'_>,
    ) -> Result<(Timestamp, Vec<Option<String>>), BoardError> {
        let now = self.clock.monotonic();
        let mut pipe = Pipeline::new();
        pipe.cmd("UNWATCH").ignore();
        for (service, _) in sheaves.iter().filter(|(_, sheaf)| !sheaf.plain) {
            if books.get(service).is_none_or(|book| book.is_due(now)) {
                let keys = [keys::board(service), keys::seen(service), keys::report(service)];
                let mut cmd = call(&self.scripts.sweep, &keys);
                cmd.arg(millis(LOAD_TTL));
                pipe.add_command(cmd).ignore();
            }
        }
        let keys: Vec<String> = sheaves.keys().map(keys::writer).collect();
        pipe.cmd("TIME").cmd("WATCH").arg(&keys).ignore().cmd("MGET").arg(&keys);
        let ((secs, micros), marks): ((i64, i64), Vec<Option<String>>) =
            self.link.query(live, &pipe, DOING).await?;
        Ok((Timestamp(secs * 1000 + micros / 1000), marks))
    }

    /// Reads what stands at instances nothing is known of.
    async fn learn(
        &self,
        live: &mut Live,
        books: &mut HashMap<ServiceName, Book>,
        sheaves: &BTreeMap<ServiceName, &Sheaf<'_>>,
    ) -> Result<(), BoardError> {
        let mut pipe = Pipeline::new();
        let mut asked = Vec::new();
        for (service, sheaf) in sheaves {
            let Some(book) = books.get(service) else { continue };
            let known = |report: &&&LoadReport| !book.last.contains_key(&report.instance);
            let unknown: Vec<&InstanceId> =
                sheaf.reports.iter().filter(known).map(|report| &report.instance).collect();
            if unknown.is_empty() {
                continue;
            }
            let key = if sheaf.plain { keys::load(service) } else { keys::report(service) };
            pipe.cmd("HMGET").arg(key);
            for instance in &unknown {
                pipe.arg(instance.as_str());
            }
            asked.push((service, sheaf.plain, unknown));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let answers: Vec<Vec<Option<String>>> = self.link.query(live, &pipe, DOING).await?;
        for ((service, plain, unknown), texts) in asked.into_iter().zip(answers) {
            let Some(book) = books.get_mut(service) else { continue };
            for (instance, text) in unknown.into_iter().zip(texts) {
                let last = text.and_then(|text| read_last(&text, plain));
                if let Some(last) = last.filter(|last| !apart(last.at, book.at)) {
                    book.at = book.at.max(last.at);
                }
                book.last.insert(instance.clone(), last);
            }
        }
        Ok(())
    }

    /// The commands that write a service's new loads and tell of them.
    fn write(
        &self,
        pipe: &mut Pipeline,
        service: &ServiceName,
        plain: bool,
        entries: &[Entry<'_>],
        (now, at): (Timestamp, Timestamp),
        tidy: bool,
    ) {
        let named = |name: &str, key: String| {
            let mut cmd = Cmd::with_capacity(2 + entries.len() * 2, 64 + entries.len() * 96);
            cmd.arg(name).arg(key);
            cmd
        };
        let (mut scores, mut times) =
            (named("ZADD", keys::board(service)), named("ZADD", keys::seen(service)));
        let hash = if plain { keys::load(service) } else { keys::report(service) };
        let mut rest = named("HSET", hash.clone());
        for entries in entries.chunks(TOLD_MAX) {
            let mut message = codec::told(service, entries.len());
            for Entry { report, seq } in entries {
                let line = codec::told_line(&mut message, report, *seq, at);
                if plain {
                    rest.arg(report.instance.as_str()).arg(line.whole);
                } else {
                    scores.arg(line.score).arg(report.instance.as_str());
                    times.arg(now.0).arg(report.instance.as_str());
                    rest.arg(report.instance.as_str()).arg(line.rest);
                }
            }
            pipe.cmd("PUBLISH").arg(keys::CHANGES).arg(message).ignore();
        }
        let expiry = if plain { keys::PLAIN_EXPIRY } else { keys::BOARD_EXPIRY };
        pipe.add_command(rest).ignore();
        let mut all = vec![hash];
        if !plain {
            pipe.add_command(scores).ignore();
            pipe.add_command(times).ignore();
            all.extend([keys::board(service), keys::seen(service)]);
        }
        for key in all.iter().filter(|_| tidy) {
            pipe.cmd("PEXPIRE").arg(key).arg(millis(expiry)).ignore();
        }
        let mine = mark(&self.me, plain, at);
        pipe.cmd("SET").arg(keys::writer(service)).arg(mine);
        pipe.arg("PX").arg(millis(expiry)).ignore();
    }
}
