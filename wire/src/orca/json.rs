//! The JSON form: the message as protobuf writes it in JSON, names in either spelling.

use super::{Group, OrcaError, OrcaReport, Reading, Single};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

pub(super) fn read(object: &[u8]) -> Result<OrcaReport, OrcaError> {
    let mut reading = Reading::default();
    let mut json = serde_json::Deserializer::from_slice(object);
    Whole(&mut reading)
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|why| OrcaError::Form(Cow::Owned(why.to_string())))?;
    Ok(reading.report)
}

/// What a key of the message holds.
enum Key {
    Single(Single),
    Group(Group),
    /// Whole requests a second; older senders', and it yields to the newer field.
    OldRps,
    Unknown,
}

fn key(name: &str) -> Key {
    match name {
        "cpu_utilization" | "cpuUtilization" => Key::Single(Single::Cpu),
        "mem_utilization" | "memUtilization" => Key::Single(Single::Memory),
        "application_utilization" | "applicationUtilization" => Key::Single(Single::Application),
        "rps_fractional" | "rpsFractional" => Key::Single(Single::Rps),
        "eps" => Key::Single(Single::Eps),
        "named_metrics" | "namedMetrics" => Key::Group(Group::Named),
        "utilization" => Key::Group(Group::Utilization),
        "request_cost" | "requestCost" => Key::Group(Group::Cost),
        "rps" => Key::OldRps,
        _ => Key::Unknown,
    }
}

/// The object as a whole.
struct Whole<'r, 'a>(&'r mut Reading<'a>);

impl<'de> DeserializeSeed<'de> for Whole<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Whole(reading) = self;
        let (mut old_rps, mut groups) = (None, Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            match key(&name) {
                Key::Single(single) => {
                    if let Some(value) = map.next_value_seed(Number)? {
                        reading.single(single, value).map_err(A::Error::custom)?;
                    }
                }
                Key::OldRps => {
                    if let Some(value) = map.next_value_seed(Number)?
                        && old_rps.replace(value).is_some()
                    {
                        return Err(A::Error::custom(OrcaError::Twice("rps".to_owned())));
                    }
                }
                Key::Group(group) => {
                    if groups.contains(&group) {
                        let twice = OrcaError::Twice(group.name().to_owned());
                        return Err(A::Error::custom(twice));
                    }
                    groups.push(group);
                    map.next_value_seed(Members { group, reading })?;
                }
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match old_rps {
            Some(rps) if reading.report.rps.is_none() => {
                reading.single(Single::Rps, rps).map_err(A::Error::custom)
            }
            _ => Ok(()),
        }
    }
}

/// The values of one group.
struct Members<'r, 'a> {
    group: Group,
    reading: &'r mut Reading<'a>,
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as an object of numbers", self.group.name())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if let Some(value) = map.next_value_seed(Number)? {
                self.reading
                    .member(self.group, Cow::Owned(name), value)
                    .map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// A number, or a text that holds one, as protobuf allows; null is none.
struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Option<f64>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<f64>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Number {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_unit<E>(self) -> Result<Option<f64>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<f64>, E> {
        Ok(Some(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "a measure, not a count of money")]
    fn visit_u64<E>(self, value: u64) -> Result<Option<f64>, E> {
        Ok(Some(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "a measure, not a count of money")]
    fn visit_i64<E>(self, value: i64) -> Result<Option<f64>, E> {
        Ok(Some(value as f64))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Option<f64>, E> {
        value.parse().map(Some).map_err(|_nan| E::custom("a text that is no number"))
    }
}
