//! The rarer flags of `tally proxy`: keys, cookies, probes, and bounds.

use super::usage;
use balancer::Limits;
use clap::Args;
use domain::{HashBy, HashRule, Hold, Probe, Sticky, units};
use std::time::Duration;
use wire::quantity::Q;

/// See the help of each.
#[derive(Debug, Clone, Args)]
pub struct MoreArgs {
    /// For policy hash, what decides: source, path, host, header:NAME or cookie:NAME.
    #[arg(long, value_name = "KEY", default_value = "source")]
    pub hash: String,
    /// Clients stay at their instance by a cookie of this name.
    #[arg(long, value_name = "COOKIE")]
    pub sticky: Option<String>,
    /// For policy prequal, the path that answers with requests in flight and latency.
    #[arg(long, value_name = "PATH")]
    pub probe: Option<String>,
    /// How long the share of a new instance grows.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub slow_start: String,
    /// How long a request waits at most while every instance is full [default: 30s].
    #[arg(long, value_name = "TIME")]
    pub hold: Option<String>,
    /// The largest body of a request, such as 10MiB [default: 16GiB].
    #[arg(long, value_name = "SIZE")]
    pub body_max: Option<String>,
    /// A limit of the front door: KEY=VALUE, such as connections=1000, head_time=5s or
    /// slow_rate=1KiB; all of them are in docs/operations.md. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub limit: Vec<String>,
    /// The access log's form: json or common.
    #[arg(long, value_name = "FORM", default_value = "json", value_parser = ["json", "common"])]
    pub log_format: String,
}

/// Those flags, read.
#[derive(Debug, Clone)]
pub struct More {
    pub hash: HashRule,
    pub sticky: Option<Sticky>,
    pub probe: Option<Probe>,
    pub slow_start: Duration,
    pub hold: Hold,
    pub limits: Limits,
}

impl MoreArgs {
    /// Reads what clap cannot.
    ///
    /// # Errors
    /// Usage errors: which flag, and what to write.
    pub fn checked(&self) -> anyhow::Result<More> {
        if self.probe.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(usage("--probe: must be a path that begins with /, such as /load"));
        }
        let mut hold = Hold::default();
        if let Some(text) = &self.hold {
            hold.deadline = span("--hold", text)?;
        }
        let mut limits = self.limits()?;
        if let Some(text) = &self.body_max {
            limits.body = text.parse().map(Q).map_err(|why| usage(format!("--body-max: {why}")))?;
        }
        Ok(More {
            hash: self.rule()?,
            sticky: self.sticky()?,
            probe: self.probe.clone().map(|path| Probe { path }),
            slow_start: span("--slow-start", &self.slow_start)?,
            hold,
            limits,
        })
    }

    fn rule(&self) -> anyhow::Result<HashRule> {
        let (by, name) = match self.hash.split_once(':') {
            Some((by, name)) => (by, Some(name.to_ascii_lowercase()).filter(|n| is_token(n))),
            None => (self.hash.as_str(), None),
        };
        // A cookie's name keeps its case.
        let name = match by {
            "cookie" => {
                self.hash.split_once(':').map(|(_, n)| n.to_owned()).filter(|n| is_token(n))
            }
            _ => name,
        };
        let by = HashBy::from_parts(by, name).ok_or_else(|| {
            usage("--hash: must be source, path, host, header:NAME or cookie:NAME")
        })?;
        Ok(HashRule { by, ..HashRule::default() })
    }

    fn sticky(&self) -> anyhow::Result<Option<Sticky>> {
        match &self.sticky {
            Some(cookie) if !is_token(cookie) => {
                Err(usage("--sticky: a cookie's name is letters, digits, - and _"))
            }
            Some(cookie) => Ok(Some(Sticky { cookie: cookie.clone(), max_age: None })),
            None => Ok(None),
        }
    }

    /// The limits, read by the same rules as the configuration's.
    fn limits(&self) -> anyhow::Result<Limits> {
        let mut keys = serde_json::Map::new();
        for pair in &self.limit {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| usage("--limit: must be KEY=VALUE"))?;
            let value = match (value.parse::<u64>(), value) {
                (Ok(n), _) => n.into(),
                (_, "true") => true.into(),
                (_, "false") => false.into(),
                (Err(_not_a_number), text) => text.into(),
            };
            keys.insert(key.to_owned(), value);
        }
        serde_json::from_value(keys.into()).map_err(|why| usage(format!("--limit: {why}")))
    }
}

fn span(flag: &str, text: &str) -> anyhow::Result<Duration> {
    units::parse_duration(text).map_err(|why| usage(format!("{flag}: {why}")))
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        more: MoreArgs,
    }

    fn read(words: &str) -> anyhow::Result<More> {
        let words = std::iter::once("x").chain(words.split_whitespace());
        Line::try_parse_from(words)?.more.checked()
    }

    #[test]
    fn flags_become_what_the_balancer_knows() {
        let plain = read("").unwrap();
        assert_eq!((plain.hash, plain.limits), (HashRule::default(), Limits::default()));
        let more = read(
            "--hash cookie:Cart --sticky seat --probe /load --hold 5s --slow-start 0s \
             --body-max 10MiB --limit connections=100 --limit head_time=5s",
        )
        .unwrap();
        assert_eq!(more.hash.by, HashBy::Cookie("Cart".to_owned()));
        assert_eq!(more.limits.connections, 100);
        assert_eq!(more.limits.body.0.0, 10 << 20);
        assert_eq!(more.hold.deadline, Duration::from_secs(5));
        assert_eq!(more.limits.head_time.0.0, Duration::from_secs(5));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [
            "--hash nonsense",
            "--hash header:",
            "--sticky a;b",
            "--probe load",
            "--hold 5",
            "--body-max 10",
            "--limit connections",
            "--limit nonsense=1",
            "--limit head_time=5",
        ] {
            assert!(read(words).is_err(), "{words}");
        }
    }
}
