//! What was promised, beside what was measured.

use anyhow::Result;
use serde_json::{Value, json};

/// One promise and its figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What is measured.
    pub what: String,
    /// The figure.
    pub figure: f64,
    /// What it must stay at or under; or, with [`Bar::at_least`], reach.
    pub bar: f64,
    at_least: bool,
}

impl Bar {
    /// The figure must not pass the bar.
    #[must_use]
    pub fn at_most(what: impl Into<String>, figure: f64, bar: f64) -> Bar {
        Bar { what: what.into(), figure, bar, at_least: false }
    }

    /// The figure must reach the bar.
    #[must_use]
    pub fn at_least(what: impl Into<String>, figure: f64, bar: f64) -> Bar {
        Bar { what: what.into(), figure, bar, at_least: true }
    }

    /// Whether it holds.
    #[must_use]
    pub fn met(&self) -> bool {
        if self.at_least { self.figure >= self.bar } else { self.figure <= self.bar }
    }

    /// As it stands in a result: `{"what", "figure", "bar", "at_least", "met"}`.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "what": self.what,
            "figure": self.figure,
            "bar": self.bar,
            "at_least": self.at_least,
            "met": self.met(),
        })
    }

    /// Reads what [`Bar::json`] wrote.
    #[must_use]
    pub fn of_json(value: &Value) -> Option<Bar> {
        Some(Bar {
            what: value["what"].as_str()?.to_owned(),
            figure: value["figure"].as_f64()?,
            bar: value["bar"].as_f64()?,
            at_least: value["at_least"].as_bool().unwrap_or(false),
        })
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = if self.met() { "met   " } else { "MISSED" };
        let sign = if self.at_least { ">=" } else { "<=" };
        format!("{mark}  {:<66} {:>9.3}  {sign} {}", self.what, self.figure, self.bar)
    }
}

/// All bars of a result, wherever in it they stand.
///
/// # Errors
/// When it is not JSON.
pub fn of_result(text: &str) -> Result<Vec<Bar>> {
    let value: Value = serde_json::from_str(text)?;
    let mut bars = Vec::new();
    collect(&value, &mut bars);
    Ok(bars)
}

fn collect(value: &Value, bars: &mut Vec<Bar>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if name == "bars" {
                    bars.extend(inner.as_array().into_iter().flatten().filter_map(Bar::of_json));
                } else {
                    collect(inner, bars);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, bars)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_met_missed_written_and_found_again() {
        let under = Bar::at_most("cost", 0.8, 0.85);
        let short = Bar::at_least("rate", 0.9, 0.95);
        assert!(under.met() && !short.met());
        let result = json!({"a": {"bars": [under.json()]}, "b": [{"bars": [short.json()]}]});
        assert_eq!(of_result(&result.to_string()).unwrap(), [under, short.clone()]);
        assert!(short.line().starts_with("MISSED"));
    }
}
