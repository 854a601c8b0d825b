//! From text to manifests: formats, several documents in one file, errors with JSON pointers.

use super::{BudgetManifest, NodeTypeManifest, ServiceManifest};
use crate::problem::{FieldError, Kind, Problem};
use crate::suggest;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A file may not be larger: a service takes about a kilobyte.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Manifests in one file at most.
pub const MANIFESTS_MAX: usize = 1000;

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
            match value.get("manifest") {
                Some(Value::Array(values)) => Ok(values.clone()),
                _ => Ok(vec![value]),
            }
        }
        Format::Yaml => {
            let values: Vec<Value> = serde_saphyr::from_multiple(text)
                .map_err(|e| ManifestError::at("", format!("not YAML: {e}")))?;
            Ok(values.into_iter().filter(|v| !v.is_null()).collect())
        }
    }
}

fn manifest(value: Value) -> Result<Manifest, ManifestError> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "service" => from_value(value).map(|m| Manifest::Service(Box::new(m))),
        "node-type" => from_value(value).map(|m| Manifest::NodeType(Box::new(m))),
        "budget" => from_value(value).map(Manifest::Budget),
        "" => Err(ManifestError::at("/kind", "is missing; use service, node-type or budget")),
        other => {
            let near = suggest::nearest(other, ["service", "node-type", "budget"]);
            let hint = near.map(|k| format!("; did you mean {k:?}?")).unwrap_or_default();
            let shown: String = other.chars().take(40).collect();
            let detail = format!("must be service, node-type or budget, not {shown:?}{hint}");
            Err(ManifestError::at("/kind", detail))
        }
    }
}

/// Reads one message out of a JSON value, with a pointer to what is wrong.
///
/// # Errors
/// The first fault.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ManifestError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let pointer = pointer_of(e.path());
        let detail = suggest::improve(&e.into_inner().to_string());
        ManifestError::at(pointer, detail)
    })
}

/// A serde path as a JSON pointer (RFC 6901).
#[must_use]
pub fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}
