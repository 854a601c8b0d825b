//! What owners write and what the parts say to each other: manifests in three formats, messages.

use serde::de::DeserializeOwned;
use wire::manifest::{Format, Manifest, parse_text};

/// A file of manifests; the first byte says which format.
pub fn text(bytes: &[u8]) {
    let Some((format, rest)) = bytes.split_first() else { return };
    let format = match format % 3 {
        0 => Format::Json,
        1 => Format::Toml,
        _ => Format::Yaml,
    };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    for manifest in parse_text(text, format).unwrap_or_default() {
        again(&manifest);
    }
}

/// What was read says the same as JSON.
fn again(manifest: &Manifest) {
    let sound = manifest.check().is_ok();
    let text = manifest.to_value().to_string();
    match parse_text(&text, Format::Json) {
        Ok(read) => assert!(read == [manifest.clone()], "{text}"),
        Err(why) => assert!(!sound, "{why:?}: {text}"),
    }
}

/// One message of any kind: the first byte says which is tried.
pub fn messages(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => read::<wire::assignment::Assignment>(rest),
        1 => read::<wire::join::JoinRequest>(rest),
        2 => read::<wire::placement::PlacementRequest>(rest),
        3 => read::<wire::node_file::NodeFile>(rest),
        4 => read::<wire::problem::Problem>(rest),
        5 => read::<wire::operation::Operation>(rest),
        6 => read::<wire::operator::ServiceView>(rest),
        _ => read::<wire::stamp::Stamp>(rest),
    }
}

fn read<T: DeserializeOwned + serde::Serialize>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let text = serde_json::to_vec(&value).expect("it has a text");
    serde_json::from_slice::<T>(&text).expect("our own text");
}
