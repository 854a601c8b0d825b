//! Asks the agents of instances for their lines, as `HAProxy` does, and turns what they say into
//! loads and terms.
//!
//! An agent that does not answer says nothing: after [`SILENT_AFTER`] intervals what it said is
//! forgotten, and its instance is used as configured. Several receivers may ask the same agents.

mod ask;
mod word;

use crate::admit::Sender;
use crate::decode::Candidate;
use crate::metrics::Counts;
use crate::receive::Receiver;
use crate::world::World;
use ask::{Silence, ask};
use chassis::Shutdown;
use domain::{Clock, InstanceId, LoadSource, Mono, Terms};
use scoreboard::Board;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use wire::agent::AgentLine;
use word::Word;

/// Agents asked at once: each is a connection of at most a second.
const ASKS_MAX: usize = 256;
/// How often is looked whom to ask next: half of the shortest interval that can be declared.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the list of agents is made anew.
const LIST_EVERY: Duration = Duration::from_millis(500);
/// Intervals without an answer after which an agent is silent: two may be lost.
const SILENT_AFTER: u32 = 3;
/// And no sooner than this: a restart of an agent is no news.
const SILENT_MIN: Duration = Duration::from_secs(3);
/// Terms that stand are told the board again this often; it forgets them after ten seconds.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// After a write the board did not take.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// An agent to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAt {
    /// Of which instance.
    pub instance: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
    /// How often it is asked.
    pub interval: Duration,
}

/// What is known of one agent.
struct Asked {
    at: AgentAt,
    due: Mono,
    asking: bool,
    word: Word,
    heard: Option<Mono>,
    unknown_told: bool,
    /// The terms the board was last told, and when it is to be told again.
    told: Terms,
    tell_at: Mono,
    /// The board did not take the last write: even news waits.
    refused: bool,
}

/// Who asks.
pub(crate) struct Asker {
    pub(crate) world: Arc<World>,
    pub(crate) receiver: Receiver,
    pub(crate) board: Arc<dyn Board>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counts: Counts,
}

type Answer = (InstanceId, Result<AgentLine, Silence>);

impl Asker {
    /// Asks until the shutdown starts.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut agents: BTreeMap<InstanceId, Asked> = BTreeMap::new();
        let mut asks: JoinSet<Answer> = JoinSet::new();
        let mut listed: Option<Mono> = None;
        while !shutdown.has_started() {
            let now = self.clock.monotonic();
            if listed.is_none_or(|at| now.since(at) >= LIST_EVERY) {
                listed = Some(now);
                self.list(&mut agents, now);
            }
            self.begin(&mut agents, &mut asks, now);
            self.tell(&mut agents, now).await;
            let pause = if agents.is_empty() { LIST_EVERY } else { LOOK_EVERY };
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(pause) => {}
            }
            while let Some(Ok((instance, answer))) = asks.try_join_next() {
                if let Some(agent) = agents.get_mut(&instance) {
                    self.take(agent, answer);
                }
            }
        }
    }

    /// Brings the list up to date. Who left takes its terms along; the board forgets them.
    fn list(&self, agents: &mut BTreeMap<InstanceId, Asked>, now: Mono) {
        let wanted = self.world.agents();
        let mut old = std::mem::take(agents);
        for at in wanted {
            let agent = match old.remove(&at.instance) {
                Some(mut agent) => {
                    agent.at = at;
                    agent
                }
                None => Asked {
                    at,
                    due: now,
                    asking: false,
                    word: Word::default(),
                    heard: None,
                    unknown_told: false,
                    told: Terms::AS_CONFIGURED,
                    tell_at: now,
                    refused: false,
                },
            };
            agents.insert(agent.at.instance.clone(), agent);
        }
    }

    fn begin(
        &self,
        agents: &mut BTreeMap<InstanceId, Asked>,
        asks: &mut JoinSet<Answer>,
        now: Mono,
    ) {
        for agent in agents.values_mut() {
            let silent_after = (agent.at.interval * SILENT_AFTER).max(SILENT_MIN);
            if agent.heard.is_some_and(|at| now.since(at) >= silent_after) {
                tracing::info!(instance = %agent.at.instance, "its agent is silent");
                (agent.heard, agent.word) = (None, Word::default());
            }
            if asks.len() < ASKS_MAX && !agent.asking && now >= agent.due {
                agent.asking = true;
                agent.due = Mono(now.0 + agent.at.interval);
                let AgentAt { instance, address, .. } = agent.at.clone();
                asks.spawn(async move { (instance, ask(address).await) });
            }
        }
    }

    fn take(&self, agent: &mut Asked, answer: Result<AgentLine, Silence>) {
        agent.asking = false;
        let line = match answer {
            Ok(line) => line,
            Err(silence) => {
                self.counts.asked(silence.label());
                tracing::debug!(instance = %agent.at.instance, %silence, "its agent says nothing");
                return;
            }
        };
        self.counts.asked("line");
        if !line.unknown.is_empty() {
            self.counts.asked("unknown_words");
            if !std::mem::replace(&mut agent.unknown_told, true) {
                let (instance, words) = (&agent.at.instance, &line.unknown);
                tracing::info!(%instance, ?words, "its agent says words that are not known");
            }
        }
        if agent.heard.replace(self.clock.monotonic()).is_none() {
            tracing::info!(instance = %agent.at.instance, %line, "its agent answers");
        }
        agent.word.hear(&line);
        let Some(load) = agent.word.load() else { return };
        let candidate = Candidate {
            service: agent.at.instance.service(),
            instance: agent.at.instance.clone(),
            load,
            clipped: false,
            in_flight: None,
            rps_milli: None,
            eps_milli: None,
            seq: None,
            token: None,
            source: LoadSource::Agent,
        };
        // We asked it ourselves, at the address of the routes.
        let ours = Sender { local: true, token: None };
        self.receiver.take(vec![Ok(candidate)], ours);
    }

    /// Tells the board what changed, and again what still stands.
    async fn tell(&self, agents: &mut BTreeMap<InstanceId, Asked>, now: Mono) {
        let mut told = Vec::new();
        for agent in agents.values_mut() {
            let terms = agent.word.terms();
            let due = now >= agent.tell_at;
            let news = terms != agent.told && (due || !agent.refused);
            if news || due && terms != Terms::AS_CONFIGURED {
                told.push((agent.at.instance.clone(), terms));
            }
        }
        if told.is_empty() {
            return;
        }
        let written = self.board.write_terms(&told).await;
        if let Err(why) = &written {
            let why = chassis::telemetry::Chain(why);
            tracing::debug!(%why, "the board took no terms");
        }
        for (instance, terms) in told {
            let Some(agent) = agents.get_mut(&instance) else { continue };
            agent.refused = written.is_err();
            if written.is_ok() {
                agent.told = terms;
            }
            agent.tell_at = Mono(now.0 + if written.is_ok() { RENEW_EVERY } else { RETRY_EVERY });
        }
    }
}
