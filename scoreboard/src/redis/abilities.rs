//! What balancers can do: one hash, read with the heartbeats beside it.

use super::link::CALL_DEADLINE;
use super::nodes::{Batch, read};
use super::reading::Strings;
use super::scripts::call;
use super::{RedisBoard, millis, unreadable};
use crate::board::{BALANCER_LIVE, BoardError, HEARTBEAT_TTL};
use crate::{codec, keys};
use ::redis::{Value, cmd};
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
        let mut set = cmd("HSET");
        set.arg(keys::ABILITIES).arg(balancer.as_str()).arg(text);
        let doing = "say what a balancer can do";
        self.one::<Value>(keys::ABILITIES, set, doing).await.map(drop)
    }

    pub(super) async fn live_abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError> {
        const DOING: &str = "read what balancers can do";
        let mut beat = call(&self.scripts.beat, &[keys::BALANCERS.to_owned()]);
        beat.arg(millis(HEARTBEAT_TTL));
        let mut said = cmd("HGETALL");
        said.arg(keys::ABILITIES);
        let mut both = Batch::default();
        both.at(keys::BALANCERS, beat);
        both.at(keys::ABILITIES, said);
        let both = self.nodes.send(both, DOING, CALL_DEADLINE).await?;
        let ((now, beats), said): ((i64, Vec<(String, f64)>), Strings) =
            read(Value::Array(both), DOING)?;
        let mut dead = cmd("HDEL");
        dead.arg(keys::ABILITIES);
        let mut any_dead = false;
        let mut abilities = BTreeMap::new();
        for (balancer, text) in said {
            let Some((_, at)) = beats.iter().find(|(name, _)| *name == balancer) else {
                dead.arg(&balancer);
                any_dead = true;
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
        if any_dead {
            self.one::<Value>(keys::ABILITIES, dead, DOING).await?;
        }
        Ok(abilities)
    }
}
