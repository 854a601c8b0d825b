//! All servers of the board: commands go to whoever holds their keys, together and in order.

use super::address::{Address, elsewhere};
use super::link::{CALL_DEADLINE, CONNECT_DEADLINE, Link};
use super::origin::Origin;
use super::scripts::Scripts;
use super::slots::{self, Stretch};
use crate::board::BoardError;
use ::redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, RedisError, Value,
};
use domain::{Clock, Mono, ServiceName};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A server that is asked who serves what answers from memory.
const ASK_DEADLINE: Duration = Duration::from_millis(300);
/// The map is not asked for more often than this, however much fails.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// Between two tries of what a Cluster refused for the moment.
const TRY_PAUSE: Duration = Duration::from_millis(20);

/// Commands with the slot of their keys, to be sent together.
#[derive(Default)]
pub(super) struct Batch(Vec<(u16, Cmd)>);

impl Batch {
    /// Adds a command whose keys are a service's. Its place among the answers is its place here.
    pub(super) fn of(&mut self, service: &ServiceName, cmd: Cmd) {
        self.0.push((slots::of_service(service), cmd));
    }

    /// Adds a command whose key has no service.
    pub(super) fn at(&mut self, key: &str, cmd: Cmd) {
        self.0.push((slots::of_key(key), cmd));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Answers in the order of the commands; `None` where a server failed, and why the first did.
pub(super) struct Answers {
    pub(super) each: Vec<Option<Value>>,
    pub(super) failure: Option<BoardError>,
}

/// The servers.
pub(super) enum Nodes {
    /// One at a time.
    One(Box<Link>),
    /// Several.
    Many(Cluster),
}

/// A Cluster as it was last seen.
pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    clock: Arc<dyn Clock>,
    scripts: Arc<Scripts>,
    seen: Mutex<Seen>,
    asking: tokio::sync::Mutex<Option<Mono>>,
}

#[derive(Default)]
struct Seen {
    map: Vec<Stretch>,
    links: BTreeMap<String, Arc<Link>>,
}

fn name(stretch: &Stretch) -> String {
    format!("{}:{}", stretch.host, stretch.port)
}

/// Whether a Cluster refused for the moment: the keys are elsewhere, or on their way.
fn is_moving(error: &BoardError) -> bool {
    let BoardError::Unreachable { source, .. } = error else { return false };
    source.downcast_ref::<RedisError>().is_some_and(RedisError::is_cluster_error)
}

impl Nodes {
    pub(super) fn new(address: Address, clock: Arc<dyn Clock>, scripts: Arc<Scripts>) -> Nodes {
        let one = |origin| {
            Nodes::One(Box::new(Link::new(origin, Arc::clone(&clock), Arc::clone(&scripts))))
        };
        match address {
            Address::Alone(info) => one(Origin::Server(info)),
            Address::Sentinel { sentinels, master, greeting } => {
                one(Origin::Sentinels { sentinels, master, greeting })
            }
            Address::Cluster { seeds } => {
                let (seen, asking) = (Mutex::default(), tokio::sync::Mutex::default());
                Nodes::Many(Cluster { seeds, clock: Arc::clone(&clock), scripts, seen, asking })
            }
        }
    }

    /// Sends all commands, each to its server, and waits for all answers within `limit`.
    pub(super) async fn send_parts(
        &self,
        batch: Batch,
        doing: &'static str,
        limit: Duration,
    ) -> Answers {
        match self {
            Nodes::One(link) => {
                let count = batch.0.len();
                let mut pipe = ::redis::Pipeline::with_capacity(count);
                for (_, cmd) in batch.0 {
                    pipe.add_command(cmd);
                }
                match link.send::<Vec<Value>>(&pipe, doing, limit).await {
                    Ok(all) => Answers { each: all.into_iter().map(Some).collect(), failure: None },
                    Err(why) => Answers { each: vec![None; count], failure: Some(why) },
                }
            }
            Nodes::Many(cluster) => cluster.send(&batch, doing, limit).await,
        }
    }

    /// As [`Nodes::send_parts`], all or nothing.
    pub(super) async fn send(
        &self,
        batch: Batch,
        doing: &'static str,
        limit: Duration,
    ) -> Result<Vec<Value>, BoardError> {
        let answers = self.send_parts(batch, doing, limit).await;
        match answers.failure {
            Some(why) => Err(why),
            None => Ok(answers.each.into_iter().flatten().collect()),
        }
    }

    /// A server to listen at, and its name; `turn` picks another one after a failure.
    pub(super) async fn ear(&self, turn: u32) -> Result<(Client, String), RedisError> {
        let client = match self {
            Nodes::One(link) => link.origin().server().await?,
            Nodes::Many(cluster) => Client::open(cluster.any(turn).await)?,
        };
        let name = client.get_connection_info().addr().to_string();
        Ok((client, name))
    }

    /// Looks whether the server of this name is still one of the board's. Connections that lead to
    /// others are ended.
    pub(super) async fn still_has(&self, name: &str) -> bool {
        match self {
            Nodes::One(link) => match link.origin() {
                Origin::Server(_) => true,
                origin @ Origin::Sentinels { .. } => {
                    let Ok(client) = origin.server().await else { return true };
                    let now = client.get_connection_info().addr().to_string();
                    link.only_to(&now).await;
                    now == name
                }
            },
            Nodes::Many(cluster) => {
                cluster.ask().await;
                let seen = cluster.seen();
                seen.map.is_empty() || seen.map.iter().any(|s| self::name(s) == name)
            }
        }
    }
}

/// Reads an answer as what it must be.
pub(super) fn read<T: FromRedisValue>(answer: Value, doing: &'static str) -> Result<T, BoardError> {
    T::from_redis_value(answer).map_err(|why| super::link::unreachable_board(doing, why.into()))
}

/// Who serves what, as one server has it.
async fn map_by(info: ConnectionInfo) -> Option<Vec<Stretch>> {
    let host = match info.addr() {
        ConnectionAddr::Tcp(host, _) => host.clone(),
        ConnectionAddr::TcpTls { .. } | ConnectionAddr::Unix(_) | _ => String::new(),
    };
    let question = async {
        let mut live = Client::open(info)?.get_multiplexed_async_connection().await?;
        ::redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(&mut live).await
    };
    let answer = tokio::time::timeout(ASK_DEADLINE, question).await;
    Some(slots::read(&answer.ok()?.ok()?, &host))
}

impl Cluster {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any server: a known master, or one of the seeds.
    async fn any(&self, turn: u32) -> ConnectionInfo {
        if self.seen().map.is_empty() {
            self.ask().await;
        }
        let mut all = self.known();
        let turn = usize::try_from(turn).unwrap_or(0) % all.len().max(1);
        all.swap_remove(turn)
    }

    /// Masters as last seen, then the seeds; each once.
    fn known(&self) -> Vec<ConnectionInfo> {
        let seen = self.seen();
        let greeting = self.seeds.first().map(|seed| seed.redis_settings().clone());
        let greeting = greeting.unwrap_or_default();
        let masters = seen.map.iter().filter_map(|s| elsewhere(&s.host, s.port, &greeting).ok());
        let mut all: Vec<ConnectionInfo> = masters.collect();
        all.extend(self.seeds.iter().cloned());
        let mut names = std::collections::BTreeSet::new();
        all.retain(|info| names.insert(info.addr().to_string()));
        all
    }

    /// Asks who serves what; one asks, the others take its answer.
    async fn ask(&self) {
        let mut asked = self.asking.lock().await;
        let now = self.clock.monotonic();
        if asked.is_some_and(|at| now.since(at) < ASK_PAUSE) {
            return;
        }
        let answers = join_all(self.known().into_iter().map(map_by)).await;
        // What most say: a server that is cut off from the others tells of the past.
        let mut votes = BTreeMap::<Vec<Stretch>, usize>::new();
        for map in answers.into_iter().flatten().filter(|map| !map.is_empty()) {
            *votes.entry(map).or_default() += 1;
        }
        if let Some((map, _)) = votes.into_iter().max_by_key(|(_, count)| *count) {
            self.learn(map);
        }
        *asked = Some(self.clock.monotonic());
    }

    fn learn(&self, map: Vec<Stretch>) {
        let greeting = self.seeds.first().map(|seed| seed.redis_settings().clone());
        let greeting = greeting.unwrap_or_default();
        let mut seen = self.seen();
        let mut links = BTreeMap::new();
        for stretch in &map {
            let name = name(stretch);
            let link = seen.links.get(&name).cloned().or_else(|| {
                let info = elsewhere(&stretch.host, stretch.port, &greeting).ok()?;
                let (clock, scripts) = (Arc::clone(&self.clock), Arc::clone(&self.scripts));
                Some(Arc::new(Link::new(Origin::Server(info), clock, scripts)))
            });
            if let Some(link) = link {
                links.insert(name, link);
            }
        }
        *seen = Seen { map, links };
    }

    /// Who holds what of these commands, by server; commands of slots nobody serves are missing.
    fn share_out(
        &self,
        batch: &Batch,
        open: &[usize],
    ) -> BTreeMap<String, (Arc<Link>, Vec<usize>)> {
        let seen = self.seen();
        let mut shares: BTreeMap<String, (Arc<Link>, Vec<usize>)> = BTreeMap::new();
        for &at in open {
            let Some(stretch) = slots::owner(&seen.map, batch.0[at].0) else { continue };
            let name = name(stretch);
            let Some(link) = seen.links.get(&name) else { continue };
            shares.entry(name).or_insert_with(|| (Arc::clone(link), Vec::new())).1.push(at);
        }
        shares
    }

    async fn send(&self, batch: &Batch, doing: &'static str, limit: Duration) -> Answers {
        let began = self.clock.monotonic();
        let mut each: Vec<Option<Value>> = vec![None; batch.0.len()];
        if self.seen().map.is_empty() {
            self.ask().await;
        }
        loop {
            let open: Vec<usize> = (0..each.len()).filter(|at| each[*at].is_none()).collect();
            let left = limit.saturating_sub(self.clock.monotonic().since(began));
            let shares = self.share_out(batch, &open);
            let served: usize = shares.values().map(|(_, share)| share.len()).sum();
            let asked = shares.into_values().map(|(link, share)| async move {
                let mut pipe = ::redis::Pipeline::with_capacity(share.len());
                for at in &share {
                    pipe.add_command(batch.0[*at].1.clone());
                }
                (link.send::<Vec<Value>>(&pipe, doing, left).await, share)
            });
            let (mut failure, mut again) = (None, false);
            for (outcome, share) in join_all(asked).await {
                match outcome {
                    Ok(values) => {
                        share.into_iter().zip(values).for_each(|(at, v)| each[at] = Some(v));
                    }
                    Err(why) => {
                        again |= is_moving(&why);
                        failure = failure.or(Some(why));
                    }
                }
            }
            if served < open.len() {
                again = true;
                let nobody = RedisError::from((ErrorKind::Io, "no server has these keys now"));
                failure = failure.or(Some(super::link::unreachable_board(doing, nobody)));
            }
            if failure.is_none() {
                return Answers { each, failure };
            }
            // Whatever failed, who serves what may be another now.
            self.ask().await;
            let spent = self.clock.monotonic().since(began);
            if !again || spent + TRY_PAUSE + CONNECT_DEADLINE / 4 > limit.min(CALL_DEADLINE) {
                return Answers { each, failure };
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
    }
}
