//! Addresses of the command line: read, looked up, and named.

use super::usage;
use anyhow::Context;
use domain::id::{CROCKFORD, ID_RANDOM_CHARS};
use domain::{InstanceId, ServiceName};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// A name server that is asked answers within this, or is asked again later.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(5);
/// Most instances of one proxy: as many as a service may have.
const TARGETS_MAX: usize = 1000;

/// One `--to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    service: ServiceName,
    /// `HOST:PORT`.
    pub text: String,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its id: the same for the same address, wherever a proxy runs.
    pub instance: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
}

/// All instances, sorted by id.
pub type Found = Vec<Target>;

/// Looks names up.
pub struct Targets;

impl Targets {
    /// All addresses of all targets.
    ///
    /// # Errors
    /// When a name has no address.
    pub async fn look_up(wanted: &[Wanted]) -> anyhow::Result<Found> {
        let mut found = BTreeSet::new();
        for Wanted { service, text } in wanted {
            let addresses = resolve(text).await.with_context(|| {
                format!("--to {text}: no address; check the name, or write an address")
            })?;
            for address in addresses {
                found.insert(Target { instance: instance(service, address)?, address });
            }
        }
        if found.len() > TARGETS_MAX {
            anyhow::bail!("--to: {} addresses, more than {TARGETS_MAX}", found.len());
        }
        Ok(found.into_iter().collect())
    }
}

async fn resolve(text: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let looked_up = tokio::time::timeout(LOOK_UP_DEADLINE, tokio::net::lookup_host(text));
    let addresses: Vec<_> = looked_up.await.context("the name server does not answer")??.collect();
    if addresses.is_empty() {
        anyhow::bail!("the name has no address");
    }
    Ok(addresses)
}

/// The id of the instance at an address: ten characters of a hash of it.
fn instance(service: &ServiceName, address: SocketAddr) -> anyhow::Result<InstanceId> {
    // FNV-1a: spread, not secrecy, is what ids need.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in address.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The last bytes reach the low bits alone; what follows spreads them.
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 29;
    let mut part = String::with_capacity(ID_RANDOM_CHARS);
    for index in 0..ID_RANDOM_CHARS {
        let place = (hash >> (5 * index)) & 31;
        part.push(char::from(CROCKFORD[usize::try_from(place).unwrap_or(0)]));
    }
    Ok(format!("{service}-{part}").parse()?)
}

/// Reads one `--to`.
///
/// # Errors
/// Usage errors: what to write instead.
pub fn wanted(service: &ServiceName, to: &str) -> anyhow::Result<Wanted> {
    let bad =
        |why: &str| usage(format!("--to {to}: {why}; write HOST:PORT, such as 10.0.0.7:8080"));
    if to.starts_with("https://") {
        return Err(bad("instances are spoken to without TLS"));
    }
    let text = to.strip_prefix("http://").unwrap_or(to).trim_end_matches('/');
    if text.contains('/') {
        return Err(bad("an instance has no path"));
    }
    let text = match text.rsplit_once(':') {
        _ if text.parse::<SocketAddr>().is_ok() => text.to_owned(),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
            text.to_owned()
        }
        None if to.starts_with("http://") && !text.is_empty() => format!("{text}:80"),
        _ => return Err(bad("the port is missing or wrong")),
    };
    Ok(Wanted { service: service.clone(), text })
}

/// Reads `--from`.
///
/// # Errors
/// Usage errors: what to write instead.
pub async fn listen(text: &str) -> anyhow::Result<SocketAddr> {
    listen_at("--from", text).await
}

/// Reads an address to listen on: `HOST:PORT`, `:PORT` for every address, `PORT` for loopback.
///
/// # Errors
/// Usage errors: what to write instead.
pub async fn listen_at(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let all = text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = all {
        return Ok(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    let first = resolve(text).await.ok().and_then(|found| found.first().copied());
    first.ok_or_else(|| {
        usage(format!("{flag} {text}: no address to listen on; write HOST:PORT, :PORT or PORT"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        "proxy".parse().unwrap()
    }

    #[test]
    fn targets_are_read_as_people_write_them() {
        for (to, text) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("http://app:8080/", "app:8080"),
            ("http://app", "app:80"),
        ] {
            assert_eq!(wanted(&service(), to).unwrap().text, text);
        }
        for bad in ["app", "", ":80", "app:0", "app:x", "https://app:443", "http://app:80/x", "80"]
        {
            let why = wanted(&service(), bad).unwrap_err().to_string();
            assert!(why.contains("write HOST:PORT"), "{bad}: {why}");
        }
    }

    #[tokio::test]
    async fn an_address_has_the_same_id_everywhere() {
        let to = |text: &str| wanted(&service(), text).unwrap();
        let both = [to("127.0.0.1:9001"), to("127.0.0.1:9002"), to("127.0.0.1:9001")];
        let found = Targets::look_up(&both).await.unwrap();
        assert_eq!(found.len(), 2, "one address is one instance");
        let again = Targets::look_up(&both[..1]).await.unwrap();
        assert!(found.contains(&again[0]));
        assert_eq!(again[0].instance.service(), service());
        assert!(Targets::look_up(&[to("no-such-name.invalid:80")]).await.is_err());
    }

    #[tokio::test]
    async fn addresses_to_listen_on_may_be_short() {
        for (text, address) in
            [("80", "127.0.0.1:80"), (":80", "0.0.0.0:80"), ("127.0.0.2:0", "127.0.0.2:0")]
        {
            assert_eq!(listen(text).await.unwrap(), address.parse().unwrap());
        }
        assert!(listen("nothing").await.is_err());
    }
}
