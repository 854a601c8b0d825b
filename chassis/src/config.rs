//! Configuration: defaults, file, environment, flags, into one typed value; and the environment's
//! only reader.

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, Environment, File, FileFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why the configuration is refused. Nothing was bound or started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("the configuration file {} cannot be read: {detail}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A value is wrong or a key unknown.
    #[error("configuration: {key}: {detail}")]
    Value {
        /// The key, dotted; may be empty.
        key: String,
        /// What is wrong and what would be right.
        detail: String,
    },
}

/// Reads one variable of the environment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is where the environment is read")]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variables that set configuration keys: `TALLY_BALANCER__LISTEN`, and `..._FILE` whose
/// content is the value.
///
/// # Errors
/// When a `_FILE` cannot be read.
pub fn env_layer() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut layer = BTreeMap::new();
    for (name, value) in std::env::vars() {
        if !name.starts_with("TALLY_") || !name.contains("__") {
            continue;
        }
        match name.strip_suffix("_FILE") {
            Some(key) => {
                let path = PathBuf::from(&value);
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| ConfigError::File { path, detail: e.to_string() })?;
                layer.insert(key.to_owned(), text.trim_end().to_owned());
            }
            None => {
                layer.insert(name, value);
            }
        }
    }
    Ok(layer)
}

/// Merges defaults (`T::default()`), `file`, `env` and `flags` (dotted key, value) into a `T`.
/// `T` must deny unknown fields.
///
/// # Errors
/// [`ConfigError`], naming the key.
pub fn load<T>(
    file: Option<&Path>,
    env: BTreeMap<String, String>,
    flags: &[(&str, String)],
) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let mut builder: ConfigBuilder<DefaultState> = Config::builder();
    let defaults = Config::try_from(&T::default()).map_err(value_error)?;
    builder = builder.add_source(defaults);
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError::File { path: path.to_owned(), detail: e.to_string() })?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let source = Environment::with_prefix("TALLY")
        .prefix_separator("_")
        .separator("__")
        .try_parsing(true)
        .source(Some(env.into_iter().collect()));
    builder = builder.add_source(source);
    for (key, value) in flags {
        builder = builder.set_override(*key, typed(value)).map_err(value_error)?;
    }
    let merged = builder.build().map_err(value_error)?;
    let value: serde_json::Value = merged.try_deserialize().map_err(value_error)?;
    wire::manifest::from_value(value).map_err(|e| ConfigError::Value {
        key: e.pointer.trim_start_matches('/').replace('/', "."),
        detail: e.detail,
    })
}

/// A flag's text as the number or truth value it spells, as the environment's are taken.
fn typed(text: &str) -> config::Value {
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    text.parse::<bool>().map_or_else(|_text| text.into(), Into::into)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function value in map_err")]
fn value_error(e: config::ConfigError) -> ConfigError {
    ConfigError::Value { key: String::new(), detail: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use wire::quantity::{Size, Time};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Part {
        listen: String,
        idle: Time,
        bytes: Option<Size>,
        workers: u32,
    }

    impl Default for Part {
        fn default() -> Part {
            let idle = wire::quantity::Q(wire::quantity::Span(std::time::Duration::from_secs(30)));
            Part { listen: "127.0.0.1:1".into(), idle, bytes: None, workers: 1 }
        }
    }

    #[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Whole {
        balancer: Part,
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn later_layers_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tally.toml");
        std::fs::write(&file, "[balancer]\nlisten = \"a\"\nidle = \"5s\"\nbytes = \"1MiB\"\n")
            .unwrap();
        let env = env(&[("TALLY_BALANCER__LISTEN", "b"), ("TALLY_BALANCER__WORKERS", "2")]);
        let flags = [("balancer.listen", "c".to_owned())];
        let whole: Whole = load(Some(&file), env, &flags).unwrap();
        assert_eq!(whole.balancer.listen, "c");
        assert_eq!(whole.balancer.workers, 2);
        assert_eq!(whole.balancer.idle.0.0, std::time::Duration::from_secs(5));
        assert_eq!(whole.balancer.bytes.unwrap().0.0, 1 << 20);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let e = load::<Whole>(None, env(&[("TALLY_BALANCER__LISTNE", "b")]), &[]).unwrap_err();
        let text = e.to_string();
        assert!(text.contains("listne") && text.contains("did you mean `listen`"), "{text}");
        let e = load::<Whole>(None, env(&[("TALLY_BALANCER__IDLE", "soon")]), &[]).unwrap_err();
        assert!(e.to_string().contains("balancer.idle"), "{e}");
    }
}
