//! Where the board is: one address for a Redis alone, behind Sentinels, or as a Cluster.

use crate::board::BoardError;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisResult,
};
use std::time::Duration;

/// Bytes sent and not acknowledged for this long end a connection whose peer is gone.
const TCP_GIVE_UP: Duration = Duration::from_secs(3);
/// Hosts read of one address: more is a mistake.
const HOSTS_MAX: usize = 32;
/// Ports where none is written.
const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

const FORMS: &str = "write redis://HOST:PORT/DB, unix:///PATH, \
    redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT, \
    with USER:PASSWORD@ before the first host where Redis asks for one";

/// What the address says.
#[derive(Debug, Clone)]
pub(super) enum Address {
    /// One server.
    Alone(ConnectionInfo),
    /// The server that Sentinels name as the master.
    Sentinel {
        /// The Sentinels.
        sentinels: Vec<ConnectionInfo>,
        /// The master's name among them.
        master: String,
        /// How to greet the master.
        greeting: RedisConnectionInfo,
    },
    /// Several servers that share the keys.
    Cluster {
        /// Those to ask first.
        seeds: Vec<ConnectionInfo>,
    },
}

/// Why an address cannot be one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}; {FORMS}")]
pub struct AddressError(String);

fn bad(detail: impl Into<String>) -> AddressError {
    AddressError(detail.into())
}

/// Connection settings that end what hangs.
pub(super) fn settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_user_timeout(TCP_GIVE_UP)
}

/// Reads the board's address.
///
/// # Errors
/// [`BoardError::Address`], with the forms there are.
pub(super) fn read(url: &str) -> Result<Address, BoardError> {
    parse(url).map_err(BoardError::Address)
}

fn parse(url: &str) -> Result<Address, AddressError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(bad("the address of the scoreboard has no scheme"));
    };
    match scheme {
        "redis" | "valkey" if rest.split('/').next().is_some_and(|hosts| hosts.contains(',')) => {
            Err(bad("several hosts are Sentinels or a Cluster; say which"))
        }
        "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => {
            let info = url.into_connection_info().map_err(|why| bad(plain(&why)))?;
            Ok(Address::Alone(info.set_tcp_settings(settings())))
        }
        "redis+sentinel" | "valkey+sentinel" => sentinel(rest),
        "redis+cluster" | "valkey+cluster" => cluster(rest),
        "rediss" | "valkeys" => Err(bad(
            "TLS to the scoreboard comes later; until then use a private network or a tunnel",
        )),
        other => Err(bad(format!("the scheme {other:?} is not known"))),
    }
}

/// What the client says of an address, without its own name for the kind of error.
fn plain(why: &::redis::RedisError) -> String {
    let text = why.to_string();
    text.split(" - ").next().unwrap_or(&text).to_owned()
}

/// `[USER:PASSWORD@]HOST[:PORT],...` as connections; the credentials are everybody's.
fn hosts(authority: &str, port: u16, db: &str) -> Result<Vec<ConnectionInfo>, AddressError> {
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > HOSTS_MAX {
        return Err(bad(format!("{} hosts are more than {HOSTS_MAX}", hosts.len())));
    }
    let one = |host: &&str| {
        let without_port = !host.contains(':') || host.ends_with(']');
        if host.is_empty() {
            return Err(bad("a host is missing"));
        }
        let port = if without_port { format!(":{port}") } else { String::new() };
        let info = format!("redis://{user}{host}{port}/{db}").into_connection_info();
        let info = info.map_err(|why| bad(format!("{host}: {}", plain(&why))))?;
        Ok(info.set_tcp_settings(settings()))
    };
    hosts.iter().map(one).collect()
}

fn sentinel(rest: &str) -> Result<Address, AddressError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (master, db) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(bad("the master's name is missing: ask a Sentinel with `sentinel masters`"));
    }
    let infos = hosts(authority, SENTINEL_PORT, db)?;
    let greeting = infos.first().map(|info| info.redis_settings().clone()).unwrap_or_default();
    // Sentinels have no databases; they are greeted with the credentials where there are any.
    let sentinels = infos
        .into_iter()
        .map(|info| {
            let greeting = info.redis_settings().clone().set_db(0);
            info.set_redis_settings(greeting)
        })
        .collect();
    Ok(Address::Sentinel { sentinels, master: master.to_owned(), greeting })
}

fn cluster(rest: &str) -> Result<Address, AddressError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path, "" | "0") {
        return Err(bad("a Cluster has no databases"));
    }
    Ok(Address::Cluster { seeds: hosts(authority, REDIS_PORT, "")? })
}

/// A connection to `host` and `port`, greeted as others are.
pub(super) fn elsewhere(
    host: &str,
    port: u16,
    greeting: &RedisConnectionInfo,
) -> RedisResult<ConnectionInfo> {
    let info = ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info()?;
    Ok(info.set_tcp_settings(settings()).set_redis_settings(greeting.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        let each = |all: &[ConnectionInfo]| {
            let one = |info: &ConnectionInfo| {
                let user = info.redis_settings().username().unwrap_or("-");
                let password = info.redis_settings().password().unwrap_or("-");
                format!("{user}:{password}@{}", info.addr())
            };
            all.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        match parse(url) {
            Ok(Address::Alone(info)) => {
                format!(
                    "alone {} db {}",
                    each(std::slice::from_ref(&info)),
                    info.redis_settings().db()
                )
            }
            Ok(Address::Sentinel { sentinels, master, greeting }) => {
                format!("sentinel {} master {master} db {}", each(&sentinels), greeting.db())
            }
            Ok(Address::Cluster { seeds }) => format!("cluster {}", each(&seeds)),
            Err(why) => why.0,
        }
    }

    #[test]
    fn every_form_is_read() {
        let table = [
            ("redis://h:1/2", "alone -:-@h:1 db 2"),
            ("valkey://h", "alone -:-@h:6379 db 0"),
            ("redis://u:p%40q@[::1]:7/0", "alone u:p@q@::1:7 db 0"),
            ("unix:///run/redis.sock?db=3", "alone -:-@/run/redis.sock db 3"),
            ("redis+sentinel://a:1,b/main", "sentinel -:-@a:1 -:-@b:26379 master main db 0"),
            ("redis+sentinel://:s@[::1],b/m/4", "sentinel -:s@::1:26379 -:s@b:26379 master m db 4"),
            ("redis+cluster://u:p@a:1,b,c:3", "cluster u:p@a:1 u:p@b:6379 u:p@c:3"),
            ("valkey+cluster://a/", "cluster -:-@a:6379"),
        ];
        for (url, wanted) in table {
            assert_eq!(shown(url), wanted, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        let table = [
            ("", "no scheme"),
            ("localhost:6379", "no scheme"),
            ("http://h", "\"http\" is not known"),
            ("rediss://h", "TLS"),
            ("valkeys://h", "TLS"),
            ("redis://a,b", "say which"),
            ("redis://h/x", "database"),
            ("redis+sentinel://a:1", "the master's name is missing"),
            ("redis+sentinel://a:1,/m", "a host is missing"),
            ("redis+sentinel://a:x/m", "a:x"),
            ("redis+cluster://a/3", "no databases"),
        ];
        for (url, wanted) in table {
            let why = parse(url).expect_err(url).to_string();
            assert!(why.contains(wanted) && why.contains("redis+cluster://"), "{url}: {why}");
        }
        let secret = parse("redis+sentinel://u:secret@a:x/m").expect_err("no port").to_string();
        assert!(!secret.contains("secret"), "{secret}");
        assert!(shown(&format!("redis+cluster://{}a", "a,".repeat(40))).contains("more than"));
    }
}
