//! From text to manifests: formats, several documents in one file, errors with JSON pointers.

use super::{BudgetManifest, NodeTypeManifest, ServiceManifest};
use crate::problem::{FieldError, Kind, Problem};
use crate::suggest;
use domain::{Budget, ServiceSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A file may not be larger: a service takes about a kilobyte.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Manifests in one file at most.
pub const MANIFESTS_MAX: usize = 1000;
/// Aliases, anchors and merge keys in one YAML file at most: people share a block or two.
const YAML_ALIASES_MAX: usize = 1000;
/// Values that aliases may unfold to, all together: what 1000 full manifests hold. Without it a
/// few hundred bytes of nested aliases unfold to gigabytes.
const YAML_UNFOLDED_MAX: usize = 100_000;
/// Nesting of a YAML document at most; a manifest has six levels.
const YAML_DEPTH_MAX: usize = 64;

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{pointer}: {detail}", document.map(|n| format!("document {n}: ")).unwrap_or_default())]
pub struct ManifestError {
    /// Which document of the file, from 1; `None` when there is but one or none could be told.
    pub document: Option<usize>,
    /// JSON pointer to the field; empty: the whole document.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl ManifestError {
    /// An error at `pointer`.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> ManifestError {
        ManifestError { document: None, pointer: pointer.into(), detail: detail.into() }
    }

    /// As a problem document (422).
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(Kind::Invalid, self.to_string());
        problem.errors =
            vec![FieldError { pointer: self.pointer.clone(), detail: self.detail.clone() }];
        problem
    }
}

impl From<domain::SpecError> for ManifestError {
    fn from(e: domain::SpecError) -> ManifestError {
        ManifestError::at(e.pointer, e.detail)
    }
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML, several documents by `---`; JSON is YAML too.
    Yaml,
    /// TOML; several manifests as `[[manifest]]`.
    Toml,
    /// JSON; several manifests as an array.
    Json,
}

impl Format {
    /// By the file's name; YAML where it says nothing.
    #[must_use]
    pub fn of_file(name: &str) -> Format {
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("toml") => Format::Toml,
            Some("json") => Format::Json,
            Some(_) | None => Format::Yaml,
        }
    }
}

/// One manifest.
#[derive(Debug, Clone, PartialEq)]
pub enum Manifest {
    /// `kind: service`
    Service(Box<ServiceManifest>),
    /// `kind: node-type`
    NodeType(Box<NodeTypeManifest>),
    /// `kind: budget`
    Budget(BudgetManifest),
}

impl Manifest {
    /// As the JSON body that the API takes, `kind` included.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let value = match self {
            Manifest::Service(m) => serde_json::to_value(m),
            Manifest::NodeType(m) => serde_json::to_value(m),
            Manifest::Budget(m) => serde_json::to_value(m),
        };
        value.unwrap_or(Value::Null)
    }

    /// Checks what a single field cannot know, as the API will.
    ///
    /// # Errors
    /// The first fault, with a JSON pointer.
    pub fn check(&self) -> Result<(), ManifestError> {
        match self {
            Manifest::Service(m) => ServiceSpec::try_from(m.as_ref()).map(|_checked| ()),
            Manifest::NodeType(m) => m.check().map(|_checked| ()),
            Manifest::Budget(m) => Budget::try_from(m).map(|_checked| ()),
        }
    }
}

/// Reads every manifest of a text.
///
/// # Errors
/// The first fault, with the document's number where there are several.
pub fn parse_text(text: &str, format: Format) -> Result<Vec<Manifest>, ManifestError> {
    if text.len() > MANIFEST_BYTES_MAX {
        let detail = format!("a file of manifests may have {MANIFEST_BYTES_MAX} bytes at most");
        return Err(ManifestError::at("", detail));
    }
    let values = documents(text, format)?;
    if values.is_empty() {
        return Err(ManifestError::at("", "there is no manifest; start with `kind: service`"));
    }
    if values.len() > MANIFESTS_MAX {
        let detail = format!("a file may hold {MANIFESTS_MAX} manifests at most");
        return Err(ManifestError::at("", detail));
    }
    let several = values.len() > 1;
    values
        .into_iter()
        .enumerate()
        .map(|(i, value)| {
            manifest(value).map_err(|e| ManifestError { document: several.then_some(i + 1), ..e })
        })
        .collect()
}

fn documents(text: &str, format: Format) -> Result<Vec<Value>, ManifestError> {
    match format {
        Format::Json => match serde_json::from_str(text) {
            Ok(Value::Array(values)) => Ok(values),
            Ok(value) => Ok(vec![value]),
            Err(e) => Err(ManifestError::at("", format!("not JSON: {e}"))),
        },
        Format::Toml => {
            let value: Value = toml::from_str(text)
                .map_err(|e| ManifestError::at("", format!("not TOML: {}", e.message())))?;
            match value {
                Value::Object(mut map) if map.get("manifest").is_some_and(Value::is_array) => {
                    let Some(Value::Array(values)) = map.remove("manifest") else {
                        return Ok(Vec::new());
                    };
                    match map.keys().next() {
                        None => Ok(values),
                        Some(key) => {
                            let detail = "stands outside of [[manifest]]; move it into one";
                            Err(ManifestError::at(format!("/{}", escape(key)), detail))
                        }
                    }
                }
                one @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_)) => Ok(vec![one]),
            }
        }
        Format::Yaml => {
            let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, yaml_options())
                .map_err(|e| ManifestError::at("", format!("not YAML: {}", one_line(&e))))?;
            Ok(values.into_iter().filter(|v| !v.is_null()).collect())
        }
    }
}

/// Bounded in what it unfolds; `off`, `on`, `yes` and `no` are words, as in `pacing: off`.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: YAML_DEPTH_MAX,
            flow_nesting_limit: YAML_DEPTH_MAX,
            max_aliases: YAML_ALIASES_MAX,
            max_anchors: YAML_ALIASES_MAX,
            max_merge_keys: YAML_ALIASES_MAX,
            max_recorded_anchor_events: YAML_UNFOLDED_MAX,
            max_recorded_anchor_bytes: MANIFEST_BYTES_MAX,
            max_documents: MANIFESTS_MAX + 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: YAML_UNFOLDED_MAX,
            max_replay_stack_depth: YAML_DEPTH_MAX,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}

fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}

/// Takes out keys without a value (`needs:` with everything below it commented out): as in PATCH,
/// null means "not said". Inside `hooks` and lists values stay as they are.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let said = map.into_iter().filter(|(_, v)| !v.is_null());
            let kept = |(k, v): (String, Value)| {
                let v = if k == "hooks" { v } else { without_nulls(v) };
                (k, v)
            };
            Value::Object(said.map(kept).collect())
        }
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => other,
    }
}

fn manifest(value: Value) -> Result<Manifest, ManifestError> {
    if !value.is_object() {
        let detail = "a manifest is a table of keys; start with `kind: service`";
        return Err(ManifestError::at("", detail));
    }
    let value = without_nulls(value);
    let kinds = ["service", "node-type", "budget"];
    match value.get("kind") {
        None => Err(ManifestError::at("/kind", "is missing; use service, node-type or budget")),
        Some(Value::String(kind)) => match kind.as_str() {
            "service" => from_value(value).map(|m| Manifest::Service(Box::new(m))),
            "node-type" => from_value(value).map(|m| Manifest::NodeType(Box::new(m))),
            "budget" => from_value(value).map(Manifest::Budget),
            other => {
                let near = suggest::nearest(other, kinds);
                let hint = near.map(|k| format!("; did you mean {k:?}?")).unwrap_or_default();
                let shown: String = other.chars().take(40).collect();
                let detail = format!("must be service, node-type or budget, not {shown:?}{hint}");
                Err(ManifestError::at("/kind", detail))
            }
        },
        Some(_) => Err(ManifestError::at("/kind", "must be service, node-type or budget")),
    }
}

/// Reads one message out of a JSON value, with a pointer to what is wrong.
///
/// # Errors
/// The first fault.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ManifestError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let pointer = pointer_of(e.path());
        let sentence = e.into_inner().to_string();
        let detail = suggest::improve(&sentence);
        // Serde names the key in its sentence and points at the table around it.
        let key = |start: &str| sentence.strip_prefix(start)?.split('`').next();
        if let Some(key) = key("missing field `") {
            return ManifestError::at(format!("{pointer}/{}", escape(key)), "is missing");
        }
        match key("unknown field `").map(|key| format!("/{}", escape(key))) {
            Some(last) if !pointer.ends_with(&last) => {
                ManifestError::at(format!("{pointer}{last}"), detail)
            }
            _ => ManifestError::at(pointer, detail),
        }
    })
}

/// A key as a segment of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A serde path as a JSON pointer (RFC 6901).
#[must_use]
pub fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}
