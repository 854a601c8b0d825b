//! How what stands in Redis becomes a view; what cannot be read is unknown, and told of once.

use super::scripts::call;
use super::{RedisBoard, lock, millis};
use crate::board::{BoardError, LOAD_TTL, ServiceView};
use crate::{codec, keys};
use ::redis::{Cmd, cmd};
use domain::{InstanceId, LoadReading, ServiceFront, ServiceName, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Keys remembered as unreadable, so that each is complained about once.
const COMPLAINTS_MAX: usize = 1000;

/// One service's answer of the read script: now, routes, board with scores, report, load.
pub(super) type Shelf = (i64, Vec<(String, String)>, Vec<(String, String)>, Strings, Strings);
pub(super) type Strings = BTreeMap<String, String>;

impl RedisBoard {
    /// What stands at a key but cannot be read is unknown, and someone should look: once.
    pub(super) fn complain(&self, key: String, detail: &str) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < COMPLAINTS_MAX && complaints.insert(key.clone()) {
            tracing::warn!(key, detail, "the scoreboard holds something unreadable; ignored");
        }
    }

    pub(super) fn front(&self, service: &ServiceName, text: &str) -> Option<ServiceFront> {
        match codec::read_front(service, text) {
            Ok(front) => {
                lock(&self.plain).insert(service.clone(), !front.load_balanced);
                Some(front)
            }
            Err(detail) => {
                self.complain(format!("{} {service}", keys::SERVICES), &detail);
                None
            }
        }
    }

    pub(super) fn shelf(
        &self,
        service: &ServiceName,
        front: Option<ServiceFront>,
        got: Shelf,
    ) -> ServiceView {
        let (now, routes, board, report, load) = got;
        let now = Timestamp(now);
        let routes = codec::read_routes(&routes).unwrap_or_else(|detail| {
            self.complain(keys::routes(service), &detail);
            None
        });
        let mut loads: BTreeMap<InstanceId, LoadReading> = BTreeMap::new();
        let mut keep = |key: fn(&ServiceName) -> String, read: Result<LoadReading, String>| {
            match read {
                // A stamp from the future means that Redis' clock was set back.
                Ok(reading) if reading.age < LOAD_TTL && reading.at <= now.plus(LOAD_TTL) => {
                    loads.insert(reading.report.instance.clone(), reading);
                }
                Ok(_old) => {}
                Err(detail) => self.complain(key(service), &detail),
            }
        };
        for (instance, text) in load.iter().take(codec::INSTANCES_MAX) {
            keep(keys::load, codec::read_plain_report(instance, text, now));
        }
        for (instance, score) in board.iter().take(codec::INSTANCES_MAX) {
            // A load whose time nobody wrote has no age: unknown.
            let Some(rest) = report.get(instance) else { continue };
            let read = codec::read_score(score);
            keep(keys::board, read.and_then(|l| codec::read_report(instance, l, rest, now)));
        }
        loads.retain(|instance, _| instance.service() == *service);
        ServiceView { front, routes, loads: loads.into_values().collect() }
    }

    pub(super) fn read_command(&self, service: &ServiceName) -> Cmd {
        let keys = [
            keys::board(service),
            keys::seen(service),
            keys::report(service),
            keys::load(service),
            keys::routes(service),
        ];
        let mut cmd = call(&self.scripts.read, &keys);
        cmd.arg(millis(LOAD_TTL));
        cmd
    }

    /// Names in `tally:services`, those that are names.
    pub(super) fn names(&self, fields: impl IntoIterator<Item = String>) -> Vec<ServiceName> {
        let mut names = Vec::new();
        for field in fields {
            match field.parse() {
                Ok(name) => names.push(name),
                Err(why) => self.complain(keys::SERVICES.to_owned(), &format!("{why}")),
            }
        }
        names
    }

    /// Learns which of `services` have no balancer, where that is not known yet.
    pub(super) async fn learn_plain(
        &self,
        services: &BTreeSet<ServiceName>,
    ) -> Result<(), BoardError> {
        let unknown: Vec<&ServiceName> = {
            let plain = lock(&self.plain);
            services.iter().filter(|service| !plain.contains_key(*service)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let mut cmd = cmd("HMGET");
        cmd.arg(keys::SERVICES);
        for service in &unknown {
            cmd.arg(service.as_str());
        }
        let texts: Vec<Option<String>> = self.one(keys::SERVICES, cmd, "read fronts").await?;
        for (service, text) in unknown.into_iter().zip(texts) {
            if let Some(text) = text {
                self.front(service, &text);
            }
        }
        Ok(())
    }
}
