//! Random bodies for the API: bytes, JSON, and good documents with something wrong in them.

use proptest::prelude::*;
use serde_json::Value;

/// Words that mean something to some reader, so that random documents get far.
const KEYS: [&str; 20] = [
    "kind",
    "name",
    "wire",
    "type",
    "token",
    "node",
    "node_secret",
    "address",
    "labels",
    "measure",
    "seq",
    "instances",
    "wanted",
    "stops",
    "needs",
    "cpu_millis",
    "memory_bytes",
    "monthly_cap",
    "may_stop",
    "ttl",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "service",
            "",
            "50%",
            "1s",
            "64MiB",
            "1 EUR",
            "-1",
            "1e999",
            "shop",
            "n-0123456789",
            "self-contained",
            "::1",
            "none",
            "\u{0}",
            "\u{202e}x",
        ])
        .prop_map(Value::from),
        any::<[char; 4]>().prop_map(|text| Value::from(String::from_iter(text))),
    ]
}

/// Any JSON, not deep.
fn json() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&KEYS[..]), inner), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

/// Puts `new` at the `n`th value of `document`, counted over the whole tree.
fn replace(document: &mut Value, n: &mut usize, new: &Value) -> bool {
    if *n == 0 {
        *document = new.clone();
        return true;
    }
    *n -= 1;
    match document {
        Value::Object(fields) => fields.values_mut().any(|value| replace(value, n, new)),
        Value::Array(items) => items.iter_mut().any(|value| replace(value, n, new)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn count(document: &Value) -> usize {
    1 + match document {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A body made of `good`, or not at all.
pub(crate) fn body(good: Value) -> BoxedStrategy<Vec<u8>> {
    let text = good.to_string();
    let values = count(&good);
    let exchanged = (0..values, json()).prop_map(move |(mut at, new)| {
        let mut document = good.clone();
        replace(&mut document, &mut at, &new);
        document.to_string().into_bytes()
    });
    let spoilt = (any::<prop::sample::Index>(), any::<u8>(), 0..4usize, 0..4usize);
    let spoilt = spoilt.prop_map(move |(place, byte, gone, new)| {
        let mut bytes = text.clone().into_bytes();
        let at = place.index(bytes.len());
        bytes.splice(at..(at + gone).min(bytes.len()), std::iter::repeat_n(byte, new));
        bytes
    });
    let nested = (1..3000usize, prop::sample::select(vec!["[", "{\"run\":", "[[{\"a\":"]));
    prop_oneof![
        8 => exchanged,
        6 => spoilt,
        3 => json().prop_map(|value| value.to_string().into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..100),
        1 => nested.prop_map(|(times, part)| part.repeat(times).into_bytes()),
    ]
    .boxed()
}

/// Any of these bodies with the number of the good document it was made of.
pub(crate) fn bodies(good: Vec<Value>) -> BoxedStrategy<(usize, Vec<u8>)> {
    let each = good.into_iter().enumerate();
    let each = each.map(|(n, good)| body(good).prop_map(move |body| (n, body)).boxed());
    proptest::strategy::Union::new(each).boxed()
}
