//! `tally explain config KEY`: a setting's value, where it comes from, how to set it.

use crate::args::DataArgs;
use crate::client::{Failure, Output};
use crate::settings::Settings;
use crate::show;
use chassis::config;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Carries it out.
///
/// # Errors
/// `Usage` when the key is unknown, naming the nearest, or when the configuration is wrong.
pub fn explain(key: &str, output: Output) -> Result<(), Failure> {
    let wrong = |e: config::ConfigError| Failure::usage(e.to_string());
    let file = config::env("TALLY_CONFIG").map(Into::into);
    let now = Settings::load(&DataArgs { data: None, config: file }, &[]).map_err(wrong)?;
    let (now, defaults) = (flat(&now), flat(&Settings::default()));
    let (Some(value), Some(default)) = (now.get(key), defaults.get(key)) else {
        let near = wire::suggest::nearest(key, defaults.keys().map(String::as_str));
        let known: Vec<&str> = defaults.keys().map(String::as_str).collect();
        let hint = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known are: {}", known.join(", ")),
        };
        return Err(Failure::usage(format!("there is no setting {key:?}; {hint}")));
    };
    let layer = config::env_layer().map_err(wrong)?;
    let body = described(key, value, default, &layer);
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let sentence = format!(
        "{key} = {value}\n  from:     {}\n  default:  {default}\n  in a file:  {}\n  in the environment:  {}",
        text("source"),
        text("file"),
        text("variable")
    );
    show::outcome(&body, key, &sentence, output)
}

/// The answer as an object.
fn described(key: &str, value: &Value, default: &Value, layer: &BTreeMap<String, String>) -> Value {
    // The environment knows sections by a double underscore; keys without one have a flag instead.
    let variable = match key {
        "log" => "TALLY_LOG".to_owned(),
        _ => format!("TALLY_{}", key.to_uppercase().replace('.', "__")),
    };
    let by_environment = match key {
        "log" => config::env("TALLY_LOG").or_else(|| config::env("RUST_LOG")).is_some(),
        _ => layer.contains_key(&variable),
    };
    let source = match (by_environment, value == default) {
        (true, _) => "the environment",
        (false, true) => "the default",
        (false, false) => "the configuration file",
    };
    let file = match key.split_once('.') {
        Some((section, name)) => format!("[{section}] {name} = {default}"),
        None => format!("{key} = {default}"),
    };
    let settable = key.contains('.') || key == "log";
    json!({
        "key": key,
        "value": value,
        "default": default,
        "source": source,
        "file": file,
        "variable": if settable { variable } else { format!("none; say --{key}") },
    })
}

/// Every key, dotted, with its value.
fn flat(settings: &Settings) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    let Ok(Value::Object(sections)) = serde_json::to_value(settings) else { return keys };
    for (section, value) in sections {
        match value {
            Value::Object(fields) => {
                keys.extend(fields.into_iter().map(|(k, v)| (format!("{section}.{k}"), v)));
            }
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                keys.insert(section, one);
            }
            list @ Value::Array(_) => {
                keys.insert(section, list);
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_says_where_its_value_comes_from() {
        let keys = flat(&Settings::default());
        assert_eq!(keys.get("balancer.listen"), Some(&json!("127.0.0.1:8080")));
        let default = json!("127.0.0.1:8080");
        let none = BTreeMap::new();
        let said = described("balancer.listen", &default, &default, &none);
        assert_eq!(said["source"], "the default");
        let other = json!("0.0.0.0:80");
        let said = described("balancer.listen", &other, &default, &none);
        assert_eq!(said["source"], "the configuration file");
        let variable = "TALLY_BALANCER__LISTEN".to_owned();
        let layer = BTreeMap::from([(variable.clone(), "0.0.0.0:80".to_owned())]);
        let said = described("balancer.listen", &other, &default, &layer);
        assert_eq!(
            (&said["source"], &said["variable"]),
            (&json!("the environment"), &json!(variable))
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let failure = explain("balancer.lisen", Output::Name).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("did you mean balancer.listen?"), "{failure}");
    }
}
