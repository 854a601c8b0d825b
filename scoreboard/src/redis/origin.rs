//! Which server to speak to: the one that was named, or the one that Sentinels name now.

use super::address::elsewhere;
use ::redis::{
    Client, ConnectionInfo, ErrorKind, RedisConnectionInfo, RedisError, RedisResult, Value,
};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// A Sentinel answers from memory; one that is away must not use up the time to connect.
const ASK_DEADLINE: Duration = Duration::from_millis(300);

/// Where a connection leads.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Always the same server.
    Server(ConnectionInfo),
    /// Whoever is the master.
    Sentinels {
        /// Who knows.
        sentinels: Vec<ConnectionInfo>,
        /// The master's name there.
        master: String,
        /// How to greet it.
        greeting: RedisConnectionInfo,
    },
}

fn not_now(what: &'static str, detail: String) -> RedisError {
    RedisError::from((ErrorKind::Io, what, detail))
}

impl Origin {
    /// The server to connect to now.
    pub(super) async fn server(&self) -> RedisResult<Client> {
        match self {
            Origin::Server(info) => Client::open(info.clone()),
            Origin::Sentinels { sentinels, master, greeting } => {
                let (host, port) = self.elected(sentinels, master).await?;
                Client::open(elsewhere(&host, port, greeting)?)
            }
        }
    }

    /// What most Sentinels say: one that is cut off from the others tells of the past.
    async fn elected(
        &self,
        sentinels: &[ConnectionInfo],
        master: &str,
    ) -> RedisResult<(String, u16)> {
        let answers = join_all(sentinels.iter().map(|sentinel| async {
            match timeout(ASK_DEADLINE, ask(sentinel, master)).await {
                Ok(answer) => answer,
                Err(_elapsed) => Err(not_now("no answer", sentinel.addr().to_string())),
            }
        }));
        let (mut votes, mut failure) = (BTreeMap::<(String, u16), usize>::new(), None);
        for answer in answers.await {
            match answer {
                Ok(named) => *votes.entry(named).or_default() += 1,
                Err(why) => failure = Some(why),
            }
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(named, _)| named).ok_or_else(|| {
            failure.unwrap_or_else(|| not_now("no Sentinel knows the master", master.to_owned()))
        })
    }

    /// Whether the answer of a freshly connected server makes it the right one. A server that
    /// Sentinels name may not know yet that it is the master.
    pub(super) async fn greet(
        &self,
        live: &mut ::redis::aio::MultiplexedConnection,
    ) -> RedisResult<()> {
        if let Origin::Server(_) = self {
            return Ok(());
        }
        let role: Vec<Value> = ::redis::cmd("ROLE").query_async(live).await?;
        match role.first() {
            Some(Value::BulkString(name)) if name == b"master" => Ok(()),
            _ => Err(not_now("the server that Sentinels name is no master", String::new())),
        }
    }
}

/// Asks one Sentinel. Those that know no password are asked without one.
async fn ask(sentinel: &ConnectionInfo, master: &str) -> RedisResult<(String, u16)> {
    let first = ask_as(sentinel.clone(), master).await;
    let refused = |why: &RedisError| {
        let text = why.to_string();
        why.kind() == ErrorKind::AuthenticationFailed || text.contains("AUTH")
    };
    match first {
        Err(why) if refused(&why) && sentinel.redis_settings().password().is_some() => {
            let bare = sentinel.clone().set_redis_settings(RedisConnectionInfo::default());
            ask_as(bare, master).await
        }
        other => other,
    }
}

async fn ask_as(sentinel: ConnectionInfo, master: &str) -> RedisResult<(String, u16)> {
    let mut live = Client::open(sentinel)?.get_multiplexed_async_connection().await?;
    let mut cmd = ::redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let named: Option<(String, u16)> = cmd.query_async(&mut live).await?;
    named.ok_or_else(|| not_now("a Sentinel knows no such master", master.to_owned()))
}
