//! Terms of instances whose agents changed them: one small hash, usually absent.

use super::link::CALL_DEADLINE;
use super::nodes::{Batch, read};
use super::reading::Strings;
use super::{RedisBoard, millis};
use crate::board::{BoardError, LOAD_TTL};
use crate::{codec, keys};
use ::redis::{Value, cmd};
use domain::{InstanceId, Terms, Timestamp};
use std::collections::BTreeMap;

/// Seconds and microseconds, as Redis tells the time.
type Time = (i64, i64);

fn moment((seconds, micros): Time) -> Timestamp {
    Timestamp(seconds * 1000 + micros / 1000)
}

impl RedisBoard {
    pub(super) async fn put_terms(&self, terms: &[(InstanceId, Terms)]) -> Result<(), BoardError> {
        const DOING: &str = "write terms";
        if terms.is_empty() {
            return Ok(());
        }
        let now: Time = self.one(keys::TERMS, cmd("TIME"), DOING).await?;
        let mut batch = Batch::default();
        for (instance, terms) in terms {
            let mut write;
            if *terms == Terms::AS_CONFIGURED {
                write = cmd("HDEL");
                write.arg(keys::TERMS).arg(instance.as_str());
            } else {
                write = cmd("HSET");
                let text = codec::terms(*terms, moment(now));
                write.arg(keys::TERMS).arg(instance.as_str()).arg(text);
            }
            batch.at(keys::TERMS, write);
        }
        let mut expiry = cmd("PEXPIRE");
        expiry.arg(keys::TERMS).arg(millis(LOAD_TTL));
        batch.at(keys::TERMS, expiry);
        self.nodes.send(batch, DOING, CALL_DEADLINE).await.map(drop)
    }

    pub(super) async fn fresh_terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError> {
        const DOING: &str = "read terms";
        let mut all = cmd("HGETALL");
        all.arg(keys::TERMS);
        let mut both = Batch::default();
        both.at(keys::TERMS, cmd("TIME"));
        both.at(keys::TERMS, all);
        let both = self.nodes.send(both, DOING, CALL_DEADLINE).await?;
        let (now, told): (Time, Strings) = read(Value::Array(both), DOING)?;
        let mut dead = cmd("HDEL");
        dead.arg(keys::TERMS);
        let mut any_dead = false;
        let mut fresh = BTreeMap::new();
        for (name, text) in told.into_iter().take(codec::TERMS_MAX) {
            let instance = name.parse::<InstanceId>().map_err(|why| why.to_string());
            match instance.and_then(|instance| Ok((instance, codec::read_terms(&text)?))) {
                Ok((instance, (terms, at))) if moment(now).since(at) < LOAD_TTL => {
                    fresh.insert(instance, terms);
                }
                Ok(_old) => {
                    dead.arg(name);
                    any_dead = true;
                }
                Err(detail) => self.complain(keys::TERMS.to_owned(), &detail),
            }
        }
        if any_dead {
            self.one::<Value>(keys::TERMS, dead, DOING).await?;
        }
        Ok(fresh)
    }
}
