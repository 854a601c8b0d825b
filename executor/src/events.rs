//! What the node's instances do, told in order: the inventory and the bounded ring of past events.

use domain::{InstanceId, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;
use wire::assignment::{ExecutorEvent, InstanceSeen, RunState};

/// Events kept for a manager that reconnects: two for each instance a full node may hold.
pub const EVENTS_KEPT: usize = 4096;

/// What a listener gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These, in order; empty: nothing new.
    Events(Vec<ExecutorEvent>),
    /// Some it never saw are gone; it should read the inventory and go on after this number.
    Gap(u64),
}

/// The one place where instances' states are told.
#[derive(Debug)]
pub struct Board {
    told: Mutex<Told>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Told {
    seq: u64,
    past: VecDeque<ExecutorEvent>,
    seen: BTreeMap<InstanceId, InstanceSeen>,
}

impl Board {
    /// An empty board. Numbers begin with the time, so that those of a former run of the executor
    /// are always older, and a manager sees the gap.
    #[must_use]
    pub fn new(now: Timestamp) -> Board {
        let seq = u64::try_from(now.0).unwrap_or(0);
        let told = Told { seq, past: VecDeque::new(), seen: BTreeMap::new() };
        Board { told: Mutex::new(told), newest: watch::Sender::new(seq) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a change; an unchanged view is not told twice.
    pub fn tell(&self, seen: InstanceSeen) {
        let mut told = self.lock();
        if told.seen.get(&seen.instance) == Some(&seen) {
            return;
        }
        told.seq += 1;
        let seq = told.seq;
        if seen.state == RunState::Stopped {
            told.seen.remove(&seen.instance);
        } else {
            told.seen.insert(seen.instance.clone(), seen.clone());
        }
        told.past.push_back(ExecutorEvent { seq, seen: Some(seen) });
        if told.past.len() > EVENTS_KEPT {
            told.past.pop_front();
        }
        self.newest.send_replace(seq);
    }

    /// The number of the newest event.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.lock().seq
    }

    /// Wakes at every new event.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What came after number `after`.
    #[must_use]
    pub fn after(&self, after: u64) -> Next {
        let told = self.lock();
        let oldest_known = told.past.front().map_or(told.seq, |e| e.seq - 1);
        if after < oldest_known || after > told.seq {
            return Next::Gap(told.seq);
        }
        Next::Events(told.past.iter().filter(|e| e.seq > after).cloned().collect())
    }

    /// All instances and the number up to which this speaks.
    #[must_use]
    pub fn inventory(&self) -> (u64, Vec<InstanceSeen>) {
        let told = self.lock();
        (told.seq, told.seen.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, state: RunState, restarts: u32) -> InstanceSeen {
        InstanceSeen {
            instance: crate::testing::id(name),
            state,
            address: None,
            port: None,
            exit: None,
            restarts,
            spawn_ms: None,
            ready_ms: None,
        }
    }

    #[test]
    fn events_follow_each_other_and_the_inventory_agrees() {
        let board = Board::new(Timestamp(1000));
        assert_eq!(board.after(1000), Next::Events(vec![]));
        board.tell(seen("a", RunState::Starting, 0));
        board.tell(seen("a", RunState::Starting, 0));
        board.tell(seen("a", RunState::Ready, 0));
        let Next::Events(events) = board.after(1000) else { panic!("no gap here") };
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1001, 1002]);
        assert_eq!(board.inventory(), (1002, vec![seen("a", RunState::Ready, 0)]));
        board.tell(seen("a", RunState::Stopped, 0));
        assert_eq!(board.inventory(), (1003, vec![]));
        assert_eq!(*board.watch().borrow(), 1003);
    }

    #[test]
    fn what_is_forgotten_is_told_as_a_gap() {
        let board = Board::new(Timestamp(0));
        for i in 0..u32::try_from(EVENTS_KEPT).unwrap() + 10 {
            board.tell(seen("a", RunState::Restarting, i + 1));
        }
        let newest = board.newest();
        assert_eq!(board.after(5), Next::Gap(newest));
        assert!(matches!(board.after(newest - 1), Next::Events(e) if e.len() == 1));
        // From a former run, or a clock set back.
        assert_eq!(board.after(newest + 1), Next::Gap(newest));
    }
}
