//! `route` of a service manifest, as written and as the checked `Route`.

use super::parse::ManifestError;
use super::service_spec::{LIST_MAX, bounded, is_request_path, secs, span, word};
use crate::quantity::{Percent, Q, Size, Time};
use domain::{
    Bytes, HashBy, HashRule, Hold, PolicyName, Probe, Route, RouteMode, ServiceName, Share, Sticky,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The tightest bound on hashed load: at the mean itself every key would be moved all the time.
const BALANCE_MIN: Share = Share::percent(101);
/// Longest name of a header or cookie.
const NAME_BYTES_MAX: usize = 128;

/// `route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct RouteManifest {
    /// Host names; default: the service's name and `NAME.localhost`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Path prefixes; default `/`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// `http` (default), `tcp`, `nat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Front port, for `tcp` and `nat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Default `feedback`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// For policy `hash`; default by source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashManifest>,
    /// Clients stay at their instance; default: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyManifest>,
    /// For policy `prequal`; default: nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeManifest>,
    /// Default 1GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_max: Option<Q<BodyMax>>,
    /// Bounds of what may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldManifest>,
}

/// `route.hash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct HashManifest {
    /// `source`, `header`, `cookie`, `path`, `host`.
    pub by: String,
    /// Of the header or cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Default 125%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Percent>,
}

/// `route.sticky`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct StickyManifest {
    /// The cookie's name.
    pub cookie: String,
    /// Default: as long as the client's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Time>,
}

/// `route.probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct ProbeManifest {
    /// HTTP path.
    pub path: String,
}

/// `route.hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct HoldManifest {
    /// Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Default 64MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
    /// Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

/// A bound on bodies: a size, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyMax(pub Option<Bytes>);

impl FromStr for BodyMax {
    type Err = domain::UnitError;
    fn from_str(text: &str) -> Result<BodyMax, Self::Err> {
        if text == "none" { Ok(BodyMax(None)) } else { text.parse().map(|max| BodyMax(Some(max))) }
    }
}

impl fmt::Display for BodyMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("none"),
            Some(max) => max.fmt(f),
        }
    }
}

pub(super) fn route(m: Option<&RouteManifest>, name: &ServiceName) -> Result<Route, ManifestError> {
    let m = m.cloned().unwrap_or_default();
    check_names(&m)?;
    let mode = word(
        "/route/mode",
        m.mode.as_deref(),
        &[("http", RouteMode::Http), ("tcp", RouteMode::Tcp), ("nat", RouteMode::Nat)],
        RouteMode::Http,
    )?;
    if mode != RouteMode::Http && m.port.is_none() {
        return Err(ManifestError::at("/route/port", "modes tcp and nat need a front port"));
    }
    if m.port == Some(0) {
        return Err(ManifestError::at("/route/port", "must be 1 to 65535"));
    }
    let policy = m.policy.as_deref().map_or(Ok(PolicyName::default()), str::parse);
    let policy = policy.map_err(|e| ManifestError::at("/route/policy", e))?;
    let hosts = if m.hosts.is_empty() {
        // A service is reachable by its name from the first minute, without a declared host.
        vec![name.to_string(), format!("{name}.localhost")]
    } else {
        m.hosts.iter().map(|h| h.to_ascii_lowercase()).collect()
    };
    Ok(Route {
        hosts,
        paths: if m.paths.is_empty() { vec!["/".to_owned()] } else { m.paths.clone() },
        mode,
        port: m.port,
        policy,
        hash: hash(m.hash.as_ref(), policy, mode)?,
        sticky: m.sticky.as_ref().map(|sticky| self::sticky(sticky, mode)).transpose()?,
        probe: m.probe.as_ref().map(|probe| self::probe(probe, policy)).transpose()?,
        body_max: m.body_max.map_or(Some(Route::BODY_MAX_DEFAULT), |q| q.0.0),
        hold: hold(m.hold.as_ref())?,
    })
}

fn check_names(m: &RouteManifest) -> Result<(), ManifestError> {
    bounded("/route/hosts", m.hosts.len(), LIST_MAX)?;
    bounded("/route/paths", m.paths.len(), LIST_MAX)?;
    for (i, host) in m.hosts.iter().enumerate() {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
        if host.is_empty() || host.len() > 253 || !host.chars().all(right) {
            let detail = "must be a host name, without scheme, port or path";
            return Err(ManifestError::at(format!("/route/hosts/{i}"), detail));
        }
    }
    for (i, path) in m.paths.iter().enumerate() {
        if !path.starts_with('/') || path.len() > 1024 {
            let detail = "must be a path prefix that starts with '/'";
            return Err(ManifestError::at(format!("/route/paths/{i}"), detail));
        }
    }
    Ok(())
}

/// Whether a text can be the name of a header or a cookie.
fn is_token(text: &str) -> bool {
    let right = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(right)
}

fn hash(
    m: Option<&HashManifest>,
    policy: PolicyName,
    mode: RouteMode,
) -> Result<HashRule, ManifestError> {
    let default = HashRule::default();
    let Some(m) = m else { return Ok(default) };
    if policy != PolicyName::Hash {
        return Err(ManifestError::at("/route/hash", "has a meaning only with policy: hash"));
    }
    let named = matches!(m.by.as_str(), "header" | "cookie");
    match &m.name {
        None if named => {
            let detail = format!("is missing; by: {} needs its name", m.by);
            return Err(ManifestError::at("/route/hash/name", detail));
        }
        Some(name) if named && !is_token(name) => {
            let detail = "must be the name of a header or cookie";
            return Err(ManifestError::at("/route/hash/name", detail));
        }
        Some(_) if !named => {
            let detail = "has a meaning only with by: header or by: cookie";
            return Err(ManifestError::at("/route/hash/name", detail));
        }
        Some(_) | None => {}
    }
    let name = m.name.as_ref().map(|name| {
        // Names of headers are the same in any case, names of cookies are not.
        if m.by == "header" { name.to_ascii_lowercase() } else { name.clone() }
    });
    let by = HashBy::from_parts(&m.by, name).ok_or_else(|| {
        let detail = "must be one of source, header, cookie, path, host";
        ManifestError::at("/route/hash/by", detail)
    })?;
    if mode != RouteMode::Http && by != HashBy::Source {
        let detail = "must be source: modes tcp and nat see nothing else of a request";
        return Err(ManifestError::at("/route/hash/by", detail));
    }
    let balance = m.balance.map_or(default.balance, |q| q.0);
    if balance < BALANCE_MIN {
        let detail = format!("must be at least {BALANCE_MIN} of the mean");
        return Err(ManifestError::at("/route/hash/balance", detail));
    }
    Ok(HashRule { by, balance })
}

fn sticky(m: &StickyManifest, mode: RouteMode) -> Result<Sticky, ManifestError> {
    if mode != RouteMode::Http {
        let detail = "needs mode http; policy hash keeps clients at an instance in other modes";
        return Err(ManifestError::at("/route/sticky", detail));
    }
    if !is_token(&m.cookie) {
        return Err(ManifestError::at("/route/sticky/cookie", "must be the name of a cookie"));
    }
    let max_age = m.max_age.map(|q| q.0.0);
    if max_age.is_some_and(|age| age < secs(1)) {
        return Err(ManifestError::at("/route/sticky/max_age", "must be at least 1s"));
    }
    Ok(Sticky { cookie: m.cookie.clone(), max_age })
}

fn probe(m: &ProbeManifest, policy: PolicyName) -> Result<Probe, ManifestError> {
    if policy != PolicyName::Prequal {
        return Err(ManifestError::at("/route/probe", "has a meaning only with policy: prequal"));
    }
    if !is_request_path(&m.path) {
        return Err(ManifestError::at("/route/probe/path", "must be a path that starts with '/'"));
    }
    Ok(Probe { path: m.path.clone() })
}

fn hold(m: Option<&HoldManifest>) -> Result<Hold, ManifestError> {
    let (m, d) = (m.cloned().unwrap_or_default(), Hold::default());
    let hold = Hold {
        requests: m.requests.unwrap_or(d.requests),
        bytes: m.bytes.map_or(d.bytes, |q| q.0),
        deadline: span(m.deadline, d.deadline),
    };
    if hold.deadline > secs(3600) {
        return Err(ManifestError::at("/route/hold/deadline", "must be at most 1h"));
    }
    Ok(hold)
}
