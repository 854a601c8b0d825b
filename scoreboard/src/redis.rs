//! The board on Redis or Valkey: a pipeline or a script for each call, ages by the server's clock.

mod abilities;
mod link;
mod scripts;
mod terms;
#[cfg(test)]
mod tests;

use crate::board::{
    BALANCER_LIVE, BalancerSeen, Board, BoardError, BoardView, CHANGES_BUFFERED, Changes,
    HEARTBEAT_TTL, LOAD_TTL, ServiceView,
};
use crate::{codec, keys};
use ::redis::{Pipeline, pipe};
use async_trait::async_trait;
use domain::{
    Ability, BalancerId, Change, Clock, Demand, InstanceId, LoadReading, LoadReport, RouteGen,
    RouteTable, ServiceFront, ServiceName, Terms, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

pub use link::{CALL_DEADLINE, READ_DEADLINE};
use link::{Link, client, listen};
use scripts::call;

/// Services read in one pipeline: some thousand answers, a few milliseconds of Redis' one thread.
const SERVICES_PER_PIPELINE: usize = 500;
/// Reports in one script call: about two milliseconds in which Redis does nothing else.
const REPORTS_PER_SCRIPT: usize = 1000;
/// Keys remembered as unreadable, so that each is complained about once.
const COMPLAINTS_MAX: usize = 1000;

/// One service's answer of the read script: now, routes, board with scores, report, load.
type Shelf = (i64, Vec<(String, String)>, Vec<(String, String)>, Strings, Strings);
type Strings = BTreeMap<String, String>;

/// Whether reports of a service go to `tally:{S}:load` alone; missing: not known.
type Plain = Arc<Mutex<BTreeMap<ServiceName, bool>>>;

/// The board that several hosts share.
pub struct RedisBoard {
    link: Link,
    changes: broadcast::Sender<Change>,
    listener: JoinHandle<()>,
    plain: Plain,
    complaints: Mutex<BTreeSet<String>>,
}

impl Drop for RedisBoard {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl RedisBoard {
    /// A board at `url` (`redis://HOST:PORT/DB`, `unix:///PATH`). Connects when first used and
    /// listens for changes from now on: Redis may be down when a role starts. Must be called within
    /// a tokio runtime. `clock` paces new attempts; ages are Redis' own.
    ///
    /// # Errors
    /// [`BoardError::Unreachable`] when `url` cannot be an address.
    pub fn connect(url: &str, clock: Arc<dyn Clock>) -> Result<RedisBoard, BoardError> {
        let client = client(url)?;
        let changes = broadcast::channel(CHANGES_BUFFERED).0;
        let plain = Plain::default();
        let heard = {
            let plain = Arc::clone(&plain);
            move |change: &Change| match change {
                Change::Front(service) => drop(lock(&plain).remove(service)),
                Change::All => lock(&plain).clear(),
                Change::Routes(_) | Change::Loads(_) | Change::Demand(_) => {}
            }
        };
        let listener = tokio::spawn(listen(client.clone(), changes.clone(), heard));
        let link = Link::new(client, clock);
        Ok(RedisBoard { link, changes, listener, plain, complaints: Mutex::default() })
    }

    /// What stands at a key but cannot be read is unknown, and someone should look: once.
    fn complain(&self, key: String, detail: &str) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < COMPLAINTS_MAX && complaints.insert(key.clone()) {
            tracing::warn!(key, detail, "the scoreboard holds something unreadable; ignored");
        }
    }

    fn front(&self, service: &ServiceName, text: &str) -> Option<ServiceFront> {
        match codec::read_front(service, text) {
            Ok(front) => {
                lock(&self.plain).insert(service.clone(), !front.load_balanced);
                Some(front)
            }
            Err(detail) => {
                self.complain(format!("{} {service}", keys::SERVICES), &detail);
                None
            }
        }
    }

    fn shelf(&self, service: &ServiceName, front: Option<ServiceFront>, got: Shelf) -> ServiceView {
        let (now, routes, board, report, load) = got;
        let now = Timestamp(now);
        let routes = codec::read_routes(&routes).unwrap_or_else(|detail| {
            self.complain(keys::routes(service), &detail);
            None
        });
        let mut loads: BTreeMap<InstanceId, LoadReading> = BTreeMap::new();
        let mut keep = |key: fn(&ServiceName) -> String, read: Result<LoadReading, String>| {
            match read {
                // A stamp from the future means that Redis' clock was set back.
                Ok(reading) if reading.age < LOAD_TTL && reading.at <= now.plus(LOAD_TTL) => {
                    loads.insert(reading.report.instance.clone(), reading);
                }
                Ok(_old) => {}
                Err(detail) => self.complain(key(service), &detail),
            }
        };
        for (instance, text) in load.iter().take(codec::INSTANCES_MAX) {
            keep(keys::load, codec::read_plain_report(instance, text, now));
        }
        for (instance, score) in board.iter().take(codec::INSTANCES_MAX) {
            // A load whose time nobody wrote has no age: unknown.
            let Some(rest) = report.get(instance) else { continue };
            let read = codec::read_score(score);
            keep(keys::board, read.and_then(|l| codec::read_report(instance, l, rest, now)));
        }
        loads.retain(|instance, _| instance.service() == *service);
        ServiceView { front, routes, loads: loads.into_values().collect() }
    }

    fn read_command(&self, pipe: &mut Pipeline, service: &ServiceName) {
        let keys = [
            keys::board(service),
            keys::seen(service),
            keys::report(service),
            keys::load(service),
            keys::routes(service),
        ];
        let mut cmd = call(&self.link.scripts.read, &keys);
        cmd.arg(millis(LOAD_TTL));
        pipe.add_command(cmd);
    }

    /// Names in `tally:services`, those that are names.
    fn names(&self, fields: impl IntoIterator<Item = String>) -> Vec<ServiceName> {
        let mut names = Vec::new();
        for field in fields {
            match field.parse() {
                Ok(name) => names.push(name),
                Err(why) => self.complain(keys::SERVICES.to_owned(), &format!("{why}")),
            }
        }
        names
    }

    /// Learns which of `services` have no balancer, where that is not known yet.
    async fn learn_plain(&self, services: &BTreeSet<ServiceName>) -> Result<(), BoardError> {
        let unknown: Vec<&ServiceName> = {
            let plain = lock(&self.plain);
            services.iter().filter(|service| !plain.contains_key(*service)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let mut pipe = pipe();
        pipe.cmd("HMGET").arg(keys::SERVICES);
        for service in &unknown {
            pipe.arg(service.as_str());
        }
        let (texts,): (Vec<Option<String>>,) =
            self.link.send(&pipe, "read fronts", CALL_DEADLINE).await?;
        for (service, text) in unknown.into_iter().zip(texts) {
            if let Some(text) = text {
                self.front(service, &text);
            }
        }
        Ok(())
    }

    fn record_commands(&self, reports: &[LoadReport], pipe: &mut Pipeline) {
        let mut by_service: BTreeMap<ServiceName, Vec<&LoadReport>> = BTreeMap::new();
        for report in reports {
            by_service.entry(report.instance.service()).or_default().push(report);
        }
        let plain = lock(&self.plain);
        for (service, reports) in by_service {
            let keys = [
                keys::board(&service),
                keys::seen(&service),
                keys::report(&service),
                keys::load(&service),
            ];
            let kind = if plain.get(&service) == Some(&true) { "plain" } else { "board" };
            let message = codec::change(&Change::Loads(service));
            for reports in reports.chunks(REPORTS_PER_SCRIPT) {
                let mut cmd = call(&self.link.scripts.record, &keys);
                cmd.arg(millis(LOAD_TTL)).arg(millis(keys::PLAIN_EXPIRY));
                cmd.arg(keys::CHANGES).arg(&message).arg(kind);
                for report in reports {
                    let seq = report.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
                    cmd.arg(report.instance.as_str()).arg(codec::score(report.load));
                    cmd.arg(codec::counts(report)).arg(seq).arg(report.source.as_str());
                }
                pipe.add_command(cmd);
            }
        }
    }
}

fn publish(pipe: &mut Pipeline, change: &Change) {
    pipe.cmd("PUBLISH").arg(keys::CHANGES).arg(codec::change(change)).ignore();
}

fn unreadable(key: String, detail: String) -> BoardError {
    BoardError::Unreadable { key, detail }
}

#[async_trait]
impl Board for RedisBoard {
    async fn publish_front(&self, front: &ServiceFront) -> Result<(), BoardError> {
        let service = &front.service;
        let text = codec::front(front).map_err(|d| unreadable(keys::SERVICES.to_owned(), d))?;
        let mut pipe = pipe();
        pipe.cmd("HSET").arg(keys::SERVICES).arg(service.as_str()).arg(text).ignore();
        publish(&mut pipe, &Change::Front(service.clone()));
        self.link.send(&pipe, "publish a front", CALL_DEADLINE).await
    }

    async fn remove_service(&self, service: &ServiceName) -> Result<(), BoardError> {
        let mut pipe = pipe();
        pipe.cmd("HDEL").arg(keys::SERVICES).arg(service.as_str()).ignore();
        pipe.cmd("DEL").arg(&keys::of_service(service)).ignore();
        publish(&mut pipe, &Change::Front(service.clone()));
        publish(&mut pipe, &Change::Routes(service.clone()));
        self.link.send(&pipe, "remove a service", CALL_DEADLINE).await
    }

    async fn publish_routes(
        &self,
        service: &ServiceName,
        routes: &RouteTable,
    ) -> Result<RouteGen, BoardError> {
        let mut cmd = call(&self.link.scripts.routes, &[keys::routes(service)]);
        cmd.arg(keys::CHANGES).arg(codec::change(&Change::Routes(service.clone())));
        cmd.arg(routes.generation.epoch.0).arg(routes.generation.generation.0);
        for entry in &routes.entries {
            cmd.arg(entry.instance.as_str()).arg(codec::route(entry));
        }
        let mut pipe = pipe();
        pipe.add_command(cmd);
        let (present,): (String,) = self.link.send(&pipe, "publish routes", CALL_DEADLINE).await?;
        present.parse().map_err(|detail| unreadable(keys::routes(service), detail))
    }

    async fn record(&self, reports: &[LoadReport]) -> Result<usize, BoardError> {
        if reports.is_empty() {
            return Ok(0);
        }
        let services = reports.iter().map(|report| report.instance.service()).collect();
        self.learn_plain(&services).await?;
        let mut pipe = pipe();
        self.record_commands(reports, &mut pipe);
        let new: Vec<usize> = self.link.send(&pipe, "record loads", CALL_DEADLINE).await?;
        Ok(new.into_iter().sum())
    }

    async fn forget(&self, instances: &[InstanceId]) -> Result<(), BoardError> {
        let mut pipe = pipe();
        let mut services = BTreeSet::new();
        for instance in instances {
            let service = instance.service();
            for key in [keys::board(&service), keys::seen(&service)] {
                pipe.cmd("ZREM").arg(key).arg(instance.as_str()).ignore();
            }
            for key in [keys::report(&service), keys::load(&service)] {
                pipe.cmd("HDEL").arg(key).arg(instance.as_str()).ignore();
            }
            services.insert(service);
        }
        for service in services {
            publish(&mut pipe, &Change::Loads(service));
        }
        if pipe.is_empty() {
            return Ok(());
        }
        self.link.send(&pipe, "forget loads", CALL_DEADLINE).await
    }

    async fn write_demand(
        &self,
        balancer: &BalancerId,
        demand: &[(ServiceName, Demand)],
    ) -> Result<(), BoardError> {
        let mut pipe = pipe();
        let mut beat = call(&self.link.scripts.beat, &[keys::BALANCERS.to_owned()]);
        beat.arg(millis(HEARTBEAT_TTL)).arg(balancer.as_str());
        pipe.add_command(beat).ignore();
        for (service, demand) in demand {
            let text = codec::demand(demand).map_err(|d| unreadable(keys::demand(service), d))?;
            let mut cmd = call(&self.link.scripts.demand, &[keys::demand(service)]);
            cmd.arg(keys::CHANGES).arg(codec::change(&Change::Demand(service.clone())));
            cmd.arg(millis(keys::DEMAND_EXPIRY)).arg(balancer.as_str()).arg(text);
            pipe.add_command(cmd).ignore();
        }
        self.link.send(&pipe, "write demand", CALL_DEADLINE).await
    }

    async fn demand(
        &self,
    ) -> Result<BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>, BoardError> {
        const DOING: &str = "read demand";
        let mut first = pipe();
        first.cmd("TIME").cmd("HKEYS").arg(keys::SERVICES);
        let ((secs, micros), names): ((i64, i64), Vec<String>) =
            self.link.send(&first, DOING, READ_DEADLINE).await?;
        let now = Timestamp(secs * 1000 + micros / 1000);
        let mut all = BTreeMap::new();
        let mut dead = pipe();
        for services in self.names(names).chunks(SERVICES_PER_PIPELINE) {
            let mut each = pipe();
            for service in services {
                each.cmd("HGETALL").arg(keys::demand(service));
            }
            let got: Vec<Strings> = self.link.send(&each, DOING, READ_DEADLINE).await?;
            for (service, fields) in services.iter().zip(got) {
                let mut fresh = Vec::new();
                for (balancer, text) in fields {
                    match codec::read_demand(&balancer, &text, now) {
                        Ok(demand) if demand.2 < BALANCER_LIVE => fresh.push(demand),
                        Ok((.., age)) if age > keys::DEMAND_EXPIRY => {
                            dead.cmd("HDEL").arg(keys::demand(service)).arg(balancer).ignore();
                        }
                        Ok(_old) => {}
                        Err(detail) => self.complain(keys::demand(service), &detail),
                    }
                }
                if !fresh.is_empty() {
                    all.insert(service.clone(), fresh);
                }
            }
        }
        if !dead.is_empty() {
            self.link.send::<()>(&dead, DOING, CALL_DEADLINE).await?;
        }
        Ok(all)
    }

    async fn write_ability(
        &self,
        balancer: &BalancerId,
        ability: &Ability,
    ) -> Result<(), BoardError> {
        self.put_ability(balancer, ability).await
    }

    async fn abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError> {
        self.live_abilities().await
    }

    async fn write_terms(&self, terms: &[(InstanceId, Terms)]) -> Result<(), BoardError> {
        self.put_terms(terms).await
    }

    async fn terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError> {
        self.fresh_terms().await
    }

    async fn service(&self, service: &ServiceName) -> Result<ServiceView, BoardError> {
        let mut pipe = pipe();
        pipe.cmd("HGET").arg(keys::SERVICES).arg(service.as_str());
        self.read_command(&mut pipe, service);
        let (front, shelf): (Option<String>, Shelf) =
            self.link.send(&pipe, "read a service", CALL_DEADLINE).await?;
        let front = front.and_then(|text| self.front(service, &text));
        Ok(self.shelf(service, front, shelf))
    }

    async fn view(&self) -> Result<BoardView, BoardError> {
        const DOING: &str = "read everything";
        let mut first = pipe();
        first.cmd("HGETALL").arg(keys::SERVICES);
        let mut beats = call(&self.link.scripts.beat, &[keys::BALANCERS.to_owned()]);
        beats.arg(millis(HEARTBEAT_TTL));
        first.add_command(beats);
        let (mut fronts, (now, beats)): (Strings, (i64, Vec<(String, f64)>)) =
            self.link.send(&first, DOING, READ_DEADLINE).await?;
        let mut view = BoardView::default();
        let names = self.names(fronts.keys().cloned());
        for services in names.chunks(SERVICES_PER_PIPELINE) {
            let mut each = pipe();
            services.iter().for_each(|service| self.read_command(&mut each, service));
            let got: Vec<Shelf> = self.link.send(&each, DOING, READ_DEADLINE).await?;
            for (service, shelf) in services.iter().zip(got) {
                let front = fronts.remove(service.as_str());
                let front = front.and_then(|text| self.front(service, &text));
                view.services.insert(service.clone(), self.shelf(service, front, shelf));
            }
        }
        for (balancer, at) in beats {
            #[expect(clippy::cast_possible_truncation, reason = "saturates; a time in ms")]
            let age = Timestamp(now).since(Timestamp(at as i64));
            match balancer.parse() {
                Ok(balancer) if age < HEARTBEAT_TTL => {
                    view.balancers.push(BalancerSeen { balancer, age });
                }
                Ok(_old) => {}
                Err(why) => self.complain(keys::BALANCERS.to_owned(), &format!("{why}")),
            }
        }
        view.balancers.sort();
        Ok(view)
    }

    fn watch(&self) -> Changes {
        Changes(self.changes.subscribe())
    }

    async fn ping(&self) -> Result<(), BoardError> {
        // A write, so that a read-only replica does not pass for the board.
        let mut pipe = pipe();
        pipe.cmd("PUBLISH").arg("tally:ping").arg("").ignore();
        self.link.send(&pipe, "ask whether it lives", CALL_DEADLINE).await
    }
}
