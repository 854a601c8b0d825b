//! Which instance a request gets, as the request path asks for it: by the service's policy, by what
//! the request is hashed by, by the cookie that ties a client to its instance.

use crate::outcome::AtInstance;
use crate::picks;
use crate::view::Snapshot;
use crate::worker::{Local, Worker};
use domain::{HashBy, HashRule, Mono, Sticky};
use picker::prequal::PROBES_PER_PICK;
use picker::{Ask, NoPick, Picker, Probe, hash};
use std::net::IpAddr;
use std::rc::Rc;

/// Digits of an instance's key in a cookie.
const KEY_DIGITS: usize = 16;

/// What a request says that may decide where it goes.
pub trait Said {
    /// The client's address.
    fn source(&self) -> IpAddr;
    /// The path, without its query.
    fn path(&self) -> &[u8];
    /// The host the request is for.
    fn host(&self) -> &[u8];
    /// The value of the first header of this name, which is lower case.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// What one request wishes of a pick. The default wishes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// What it is hashed by.
    pub key: Option<u64>,
    /// The instance its client is tied to, by its key.
    pub stay: Option<u64>,
    /// The serial of an instance that just failed it.
    pub avoid: Option<u64>,
}

impl Wish {
    /// Reads the wish out of a request; cheap where the service declared nothing of the kind.
    #[must_use]
    pub fn of(local: &Local, said: &impl Said) -> Wish {
        let front = local.service.front.load();
        let hashed = front.policy == domain::PolicyName::Hash;
        let key = if hashed { key(&front.hash, said) } else { None };
        let stay = front.sticky.as_ref().and_then(|sticky| {
            let cookies = said.header("cookie")?;
            read_key(cookie(cookies, sticky.cookie.as_bytes())?)
        });
        Wish { key, stay, avoid: None }
    }
}

/// The wish of a connection, of which nothing is known but where it comes from.
#[must_use]
pub fn wish_of_connection(local: &Local, source: Option<IpAddr>) -> Wish {
    let hashed = local.service.front.load().policy == domain::PolicyName::Hash;
    Wish { key: source.filter(|_| hashed).map(source_key), ..Wish::default() }
}

/// What a request is hashed by; `None` when it does not say.
fn key(rule: &HashRule, said: &impl Said) -> Option<u64> {
    Some(match &rule.by {
        HashBy::Source => source_key(said.source()),
        HashBy::Path => hash::key(said.path()),
        HashBy::Host => hash::key(&said.host().to_ascii_lowercase()),
        HashBy::Header(name) => hash::key(said.header(name)?),
        HashBy::Cookie(name) => hash::key(cookie(said.header("cookie")?, name.as_bytes())?),
    })
}

/// What a client is hashed by, in every mode.
fn source_key(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(v4) => hash::key(&v4.octets()),
        IpAddr::V6(v6) => hash::key(&v6.octets()),
    }
}

/// The value of a cookie among all of a request's.
fn cookie<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name)?.strip_prefix(b"=")
    })
}

fn read_key(text: &[u8]) -> Option<u64> {
    let right = text.len() == KEY_DIGITS && text.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(text).ok().filter(|_| right)?;
    u64::from_str_radix(text, 16).ok()
}

impl Local {
    /// The place in the snapshot of the instance for one more request or connection, which is not
    /// counted in yet.
    ///
    /// # Errors
    /// [`NoPick`], when no instance can take it now.
    pub fn place(
        &self,
        snapshot: &Snapshot,
        worker: &Worker,
        wish: &Wish,
        now: Mono,
    ) -> Result<usize, NoPick> {
        let ask = Ask {
            policy: snapshot.policy,
            key: wish.key,
            stay: wish.stay.and_then(|key| snapshot.place(key)),
            avoid: wish.avoid.and_then(|serial| place_of(snapshot, serial)),
        };
        let mut picker = self.picker.borrow_mut();
        if snapshot.field.probed {
            self.take_probes(snapshot, worker, &mut picker);
        }
        let index = picker.pick(&ask, snapshot, &snapshot.field, now)?;
        let wall = || worker.shared.clock.now();
        picks::explain(self, &picker, snapshot, index, (&wall, now));
        if let Some(reported) = snapshot.entries[index].newest() {
            self.service.stats[worker.index].used_report(now.since(reported.at));
        }
        Ok(index)
    }

    /// Takes the answers to probes that came since the last pick, and wishes for more.
    fn take_probes(&self, snapshot: &Snapshot, worker: &Worker, picker: &mut Picker) {
        let desk = &self.service.desks[worker.index];
        let (count, places) = desk.news(self.probes_seen.get());
        for index in places {
            let Some(entry) = snapshot.entries.get(index) else { continue };
            if let Some((in_flight, latency, at)) = entry.instance.last_probe() {
                let key = entry.instance.key;
                let probe = Probe { key, index, in_flight, latency, at };
                picker.probed(probe, &snapshot.field);
            }
        }
        self.probes_seen.set(count);
        desk.want(PROBES_PER_PICK);
    }

    /// Picks an instance for one more request that arrived then, and counts it in there.
    ///
    /// # Errors
    /// [`NoPick`], when no instance can take it now.
    pub fn choose(
        self: &Rc<Local>,
        worker: &Rc<Worker>,
        wish: &Wish,
        arrived: Mono,
        now: Mono,
    ) -> Result<AtInstance, NoPick> {
        let snapshot = self.service.snapshot.load();
        let index = self.place(&snapshot, worker, wish, now)?;
        let entry = &snapshot.entries[index];
        AtInstance::enter(worker, self, entry, arrived, now).ok_or(NoPick::Full)
    }

    /// The value of a `Set-Cookie` that ties the client to the instance which answers; `None` when
    /// the service is not sticky, or the client's own tie still holds: an instance that was only
    /// full is gone back to.
    #[must_use]
    pub fn tie(&self, wish: &Wish, answering: u64) -> Option<String> {
        let front = self.service.front.load();
        let sticky = front.sticky.as_ref()?;
        let snapshot = self.service.snapshot.load();
        let holds = wish.stay.is_some_and(|key| {
            key == answering
                || snapshot.place(key).is_some_and(|place| snapshot.entries[place].stands())
        });
        (!holds).then(|| set_cookie(sticky, answering))
    }
}

fn place_of(snapshot: &Snapshot, serial: u64) -> Option<usize> {
    snapshot.entries.iter().position(|entry| entry.instance.serial == serial)
}

fn set_cookie(sticky: &Sticky, key: u64) -> String {
    let mut text = format!("{}={key:016x}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie);
    if let Some(age) = sticky.max_age {
        text.push_str(&format!("; Max-Age={}", age.as_secs()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Request;

    impl Said for Request {
        fn source(&self) -> IpAddr {
            "::ffff:10.0.0.1".parse().unwrap()
        }
        fn path(&self) -> &[u8] {
            b"/a"
        }
        fn host(&self) -> &[u8] {
            b"Shop.Example"
        }
        fn header(&self, name: &str) -> Option<&[u8]> {
            match name {
                "cookie" => Some(b"a=1; shop=00000000000000ff;b=2"),
                "x-user" => Some(b"ada"),
                _ => None,
            }
        }
    }

    fn key_by(by: HashBy) -> Option<u64> {
        key(&HashRule { by, ..HashRule::default() }, &Request)
    }

    #[test]
    fn a_request_is_hashed_by_what_was_declared() {
        assert_eq!(key_by(HashBy::Source), Some(hash::key(&[10, 0, 0, 1])), "as over IPv4");
        assert_eq!(key_by(HashBy::Path), Some(hash::key(b"/a")));
        assert_eq!(key_by(HashBy::Host), Some(hash::key(b"shop.example")));
        assert_eq!(key_by(HashBy::Header("x-user".into())), Some(hash::key(b"ada")));
        assert_eq!(key_by(HashBy::Cookie("b".into())), Some(hash::key(b"2")));
        assert_eq!(key_by(HashBy::Cookie("c".into())), None);
    }

    #[test]
    fn a_cookie_is_found_and_read_strictly() {
        let find = |name: &[u8]| cookie(b"a=1; shop=00000000000000ff;b=2;shopx=3", name);
        assert_eq!(find(b"shop").and_then(read_key), Some(255));
        assert_eq!(find(b"hop"), None);
        for bad in [&b"ff"[..], b"", b"00000000000000fg", b"+0000000000000ff", b"\xff"] {
            assert_eq!(read_key(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tie_is_a_cookie() {
        let mut sticky = Sticky { cookie: "shop".into(), max_age: None };
        assert_eq!(
            set_cookie(&sticky, 255),
            "shop=00000000000000ff; Path=/; HttpOnly; SameSite=Lax"
        );
        sticky.max_age = Some(Duration::from_secs(3600));
        assert!(set_cookie(&sticky, 255).ends_with("; Max-Age=3600"));
    }
}
