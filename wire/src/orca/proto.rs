//! The BIN form: base64 of the protobuf message, read by hand with a bound on each step.

use super::{
    Group, IN_FLIGHT, OrcaError, OrcaReport, Reading, Single, VALUE_BYTES_MAX, form, write,
};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

/// Senders of gRPC leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Requests a second as a whole number, which older senders write.
const FIELD_OLD_RPS: u64 = 3;
/// Fields of an entry of a map.
const ENTRY_NAME: u64 = 1;
const ENTRY_VALUE: u64 = 2;

const fn single_number(single: Single) -> u64 {
    match single {
        Single::Cpu => 1,
        Single::Memory => 2,
        Single::Rps => 6,
        Single::Eps => 7,
        Single::Application => 9,
    }
}

const fn group_number(group: Group) -> u64 {
    match group {
        Group::Cost => 4,
        Group::Utilization => 5,
        Group::Named => 8,
    }
}

fn single(number: u64) -> Option<Single> {
    [Single::Cpu, Single::Memory, Single::Rps, Single::Eps, Single::Application]
        .into_iter()
        .find(|s| single_number(*s) == number)
}

fn group(number: u64) -> Option<Group> {
    [Group::Cost, Group::Utilization, Group::Named].into_iter().find(|g| group_number(*g) == number)
}

pub(super) fn read_base64(text: &[u8]) -> Result<OrcaReport, OrcaError> {
    // Three bytes for four characters, and room for the decoder's last step.
    let mut message = [0_u8; VALUE_BYTES_MAX];
    let length =
        BASE64.decode_slice(text, &mut message).map_err(|_why| form("not base64 of a message"))?;
    read(message.get(..length).unwrap_or_default())
}

/// Reads a message.
pub(super) fn read(message: &[u8]) -> Result<OrcaReport, OrcaError> {
    let mut reading = Reading::default();
    let mut old_rps = None;
    let mut rest = message;
    while !rest.is_empty() {
        let (number, value) = field(&mut rest)?;
        if let Some(single) = single(number) {
            reading.single(single, value.double()?)?;
        } else if let Some(group) = group(number) {
            let (name, value) = entry(value.bytes()?)?;
            reading.member(group, Cow::Borrowed(name), value)?;
        } else if number == FIELD_OLD_RPS && old_rps.replace(value.varint()?).is_some() {
            return Err(OrcaError::Twice("rps".to_owned()));
        }
    }
    if let (None, Some(rps)) = (reading.report.rps, old_rps) {
        #[expect(clippy::cast_precision_loss, reason = "a measure, not a count of money")]
        reading.single(Single::Rps, rps as f64)?;
    }
    Ok(reading.report)
}

fn entry(bytes: &[u8]) -> Result<(&str, f64), OrcaError> {
    let (mut name, mut value) = ("", 0.0);
    let mut rest = bytes;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (ENTRY_NAME, found) => {
                name = std::str::from_utf8(found.bytes()?).map_err(|_why| form("not text"))?;
            }
            (ENTRY_VALUE, found) => value = found.double()?,
            _unknown => {}
        }
    }
    Ok((name, value))
}

/// A field's value, by how it is written.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Value<'a> {
    fn double(self) -> Result<f64, OrcaError> {
        match self {
            Value::Fixed64(bytes) => Ok(f64::from_le_bytes(bytes)),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed32 => Err(kind()),
        }
    }

    fn bytes(self) -> Result<&'a [u8], OrcaError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 => Err(kind()),
        }
    }

    fn varint(self) -> Result<u64, OrcaError> {
        match self {
            Value::Varint(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed64(_) | Value::Fixed32 => Err(kind()),
        }
    }
}

fn kind() -> OrcaError {
    form("a field of another kind")
}

/// Takes one field off the front.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>), OrcaError> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => {
            let (bytes, after) = rest.split_first_chunk().ok_or_else(short)?;
            *rest = after;
            Value::Fixed64(*bytes)
        }
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_why| short())?;
            let (bytes, after) = rest.split_at_checked(length).ok_or_else(short)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        5 => {
            let (_bytes, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            *rest = after;
            Value::Fixed32
        }
        _ => return Err(kind()),
    };
    match tag >> 3 {
        0 => Err(form("a field without a number")),
        number => Ok((number, value)),
    }
}

fn short() -> OrcaError {
    form("the message breaks off")
}

/// Takes a number of at most ten bytes off the front, seven bits each, the lowest first.
fn varint(rest: &mut &[u8]) -> Result<u64, OrcaError> {
    let mut number = 0_u64;
    for index in 0..10_u32 {
        let (byte, after) = rest.split_first().ok_or_else(short)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            break;
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(form("a number too long"))
}

/// Writes a report with the form's word. Zeros are written out: an idle instance must not look like
/// a silent one.
pub(super) fn write_base64(report: &OrcaReport) -> String {
    let mut message = Vec::new();
    for (single, value) in write::singles(report) {
        push_double(&mut message, single_number(single), value);
    }
    if let Some(value) = report.utilization {
        push_entry(&mut message, Group::Utilization, write::UTILIZATION, value);
    }
    if let Some(count) = report.in_flight {
        push_entry(&mut message, Group::Named, IN_FLIGHT[1], f64::from(count));
    }
    format!("BIN {}", BASE64.encode(message))
}

fn push_double(message: &mut Vec<u8>, number: u64, value: f64) {
    push_varint(message, number << 3 | 1);
    message.extend_from_slice(&value.to_le_bytes());
}

fn push_entry(message: &mut Vec<u8>, group: Group, name: &str, value: f64) {
    let mut entry = Vec::new();
    push_varint(&mut entry, ENTRY_NAME << 3 | 2);
    push_varint(&mut entry, name.len() as u64);
    entry.extend_from_slice(name.as_bytes());
    push_double(&mut entry, ENTRY_VALUE, value);
    push_varint(message, group_number(group) << 3 | 2);
    push_varint(message, entry.len() as u64);
    message.extend_from_slice(&entry);
}

fn push_varint(message: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        message.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    message.push(u8::try_from(number).unwrap_or(0));
}
