//! Writes loads. Who alone writes a service's loads knows what stands there and needs a few plain
//! commands; whoever meets another writer looks first; where that does not do, a script does both.

use super::book::{Book, Entry, Last, apart, mark, name, read_last, read_mark};
use super::ledger::{HELD_MAX, Held, Ledger, Look, Looked, add_look, time};
use super::link::{CALL_DEADLINE, Link, Live};
use super::nodes::read;
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
    ledger: Mutex<Ledger>,
}

/// What became of one try.
enum Tried {
    /// So many were new.
    Written(usize),
    /// Somebody wrote meanwhile.
    Overtaken,
    /// A report would be refused by what may be out of date.
    Doubtful,
}

/// One service's new loads, and what its book says once they stand.
struct Written {
    service: ServiceName,
    plain: bool,
    at: Timestamp,
    tidy: bool,
    kept: Vec<(InstanceId, Option<Last>)>,
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
        Desk { link, clock, scripts, me: name(), ledger: Mutex::default() }
    }

    /// Writes what it can, and takes it out of `sheaves`; the rest is the script's. Answers how
    /// many reports were new.
    ///
    /// # Errors
    /// When the server cannot be reached: nothing is known to be written.
    pub(super) async fn record(&self, sheaves: &mut Sheaves<'_>) -> Result<usize, BoardError> {
        let mut ledger = self.ledger.lock().await;
        let now = self.clock.monotonic();
        let lives = |book: &Book| book.tidied.is_none_or(|at| now.since(at) < keys::PLAIN_EXPIRY);
        ledger.books.retain(|_, book| lives(book));
        let tries = async {
            let mut live = self.link.connection(DOING).await?;
            for _look in 0..LOOKS_MAX {
                match self.once(&mut live, &mut ledger, sheaves).await? {
                    Tried::Written(new) => return Ok(new),
                    Tried::Overtaken => ledger.shy_since = Some(now),
                    Tried::Doubtful => {}
                }
            }
            Ok(0)
        };
        let outcome = self.link.within(CALL_DEADLINE, DOING, tries).await;
        match outcome {
            Err(why) if is_answer(&why) => {
                // Something of another type stands there: the script clears it away.
                ledger.forget();
                Ok(0)
            }
            Err(why) => {
                ledger.forget();
                Err(why)
            }
            Ok(new) => Ok(new),
        }
    }

    /// Looks, and writes unless somebody else did meanwhile.
    async fn once<'a>(
        &self,
        live: &mut Live,
        ledger: &mut Ledger,
        sheaves: &mut Sheaves<'a>,
    ) -> Result<Tried, BoardError> {
        let held = ledger.take_held(live, sheaves, self.clock.monotonic());
        let from_memory = held.is_some();
        let (now, marks) = match held {
            Some(look) => look,
            None => self.look(live, &ledger.books, sheaves).await?,
        };
        let mut mine = BTreeMap::new();
        for ((service, sheaf), mark) in sheaves.iter_mut().zip(marks) {
            let Some(mark) = mark else { continue };
            let Some(at) = read_mark(&mark, sheaf.plain) else { continue };
            let book = ledger.books.entry(service.clone()).or_default();
            if book.mark != mark {
                book.last.clear();
            }
            book.at = at;
            sheaf.reports.sort_by(|a, b| a.instance.cmp(&b.instance));
            mine.insert(service.clone(), &*sheaf);
        }
        self.learn(live, &mut ledger.books, &mine).await?;
        let mut pipe = Pipeline::new();
        pipe.cmd("MULTI").ignore();
        let (mut new, mut all, mut after) = (0, 0, Vec::new());
        for (service, sheaf) in &mine {
            let Some(book) = ledger.books.get(service) else { continue };
            let (entries, count) = book.judge(&sheaf.reports, now);
            (new, all) = (new + count, all + sheaf.reports.len());
            if !entries.is_empty() {
                let tidy = book.is_due(self.clock.monotonic());
                let (plain, at) = (sheaf.plain, book.stamp(now));
                self.write(&mut pipe, service, plain, &entries, (now, at), tidy);
                let kept = entries
                    .iter()
                    .map(|e| (e.report.instance.clone(), Some(Last { seq: e.seq, at })));
                let (service, kept) = (service.clone(), kept.collect());
                after.push(Written { service, plain, at, tidy, kept });
            }
        }
        if from_memory && new < all {
            return Ok(Tried::Doubtful);
        }
        let done: Vec<ServiceName> = mine.into_keys().collect();
        if !after.is_empty() && !self.commit(live, ledger, pipe, after, now).await? {
            return Ok(Tried::Overtaken);
        }
        done.iter().for_each(|service| drop(sheaves.remove(service)));
        Ok(Tried::Written(new))
    }

    /// Ends the transaction, and looks for the next one at once; false if somebody else wrote.
    async fn commit(
        &self,
        live: &mut Live,
        ledger: &mut Ledger,
        mut pipe: Pipeline,
        after: Vec<Written>,
        now: Timestamp,
    ) -> Result<bool, BoardError> {
        pipe.cmd("EXEC");
        let hold = after.len() <= HELD_MAX && !ledger.is_shy(self.clock.monotonic());
        if hold {
            let keys: Vec<String> = after.iter().map(|w| keys::writer(&w.service)).collect();
            add_look(&mut pipe, &keys);
        }
        let mut answers: Vec<Value> = self.link.query(live, &pipe, DOING).await?;
        if answers.first() == Some(&Value::Nil) {
            return Ok(false);
        }
        let written = self.clock.monotonic();
        let mut marks = BTreeMap::new();
        for Written { service, plain, at, tidy, kept } in after {
            let mark = mark(&self.me, plain, at);
            marks.insert(service.clone(), mark.clone());
            let book = ledger.books.entry(service).or_default();
            (book.mark, book.at) = (mark, at);
            book.last.extend(kept);
            if tidy {
                book.tidied = Some(written);
                book.last.retain(|_, last| last.is_some_and(|last| !apart(last.at, now)));
            }
        }
        if hold {
            let (now, stand): Looked = read(Value::Array(answers.split_off(1)), DOING)?;
            if stand.iter().flatten().eq(marks.values()) {
                let (connection, now) = (live.number(), time(now));
                ledger.held = Some(Held { connection, marks, now, at: written });
            }
        }
        Ok(true)
    }

    /// The server's time, and who wrote last; whoever writes from now on makes the write fail.
    async fn look(
        &self,
        live: &mut Live,
        books: &HashMap<ServiceName, Book>,
        sheaves: &Sheaves<'_>,
    ) -> Result<Look, BoardError> {
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
        add_look(&mut pipe, &keys);
        let (now, marks): Looked = self.link.query(live, &pipe, DOING).await?;
        Ok((time(now), marks))
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
