//! Terms of instances whose agents changed them: one small hash, usually absent.

use super::link::CALL_DEADLINE;
use super::{RedisBoard, Strings, millis};
use crate::board::{BoardError, LOAD_TTL};
use crate::{codec, keys};
use ::redis::pipe;
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
        let mut time = pipe();
        time.cmd("TIME");
        let (now,): (Time,) = self.link.send(&time, DOING, CALL_DEADLINE).await?;
        let mut pipe = pipe();
        for (instance, terms) in terms {
            if *terms == Terms::AS_CONFIGURED {
                pipe.cmd("HDEL").arg(keys::TERMS).arg(instance.as_str()).ignore();
            } else {
                let text = codec::terms(*terms, moment(now));
                pipe.cmd("HSET").arg(keys::TERMS).arg(instance.as_str()).arg(text).ignore();
            }
        }
        pipe.cmd("PEXPIRE").arg(keys::TERMS).arg(millis(LOAD_TTL)).ignore();
        self.link.send(&pipe, DOING, CALL_DEADLINE).await
    }

    pub(super) async fn fresh_terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError> {
        const DOING: &str = "read terms";
        let mut read = pipe();
        read.cmd("TIME").cmd("HGETALL").arg(keys::TERMS);
        let (now, told): (Time, Strings) = self.link.send(&read, DOING, CALL_DEADLINE).await?;
        let mut dead = pipe();
        let mut fresh = BTreeMap::new();
        for (name, text) in told.into_iter().take(codec::TERMS_MAX) {
            let instance = name.parse::<InstanceId>().map_err(|why| why.to_string());
            match instance.and_then(|instance| Ok((instance, codec::read_terms(&text)?))) {
                Ok((instance, (terms, at))) if moment(now).since(at) < LOAD_TTL => {
                    fresh.insert(instance, terms);
                }
                Ok(_old) => drop(dead.cmd("HDEL").arg(keys::TERMS).arg(name).ignore()),
                Err(detail) => self.complain(keys::TERMS.to_owned(), &detail),
            }
        }
        if !dead.is_empty() {
            self.link.send::<()>(&dead, DOING, CALL_DEADLINE).await?;
        }
        Ok(fresh)
    }
}
