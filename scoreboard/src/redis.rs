//! The board on Redis or Valkey, alone, behind Sentinels or as a Cluster: a pipeline or a script for
//! each call, ages by the server's clock.

mod abilities;
mod address;
mod book;
mod ledger;
mod link;
mod listen;
mod nodes;
mod origin;
mod reading;
mod record;
mod scripts;
mod slots;
mod terms;
#[cfg(test)]
mod tests;

use crate::board::{
    BALANCER_LIVE, BalancerSeen, Board, BoardError, BoardView, CHANGES_BUFFERED, Changes,
    HEARTBEAT_TTL, LOAD_TTL, ServiceView, TOLD_MAX,
};
use crate::{codec, keys};
use ::redis::{Cmd, Value, cmd};
use async_trait::async_trait;
use domain::{
    Ability, BalancerId, Change, Clock, Demand, InstanceId, LoadReport, RouteGen, RouteTable,
    ServiceFront, ServiceName, Terms, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use address::Address;
pub use address::AddressError;
use link::Link;
pub use link::{CALL_DEADLINE, READ_DEADLINE};
use listen::Voice;
use nodes::{Batch, Nodes, read};
use origin::Origin;
use reading::{Shelf, Strings};
use record::{Desk, Sheaves};
use scripts::{Scripts, call};

/// Services read in one pipeline: some thousand answers, a few milliseconds of Redis' one thread.
const SERVICES_PER_PIPELINE: usize = 500;
/// Reports in one script call, and so in one message: some milliseconds in which Redis does nothing
/// else.
const REPORTS_PER_SCRIPT: usize = TOLD_MAX;

/// Whether reports of a service go to `tally:{S}:load` alone; missing: not known.
type Plain = Arc<Mutex<BTreeMap<ServiceName, bool>>>;

/// The board that several hosts share.
pub struct RedisBoard {
    nodes: Arc<Nodes>,
    /// Where loads are written without a script; a Cluster has none, since its transactions end at
    /// each service.
    desk: Option<Desk>,
    scripts: Arc<Scripts>,
    /// Names this process among writers of loads.
    writer: String,
    voice: Voice,
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
    /// A board at `url`: `redis://HOST:PORT/DB`, `unix:///PATH`,
    /// `redis+sentinel://HOST:PORT,HOST:PORT/MASTER` or `redis+cluster://HOST:PORT,HOST:PORT`.
    /// Connects when first used and listens for changes from now on: Redis may be down when a role
    /// starts. Must be called within a tokio runtime. `clock` paces new attempts; ages are Redis'
    /// own.
    ///
    /// # Errors
    /// [`BoardError::Address`] when `url` cannot be an address.
    pub fn connect(url: &str, clock: Arc<dyn Clock>) -> Result<RedisBoard, BoardError> {
        let address = address::read(url)?;
        let scripts = Arc::new(Scripts::new());
        let origin = match &address {
            Address::Alone(info) => Some(Origin::Server(info.clone())),
            Address::Sentinel { sentinels, master, greeting } => Some(Origin::Sentinels {
                sentinels: sentinels.clone(),
                master: master.clone(),
                greeting: greeting.clone(),
            }),
            Address::Cluster { .. } => None,
        };
        let desk = origin.map(|origin| {
            let link = Link::new(origin, Arc::clone(&clock), Arc::clone(&scripts));
            Desk::new(link, Arc::clone(&clock), Arc::clone(&scripts))
        });
        let nodes = Arc::new(Nodes::new(address, Arc::clone(&clock), Arc::clone(&scripts)));
        let voice = Voice {
            whole: broadcast::channel(CHANGES_BUFFERED).0,
            names: broadcast::channel(CHANGES_BUFFERED).0,
        };
        let plain = Plain::default();
        let heard = {
            let plain = Arc::clone(&plain);
            move |change: &Change| match change {
                Change::Front(service) => drop(lock(&plain).remove(service)),
                Change::All => lock(&plain).clear(),
                Change::Routes(_) | Change::Loads(_) | Change::Told(..) | Change::Demand(_) => {}
            }
        };
        let listener = tokio::spawn(listen::listen(Arc::clone(&nodes), voice.clone(), heard));
        let (writer, complaints) = (book::name(), Mutex::default());
        Ok(RedisBoard { nodes, desk, scripts, writer, voice, listener, plain, complaints })
    }

    /// Sends one command whose key has no service.
    pub(super) async fn one<T: ::redis::FromRedisValue>(
        &self,
        key: &str,
        cmd: Cmd,
        doing: &'static str,
    ) -> Result<T, BoardError> {
        let mut batch = Batch::default();
        batch.at(key, cmd);
        let answer = self.nodes.send(batch, doing, CALL_DEADLINE).await?.pop();
        read(answer.unwrap_or(Value::Nil), doing)
    }

    /// Sends one command whose keys are a service's.
    async fn of<T: ::redis::FromRedisValue>(
        &self,
        service: &ServiceName,
        cmd: Cmd,
        doing: &'static str,
    ) -> Result<T, BoardError> {
        let mut batch = Batch::default();
        batch.of(service, cmd);
        let answer = self.nodes.send(batch, doing, CALL_DEADLINE).await?.pop();
        read(answer.unwrap_or(Value::Nil), doing)
    }

    /// Writes loads by the script, which looks at each instance. Answers how many were new.
    async fn record_by_script(&self, sheaves: &Sheaves<'_>) -> Result<usize, BoardError> {
        let (mut batch, mut whose) = (Batch::default(), Vec::new());
        for (service, sheaf) in sheaves {
            let keys = [
                keys::board(service),
                keys::seen(service),
                keys::report(service),
                keys::load(service),
                keys::writer(service),
            ];
            for reports in sheaf.reports.chunks(REPORTS_PER_SCRIPT) {
                let mut cmd = call(&self.scripts.record, &keys);
                cmd.arg(millis(LOAD_TTL)).arg(millis(keys::PLAIN_EXPIRY));
                cmd.arg(millis(keys::BOARD_EXPIRY)).arg(keys::CHANGES).arg(service.as_str());
                cmd.arg(book::kind(sheaf.plain)).arg(&self.writer);
                for report in reports {
                    let seq = report.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
                    cmd.arg(report.instance.as_str()).arg(codec::score(report.load));
                    cmd.arg(codec::counts(report)).arg(seq).arg(report.source.as_str());
                }
                batch.of(service, cmd);
                whose.push(service);
            }
        }
        const DOING: &str = "record loads";
        let answers = self.nodes.send_parts(batch, DOING, CALL_DEADLINE).await;
        let (mut new, mut failed) = (0, BTreeSet::new());
        for (answer, service) in answers.each.into_iter().zip(&whose) {
            match answer {
                Some(answer) => new += read::<usize>(answer, DOING)?,
                None => drop(failed.insert((*service).clone())),
            }
        }
        match answers.failure {
            None => Ok(new),
            Some(why) if failed.len() == sheaves.len() => Err(why),
            Some(why) => Err(BoardError::Partly { services: failed, source: Box::new(why) }),
        }
    }
}

fn publish(change: &Change) -> Cmd {
    let mut cmd = cmd("PUBLISH");
    cmd.arg(keys::CHANGES).arg(codec::change(change));
    cmd
}

fn unreadable(key: String, detail: String) -> BoardError {
    BoardError::Unreadable { key, detail }
}

#[async_trait]
impl Board for RedisBoard {
    async fn publish_front(&self, front: &ServiceFront) -> Result<(), BoardError> {
        let service = &front.service;
        let text = codec::front(front).map_err(|d| unreadable(keys::SERVICES.to_owned(), d))?;
        let mut set = cmd("HSET");
        set.arg(keys::SERVICES).arg(service.as_str()).arg(text);
        let mut batch = Batch::default();
        batch.at(keys::SERVICES, set);
        batch.at(keys::SERVICES, publish(&Change::Front(service.clone())));
        self.nodes.send(batch, "publish a front", CALL_DEADLINE).await.map(drop)
    }

    async fn remove_service(&self, service: &ServiceName) -> Result<(), BoardError> {
        const DOING: &str = "remove a service";
        let mut front = cmd("HDEL");
        front.arg(keys::SERVICES).arg(service.as_str());
        let mut rest = cmd("DEL");
        rest.arg(&keys::of_service(service));
        let mut batch = Batch::default();
        batch.at(keys::SERVICES, front);
        batch.of(service, rest);
        self.nodes.send(batch, DOING, CALL_DEADLINE).await?;
        // Told when both are gone, which may have been on two servers.
        let mut batch = Batch::default();
        batch.at(keys::SERVICES, publish(&Change::Front(service.clone())));
        batch.at(keys::SERVICES, publish(&Change::Routes(service.clone())));
        self.nodes.send(batch, DOING, CALL_DEADLINE).await.map(drop)
    }

    async fn publish_routes(
        &self,
        service: &ServiceName,
        routes: &RouteTable,
    ) -> Result<RouteGen, BoardError> {
        let mut cmd = call(&self.scripts.routes, &[keys::routes(service)]);
        cmd.arg(keys::CHANGES).arg(codec::change(&Change::Routes(service.clone())));
        cmd.arg(routes.generation.epoch.0).arg(routes.generation.generation.0);
        for entry in &routes.entries {
            cmd.arg(entry.instance.as_str()).arg(codec::route(entry));
        }
        let present: String = self.of(service, cmd, "publish routes").await?;
        present.parse().map_err(|detail| unreadable(keys::routes(service), detail))
    }

    async fn record(&self, reports: &[LoadReport]) -> Result<usize, BoardError> {
        if reports.is_empty() {
            return Ok(0);
        }
        let services = reports.iter().map(|report| report.instance.service()).collect();
        self.learn_plain(&services).await?;
        let mut sheaves = record::sheaves(reports, &self.plain);
        let mut new = 0;
        if let Some(desk) = &self.desk {
            new = desk.record(&mut sheaves).await?;
        }
        if !sheaves.is_empty() {
            new += self.record_by_script(&sheaves).await?;
        }
        Ok(new)
    }

    async fn forget(&self, instances: &[InstanceId]) -> Result<(), BoardError> {
        let mut gone: BTreeMap<ServiceName, Vec<&str>> = BTreeMap::new();
        for instance in instances {
            gone.entry(instance.service()).or_default().push(instance.as_str());
        }
        let mut batch = Batch::default();
        for (service, instances) in &gone {
            let from = [
                ("ZREM", keys::board(service)),
                ("ZREM", keys::seen(service)),
                ("HDEL", keys::report(service)),
                ("HDEL", keys::load(service)),
            ];
            for (name, key) in from {
                let mut rem = cmd(name);
                rem.arg(key).arg(instances);
                batch.of(service, rem);
            }
            let mut mark = cmd("DEL");
            mark.arg(keys::writer(service));
            batch.of(service, mark);
            batch.of(service, publish(&Change::Loads(service.clone())));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.nodes.send(batch, "forget loads", CALL_DEADLINE).await.map(drop)
    }

    async fn write_demand(
        &self,
        balancer: &BalancerId,
        demand: &[(ServiceName, Demand)],
    ) -> Result<(), BoardError> {
        let mut batch = Batch::default();
        let mut beat = call(&self.scripts.beat, &[keys::BALANCERS.to_owned()]);
        beat.arg(millis(HEARTBEAT_TTL)).arg(balancer.as_str());
        batch.at(keys::BALANCERS, beat);
        for (service, demand) in demand {
            let text = codec::demand(demand).map_err(|d| unreadable(keys::demand(service), d))?;
            let mut cmd = call(&self.scripts.demand, &[keys::demand(service)]);
            cmd.arg(keys::CHANGES).arg(codec::change(&Change::Demand(service.clone())));
            cmd.arg(millis(keys::DEMAND_EXPIRY)).arg(balancer.as_str()).arg(text);
            batch.of(service, cmd);
        }
        self.nodes.send(batch, "write demand", CALL_DEADLINE).await.map(drop)
    }

    async fn demand(
        &self,
    ) -> Result<BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>, BoardError> {
        const DOING: &str = "read demand";
        let mut names = cmd("HKEYS");
        names.arg(keys::SERVICES);
        let mut first = Batch::default();
        first.at(keys::SERVICES, cmd("TIME"));
        first.at(keys::SERVICES, names);
        let first = self.nodes.send(first, DOING, READ_DEADLINE).await?;
        let ((secs, micros), names): ((i64, i64), Vec<String>) = read(Value::Array(first), DOING)?;
        let now = Timestamp(secs * 1000 + micros / 1000);
        let mut all = BTreeMap::new();
        let mut dead = Batch::default();
        for services in self.names(names).chunks(SERVICES_PER_PIPELINE) {
            let mut each = Batch::default();
            for service in services {
                let mut get = cmd("HGETALL");
                get.arg(keys::demand(service));
                each.of(service, get);
            }
            let got = self.nodes.send(each, DOING, READ_DEADLINE).await?;
            for (service, fields) in services.iter().zip(got) {
                let mut fresh = Vec::new();
                for (balancer, text) in read::<Strings>(fields, DOING)? {
                    match codec::read_demand(&balancer, &text, now) {
                        Ok(demand) if demand.2 < BALANCER_LIVE => fresh.push(demand),
                        Ok((.., age)) if age > keys::DEMAND_EXPIRY => {
                            let mut del = cmd("HDEL");
                            del.arg(keys::demand(service)).arg(balancer);
                            dead.of(service, del);
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
            self.nodes.send(dead, DOING, CALL_DEADLINE).await?;
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
        const DOING: &str = "read a service";
        let mut front = cmd("HGET");
        front.arg(keys::SERVICES).arg(service.as_str());
        let mut batch = Batch::default();
        batch.at(keys::SERVICES, front);
        batch.of(service, self.read_command(service));
        let got = self.nodes.send(batch, DOING, CALL_DEADLINE).await?;
        let (front, shelf): (Option<String>, Shelf) = read(Value::Array(got), DOING)?;
        let front = front.and_then(|text| self.front(service, &text));
        Ok(self.shelf(service, front, shelf))
    }

    async fn view(&self) -> Result<BoardView, BoardError> {
        const DOING: &str = "read everything";
        let mut fronts = cmd("HGETALL");
        fronts.arg(keys::SERVICES);
        let mut beats = call(&self.scripts.beat, &[keys::BALANCERS.to_owned()]);
        beats.arg(millis(HEARTBEAT_TTL));
        let mut first = Batch::default();
        first.at(keys::SERVICES, fronts);
        first.at(keys::BALANCERS, beats);
        let first = self.nodes.send(first, DOING, READ_DEADLINE).await?;
        let (mut fronts, (now, beats)): (Strings, (i64, Vec<(String, f64)>)) =
            read(Value::Array(first), DOING)?;
        let mut view = BoardView::default();
        let names = self.names(fronts.keys().cloned());
        for services in names.chunks(SERVICES_PER_PIPELINE) {
            let mut each = Batch::default();
            services.iter().for_each(|service| each.of(service, self.read_command(service)));
            let got = self.nodes.send_parts(each, DOING, READ_DEADLINE).await;
            if let Some(why) = got.failure.filter(|_| got.each.iter().all(Option::is_none)) {
                return Err(why);
            }
            for (service, shelf) in services.iter().zip(got.each) {
                let front = fronts.remove(service.as_str());
                let front = front.and_then(|text| self.front(service, &text));
                // What a server that is away holds is unknown.
                let view_of = match shelf {
                    Some(shelf) => self.shelf(service, front, read(shelf, DOING)?),
                    None => ServiceView { front, ..ServiceView::default() },
                };
                view.services.insert(service.clone(), view_of);
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
        Changes(self.voice.whole.subscribe())
    }

    fn watch_names(&self) -> Changes {
        Changes(self.voice.names.subscribe())
    }

    async fn ping(&self) -> Result<(), BoardError> {
        // A write that changes nothing, so that a read-only replica does not pass for the board.
        let mut none = cmd("ZREMRANGEBYSCORE");
        none.arg(keys::BALANCERS).arg("-inf").arg("-1");
        self.one::<Value>(keys::BALANCERS, none, "ask whether it lives").await.map(drop)
    }
}
