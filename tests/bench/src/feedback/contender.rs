//! Who competes: a proxy, its policy, and how its instances tell their loads.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::proxies::Kind;

/// Instances report so often, unless a contender says otherwise.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// One competitor: `KIND:POLICY[@WORD[=VALUE]]...`, where a word is `every=MS` (time between
/// reports), `late=MS` (reports tell what was true so long ago), `header` (loads come in answers
/// instead), `mute` (none come), `churn` (an instance starts or stops every 2 s) or `unready` (one
/// more instance is in the routes and does not listen).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// The proxy.
    pub kind: Kind,
    /// Its policy, in its own words.
    pub policy: String,
    /// Time between reports.
    pub every: Duration,
    /// Age of what they say.
    pub late: Duration,
    /// Loads come in answers.
    pub header: bool,
    /// None come at all.
    pub mute: bool,
    /// Instances come and go.
    pub churn: bool,
    /// One more is named that does not listen.
    pub unready: bool,
}

impl FromStr for Contender {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Contender> {
        let mut words = text.split('@');
        let (kind, policy) = words.next().unwrap_or("").split_once(':').context("KIND:POLICY")?;
        let known = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
        let mut contender = Contender {
            kind: known.with_context(|| format!("there is no proxy {kind:?}"))?,
            policy: policy.to_owned(),
            every: REPORT_EVERY,
            late: Duration::ZERO,
            header: policy == "client-side-weighted",
            mute: false,
            churn: false,
            unready: false,
        };
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let millis = || value.parse().map(Duration::from_millis).context(word.to_owned());
            match name {
                "every" => contender.every = millis()?,
                "late" => contender.late = millis()?,
                "header" => contender.header = true,
                "mute" => contender.mute = true,
                "churn" => contender.churn = true,
                "unready" => contender.unready = true,
                _ => bail!("what is {word:?} in {text:?}?"),
            }
        }
        Ok(contender)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.policy)?;
        if self.every != REPORT_EVERY {
            write!(f, "@every={}", self.every.as_millis())?;
        }
        if !self.late.is_zero() {
            write!(f, "@late={}", self.late.as_millis())?;
        }
        if self.header && self.kind == Kind::Tally {
            write!(f, "@header")?;
        }
        let words = [(self.mute, "mute"), (self.churn, "churn"), (self.unready, "unready")];
        for (_, word) in words.into_iter().filter(|(on, _)| *on) {
            write!(f, "@{word}")?;
        }
        Ok(())
    }
}

impl Contender {
    /// Whether it is our default as users get it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.to_string() == "tally:feedback"
    }

    /// Those who compete unless others are named.
    ///
    /// # Errors
    /// Never: the names are known.
    pub fn usual() -> Result<Vec<Contender>> {
        let names = [
            "tally:feedback",
            "tally:feedback@every=5000",
            "tally:feedback@header",
            "tally:peak-ewma",
            "tally:prequal",
            "tally:least-in-flight",
            "tally:p2c",
            "tally:round-robin",
            "tally:random",
            "tally:lowest-score",
            "haproxy:leastconn",
            "haproxy:random(2)",
            "nginx:random-two",
            "envoy:least-request",
            "envoy:client-side-weighted",
        ];
        names.iter().map(|name| name.parse()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_read_as_they_are_written() {
        for name in [
            "tally:feedback@every=5000@mute",
            "haproxy:random(2)",
            "tally:p2c@late=200",
            "tally:p2c@churn",
        ] {
            assert_eq!(name.parse::<Contender>().unwrap().to_string(), name);
        }
        assert!("tally:feedback".parse::<Contender>().unwrap().is_ours());
        assert!("envoy:client-side-weighted".parse::<Contender>().unwrap().header);
        assert!("ours:feedback".parse::<Contender>().is_err());
        assert!("tally:feedback@often".parse::<Contender>().is_err());
        assert!(Contender::usual().unwrap().len() > 10);
    }
}
