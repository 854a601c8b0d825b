//! Who may say what: known by token or by place, newer than before, of a source that counts.

use crate::decode::Candidate;
use crate::refusal::Refusal;
use crate::world::{Standing, World};
use chassis::Identity;
use domain::{Clock, InstanceId, LoadReport, Mono, ServiceName};
use scoreboard::board::LOAD_TTL;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Instances whose last number is remembered: the size of a cell. Beyond it the board alone refuses
/// replays.
pub const NUMBERS_MAX: usize = 150_000;

/// Where a report came from.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// From this host: loopback or a unix socket.
    pub local: bool,
    /// The token of the whole message.
    pub token: Option<&'a str>,
}

/// What becomes of an admitted report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the board.
    Record(LoadReport),
    /// Taken, but another source speaks for this revision.
    Outranked,
}

/// Numbers of the last reports, oldest forgotten first.
#[derive(Debug, Default)]
struct Numbers {
    last: BTreeMap<InstanceId, (u64, Mono)>,
    swept: Mono,
}

impl Numbers {
    /// Whether `seq` is new; remembers it if so.
    fn is_new(&mut self, instance: &InstanceId, seq: u64, now: Mono) -> bool {
        if now.since(self.swept) >= LOAD_TTL {
            self.swept = now;
            self.last.retain(|_, (_, at)| now.since(*at) < LOAD_TTL);
        }
        let room = self.last.len() < NUMBERS_MAX;
        match self.last.get_mut(instance) {
            Some((last, at)) if now.since(*at) < LOAD_TTL => {
                if seq <= *last {
                    return false;
                }
                (*last, *at) = (seq, now);
            }
            Some(entry) => *entry = (seq, now),
            None if room => {
                self.last.insert(instance.clone(), (seq, now));
            }
            None => {}
        }
        true
    }
}

/// Tokens that were found right before: an instance sends the same one with each report.
type Tokens = BTreeMap<InstanceId, Box<str>>;

/// Whether two tokens are the same, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// The door.
pub struct Door {
    identity: Arc<Identity>,
    clock: Arc<dyn Clock>,
    world: Arc<World>,
    numbers: Mutex<Numbers>,
    tokens: Mutex<Tokens>,
}

impl Door {
    /// A door that knows tokens by `identity` and places by `world`.
    #[must_use]
    pub fn new(identity: Arc<Identity>, clock: Arc<dyn Clock>, world: Arc<World>) -> Door {
        Door { identity, clock, world, numbers: Mutex::default(), tokens: Mutex::default() }
    }

    /// Whether the token is the instance's. What was proven once is remembered.
    fn knows(&self, service: &ServiceName, instance: &InstanceId, token: &str) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.get(instance).is_some_and(|right| same(right, token)) {
            return true;
        }
        let right = self.identity.knows_load_token(service, instance, token);
        if right {
            if tokens.len() >= NUMBERS_MAX {
                tokens.clear();
            }
            tokens.insert(instance.clone(), token.into());
        }
        right
    }

    /// Judges one report.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(&self, candidate: Candidate, sender: Sender<'_>) -> Result<Verdict, Refusal> {
        let Candidate { service, instance, .. } = &candidate;
        let standing = self.world.standing(service, instance);
        match candidate.token.as_deref().or(sender.token) {
            Some(token) => {
                if !self.knows(service, instance, token) {
                    return Err(Refusal::WrongToken);
                }
                if standing == Standing::NoService {
                    return Err(Refusal::UnknownService);
                }
            }
            None => match standing {
                _ if !sender.local => return Err(Refusal::NoToken),
                Standing::NoService => return Err(Refusal::UnknownService),
                Standing::NotRouted => return Err(Refusal::UnknownInstance),
                Standing::Routed => {}
            },
        }
        if !self.world.counts(service, instance, candidate.source) {
            return Ok(Verdict::Outranked);
        }
        if let Some(seq) = candidate.seq {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            if !numbers.is_new(instance, seq, self.clock.monotonic()) {
                return Err(Refusal::Replay);
            }
        }
        Ok(Verdict::Record(LoadReport {
            instance: candidate.instance,
            load: candidate.load,
            in_flight: candidate.in_flight,
            rps_milli: candidate.rps_milli,
            eps_milli: candidate.eps_milli,
            seq: candidate.seq,
            source: candidate.source,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Load, LoadSource};
    use scoreboard::board::{BoardView, ServiceView};
    use scoreboard::testing::{HandClock, front, instance, routes, service};
    use std::time::Duration;

    struct Setup {
        door: Door,
        clock: Arc<HandClock>,
        identity: Arc<Identity>,
    }

    fn setup() -> Setup {
        let (clock, identity) = (Arc::new(HandClock::default()), Arc::new(Identity::generate()));
        let world = Arc::new(World::default());
        let mut view = BoardView::default();
        let shop = ServiceView {
            front: Some(front("shop")),
            routes: Some(routes("shop", "1.1", 2)),
            loads: vec![],
        };
        view.services.insert(service("shop"), shop);
        world.learn_all(&view, clock.monotonic());
        let door = Door::new(Arc::clone(&identity), Arc::clone(&clock) as Arc<dyn Clock>, world);
        Setup { door, clock, identity }
    }

    fn candidate(name: &str, n: u32, seq: Option<u64>) -> Candidate {
        Candidate {
            service: service(name),
            instance: instance(name, n),
            load: Load::ZERO,
            clipped: false,
            in_flight: None,
            rps_milli: None,
            eps_milli: None,
            seq,
            token: None,
            source: LoadSource::Pushed,
        }
    }

    const HERE: Sender<'static> = Sender { local: true, token: None };
    const FAR: Sender<'static> = Sender { local: false, token: None };

    #[test]
    fn without_a_token_only_routed_instances_of_this_host_are_known() {
        let door = setup().door;
        assert!(door.admit(candidate("shop", 1, None), HERE).is_ok());
        let refused = |name, n, sender| door.admit(candidate(name, n, None), sender).unwrap_err();
        assert_eq!(refused("shop", 1, FAR), Refusal::NoToken);
        assert_eq!(refused("shop", 7, HERE), Refusal::UnknownInstance);
        assert_eq!(refused("else", 1, HERE), Refusal::UnknownService);
    }

    #[test]
    fn a_token_opens_for_its_instance_alone() {
        let Setup { door, identity, .. } = setup();
        let token = identity.load_token(&service("shop"), &instance("shop", 7));
        let with = |token| Sender { local: false, token: Some(token) };
        assert!(door.admit(candidate("shop", 7, None), with(&token)).is_ok());
        assert!(door.admit(candidate("shop", 7, None), with(&token)).is_ok(), "and again");
        let almost = format!("{}0", &token[..token.len() - 1]);
        let almost = if almost == token { token.replace('0', "1") } else { almost };
        for (n, token) in [(6, token.as_str()), (7, &almost), (7, "00"), (7, "")] {
            let refused = door.admit(candidate("shop", n, None), with(token));
            assert_eq!(refused, Err(Refusal::WrongToken), "{n} {token}");
        }
        // From this host, a wrong token is no better than from elsewhere.
        let wrong = Sender { local: true, token: Some("00") };
        assert_eq!(door.admit(candidate("shop", 1, None), wrong), Err(Refusal::WrongToken));
        let mut own = candidate("shop", 7, None);
        own.token = Some(token.clone());
        assert!(door.admit(own, with("00")).is_ok(), "a report's own token comes first");
        let gone = identity.load_token(&service("gone"), &instance("gone", 1));
        let refused = door.admit(candidate("gone", 1, None), with(&gone));
        assert_eq!(refused, Err(Refusal::UnknownService));
    }

    #[test]
    fn numbers_must_grow_until_the_last_one_expired() {
        let Setup { door, clock, .. } = setup();
        let admit = |seq| door.admit(candidate("shop", 1, seq), HERE).map(drop);
        assert_eq!(admit(Some(5)), Ok(()));
        assert_eq!(admit(Some(5)), Err(Refusal::Replay));
        assert_eq!(admit(Some(4)), Err(Refusal::Replay));
        assert_eq!(admit(None), Ok(()));
        assert_eq!(admit(Some(6)), Ok(()));
        clock.pass(LOAD_TTL - Duration::from_millis(1));
        assert_eq!(admit(Some(1)), Err(Refusal::Replay));
        clock.pass(Duration::from_millis(1));
        assert_eq!(admit(Some(1)), Ok(()));
    }

    #[test]
    fn a_lower_source_is_taken_and_not_recorded() {
        let door = setup().door;
        let mut cgroup = candidate("shop", 1, None);
        cgroup.source = LoadSource::Cgroup;
        assert!(matches!(door.admit(cgroup.clone(), HERE), Ok(Verdict::Record(_))));
        assert!(matches!(door.admit(candidate("shop", 1, None), HERE), Ok(Verdict::Record(_))));
        assert_eq!(door.admit(cgroup, HERE), Ok(Verdict::Outranked));
    }
}
