//! Which server of a Cluster holds which keys, by the hash slot of each key.

use ::redis::{FromRedisValue, Value};
use domain::ServiceName;

/// Slots of a Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// A stretch of slots and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stretch {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) host: String,
    pub(super) port: u16,
}

/// The slot of a whole text: CRC-16/XMODEM, as the Cluster's specification has it.
fn slot(text: &str) -> u16 {
    let mut crc: u16 = 0;
    for byte in text.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    crc % SLOTS
}

/// The slot of every key of a service: its name is their hash tag.
pub(super) fn of_service(service: &ServiceName) -> u16 {
    slot(service.as_str())
}

/// The slot of a key without a hash tag.
pub(super) fn of_key(key: &str) -> u16 {
    slot(key)
}

/// Reads the answer to `CLUSTER SLOTS`; `asked` stands for a server that does not know its own
/// name. What cannot be read is nobody's stretch.
pub(super) fn read(answer: &Value, asked: &str) -> Vec<Stretch> {
    let Value::Array(stretches) = answer else { return Vec::new() };
    let mut read: Vec<Stretch> = stretches.iter().filter_map(|s| read_one(s, asked)).collect();
    read.sort_by_key(|stretch| stretch.first);
    read
}

fn read_one(stretch: &Value, asked: &str) -> Option<Stretch> {
    let Value::Array(fields) = stretch else { return None };
    let number =
        |value: Option<&Value>| u16::try_from(i64::from_redis_value_ref(value?).ok()?).ok();
    let Value::Array(master) = fields.get(2)? else { return None };
    let host = Option::<String>::from_redis_value_ref(master.first()?).ok()?.unwrap_or_default();
    let host = if host.is_empty() || host == "?" { asked.to_owned() } else { host };
    let port = number(master.get(1))?;
    let (first, last) = (number(fields.first())?, number(fields.get(1))?);
    (first <= last && last < SLOTS).then_some(Stretch { first, last, host, port })
}

/// Who serves a slot.
pub(super) fn owner(map: &[Stretch], slot: u16) -> Option<&Stretch> {
    let after = map.partition_point(|stretch| stretch.first <= slot);
    map.get(after.checked_sub(1)?).filter(|stretch| slot <= stretch.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(stretches: &[(i64, i64, &str, i64)]) -> Value {
        let text = |t: &str| Value::BulkString(t.as_bytes().to_vec());
        let one = |&(first, last, host, port): &(i64, i64, &str, i64)| {
            let master = Value::Array(vec![text(host), Value::Int(port), text("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master.clone(), master])
        };
        Value::Array(stretches.iter().map(one).collect())
    }

    #[test]
    fn slots_are_the_clusters() {
        // From the specification: the check value of the polynomial, and tags hash as they are.
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(of_key("foo"), 12_182);
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn owners_are_found_and_gaps_are_nobodys() {
        let map = read(
            &answer(&[
                (6000, 9000, "10.0.0.2", 2),
                (0, 5000, "", 1),
                (9001, 16_383, "?", 3),
                (5, 1, "x", 1),
                (0, 70_000, "x", 1),
            ]),
            "asked",
        );
        let of = |slot| owner(&map, slot).map(|s| format!("{}:{}", s.host, s.port));
        for (slot, wanted) in [
            (0, Some("asked:1")),
            (5000, Some("asked:1")),
            (5001, None),
            (6000, Some("10.0.0.2:2")),
            (9000, Some("10.0.0.2:2")),
            (16_383, Some("asked:3")),
        ] {
            assert_eq!(of(slot).as_deref(), wanted, "{slot}");
        }
        assert!(read(&Value::Nil, "x").is_empty() && owner(&[], 5).is_none());
    }

    proptest! {
        #[test]
        fn every_slot_of_a_whole_map_has_one_owner(slot in 0..SLOTS, cut in 1i64..16_382) {
            let map = read(&answer(&[(0, cut, "a", 1), (cut + 1, 16_383, "b", 2)]), "");
            let host = owner(&map, slot).map(|s| s.host.as_str());
            prop_assert_eq!(host, Some(if i64::from(slot) <= cut { "a" } else { "b" }));
        }
    }
}
