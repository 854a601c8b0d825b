//! What balancers can do: one hash, read with the heartbeats beside it.

use super::link::CALL_DEADLINE;
use super::scripts::call;
use super::{RedisBoard, Strings, millis, unreadable};
use crate::board::{BALANCER_LIVE, BoardError, HEARTBEAT_TTL};
use crate::{codec, keys};
use ::redis::pipe;
use domain::{Ability, BalancerId, Timestamp};
use std::collections::BTreeMap;

impl RedisBoard {
    pub(super) async fn put_ability(
        &self,
        balancer: &BalancerId,
        ability: &Ability,
    ) -> Result<(), BoardError> {
        let text =
            codec::ability(ability).map_err(|d| unreadable(keys::ABILITIES.to_owned(), d))?;
        let mut pipe = pipe();
        pipe.cmd("HSET").arg(keys::ABILITIES).arg(balancer.as_str()).arg(text).ignore();
        self.link.send(&pipe, "say what a balancer can do", CALL_DEADLINE).await
    }

    pub(super) async fn live_abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError> {
        const DOING: &str = "read what balancers can do";
        let mut beats = pipe();
        let mut beat = call(&self.link.scripts.beat, &[keys::BALANCERS.to_owned()]);
        beat.arg(millis(HEARTBEAT_TTL));
        beats.add_command(beat);
        let ((now, beats),): ((i64, Vec<(String, f64)>),) =
            self.link.send(&beats, DOING, CALL_DEADLINE).await?;
        let mut said = pipe();
        said.cmd("HGETALL").arg(keys::ABILITIES);
        let (said,): (Strings,) = self.link.send(&said, DOING, CALL_DEADLINE).await?;
        let mut dead = pipe();
        let mut abilities = BTreeMap::new();
        for (balancer, text) in said {
            let Some((_, at)) = beats.iter().find(|(name, _)| *name == balancer) else {
                dead.cmd("HDEL").arg(keys::ABILITIES).arg(&balancer).ignore();
                continue;
            };
            #[expect(clippy::cast_possible_truncation, reason = "saturates; a time in ms")]
            let age = Timestamp(now).since(Timestamp(*at as i64));
            let name = balancer.parse::<BalancerId>().map_err(|why| why.to_string());
            match name.and_then(|name| Ok((name, codec::read_ability(&text)?))) {
                Ok((name, ability)) if age < BALANCER_LIVE => drop(abilities.insert(name, ability)),
                Ok(_silent) => {}
                Err(detail) => self.complain(keys::ABILITIES.to_owned(), &detail),
            }
        }
        if !dead.is_empty() {
            self.link.send::<()>(&dead, DOING, CALL_DEADLINE).await?;
        }
        Ok(abilities)
    }
}
