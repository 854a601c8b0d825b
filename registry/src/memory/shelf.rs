//! Ordered collections in memory: things that end, and histories by time.

use domain::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Things that live and end, such as instances: the living at hand, the ended for a while.
#[derive(Debug)]
pub(super) struct Shelf<K, T> {
    living: BTreeMap<K, T>,
    ended: BTreeMap<K, (Timestamp, T)>,
    /// The ended by when they ended, for pruning and for lists.
    order: BTreeSet<(Timestamp, K)>,
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Shelf<K, T> {
        Shelf { living: BTreeMap::new(), ended: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, T: Clone> Shelf<K, T> {
    /// Stores `thing`; `ended` says when it ended, if it did.
    pub(super) fn put(&mut self, key: K, thing: T, ended: Option<Timestamp>) {
        if let Some((at, _)) = self.ended.remove(&key) {
            self.order.remove(&(at, key.clone()));
        }
        match ended {
            None => {
                self.living.insert(key, thing);
            }
            Some(at) => {
                self.living.remove(&key);
                self.order.insert((at, key.clone()));
                self.ended.insert(key, (at, thing));
            }
        }
    }

    /// The living, by key.
    pub(super) fn living(&self) -> impl Iterator<Item = &T> {
        self.living.values()
    }

    /// The ended, newest first.
    pub(super) fn ended(&self) -> impl Iterator<Item = &T> {
        self.order.iter().rev().filter_map(|(_, key)| self.ended.get(key)).map(|(_, thing)| thing)
    }

    /// One, living or ended.
    pub(super) fn get(&self, key: &K) -> Option<&T> {
        self.living.get(key).or_else(|| self.ended.get(key).map(|(_, thing)| thing))
    }

    /// Drops what ended before `since`, and the oldest beyond `rows`.
    pub(super) fn prune(&mut self, since: Timestamp, rows: usize) {
        while let Some((at, key)) = self.order.first().cloned()
            && (at < since || self.order.len() > rows)
        {
            self.order.remove(&(at, key.clone()));
            self.ended.remove(&key);
        }
    }
}

/// Things that happened to somebody at a time.
#[derive(Debug)]
pub(super) struct History<K, T> {
    of: BTreeMap<K, BTreeMap<(Timestamp, u64), T>>,
    order: BTreeSet<(Timestamp, u64, K)>,
    last_seq: u64,
}

impl<K, T> Default for History<K, T> {
    fn default() -> History<K, T> {
        History { of: BTreeMap::new(), order: BTreeSet::new(), last_seq: 0 }
    }
}

impl<K: Ord + Clone, T: Clone> History<K, T> {
    pub(super) fn add(&mut self, key: K, at: Timestamp, thing: T) {
        self.last_seq += 1;
        self.order.insert((at, self.last_seq, key.clone()));
        self.of.entry(key).or_default().insert((at, self.last_seq), thing);
    }

    /// Of `key` within `[since, until)`: the newest `limit`, oldest first.
    pub(super) fn span(&self, key: &K, since: Timestamp, until: Timestamp, limit: usize) -> Vec<T> {
        let Some(rows) = self.of.get(key).filter(|_| since < until) else { return Vec::new() };
        let newest = rows.range((since, 0)..(until, 0)).rev().take(limit);
        let mut found: Vec<T> = newest.map(|(_, thing)| thing.clone()).collect();
        found.reverse();
        found
    }

    /// Of `key`, newest first.
    pub(super) fn newest_of(&self, key: &K, limit: usize) -> Vec<T> {
        self.of
            .get(key)
            .map_or_else(Vec::new, |rows| rows.values().rev().take(limit).cloned().collect())
    }

    /// Of all, newest first.
    pub(super) fn newest(&self, limit: usize) -> Vec<T> {
        let order = self.order.iter().rev().take(limit);
        order.filter_map(|(at, seq, key)| self.of.get(key)?.get(&(*at, *seq))).cloned().collect()
    }

    /// Drops what is older than `since` and the oldest beyond `rows`.
    pub(super) fn prune(&mut self, since: Timestamp, rows: usize) {
        while let Some((at, seq, key)) = self.order.first().cloned()
            && (at < since || self.order.len() > rows)
        {
            self.drop_one(at, seq, &key);
        }
    }

    /// Drops the oldest of `key` beyond `rows`.
    pub(super) fn prune_one(&mut self, key: &K, rows: usize) {
        while let Some(of) = self.of.get(key)
            && of.len() > rows
            && let Some((&(at, seq), _)) = of.first_key_value()
        {
            self.drop_one(at, seq, key);
        }
    }

    fn drop_one(&mut self, at: Timestamp, seq: u64, key: &K) {
        self.order.remove(&(at, seq, key.clone()));
        if let Some(of) = self.of.get_mut(key) {
            of.remove(&(at, seq));
            if of.is_empty() {
                self.of.remove(key);
            }
        }
    }
}

/// The moment before which history of `kept` length is dropped.
pub(super) fn cut(now: Timestamp, kept: Duration) -> Timestamp {
    now.minus(kept)
}
