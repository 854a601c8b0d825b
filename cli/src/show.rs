//! Everything the operator commands print: data on stdout, people's text on stderr, tables out of
//! API bodies.

use crate::client::{Failure, Output};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Prints one line of data. A reader that went away (`| head`) is no error.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        // Nobody reads any more: nothing is left to say, and the work is done.
    }
}

/// Prints data as it is, without a line's end.
pub fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        // As in `line`.
    }
}

/// Prints one line for people, on stderr.
pub fn note(text: &str) {
    if writeln!(std::io::stderr(), "{text}").is_err() {
        // As in `line`.
    }
}

/// Prints a failure for people.
pub fn failure(failure: &Failure) {
    note(&format!("error: {failure}"));
}

/// Whether data goes to a terminal.
#[must_use]
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A line on stderr that replaces itself on a terminal, and is printed once per change elsewhere.
#[derive(Debug, Default)]
pub struct Progress {
    last: String,
    open: bool,
}

impl Progress {
    /// Shows `text`, unless it is already shown.
    pub fn show(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        let mut err = std::io::stderr();
        if err.is_terminal() {
            self.open = write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush()).is_ok();
        } else {
            note(text);
        }
    }

    /// Ends the line.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            note("");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a value is shown in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
    /// A ratio with two decimals.
    Ratio,
    /// Bytes as `64 MiB`.
    Bytes,
    /// Thousandths of a processor as `0.25`.
    Cpu,
    /// Seconds with one decimal.
    Seconds,
    /// `true` as `yes`, else nothing.
    Yes,
    /// `false` as `yes`, else nothing.
    No,
    /// A moment without its fraction.
    Moment,
}

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// JSON pointer into one item.
    pub pointer: &'static str,
    /// How it is shown.
    pub form: Form,
    /// Only in `-o wide`.
    pub wide: bool,
}

/// A column of every table.
#[must_use]
pub const fn column(head: &'static str, pointer: &'static str, form: Form) -> Column {
    Column { head, pointer, form, wide: false }
}

/// A column of wide tables.
#[must_use]
pub const fn wide(head: &'static str, pointer: &'static str, form: Form) -> Column {
    Column { head, pointer, form, wide: true }
}

/// The text of one cell; `-` where nothing is known.
#[must_use]
pub fn cell(item: &Value, pointer: &str, form: Form) -> String {
    let value = item.pointer(pointer).unwrap_or(&Value::Null);
    let number = value.as_f64();
    let shown = match form {
        Form::Text => text(value),
        Form::Ratio => number.map(|n| format!("{n:.2}")).unwrap_or_default(),
        Form::Bytes => number.map(bytes).unwrap_or_default(),
        Form::Cpu => number.map(|n| format!("{:.2}", n / 1000.0)).unwrap_or_default(),
        Form::Seconds => number.map(|n| format!("{n:.1}")).unwrap_or_default(),
        Form::Yes => if value == &Value::Bool(true) { "yes" } else { "" }.to_owned(),
        Form::No => if value == &Value::Bool(false) { "yes" } else { "" }.to_owned(),
        Form::Moment => text(value).split('.').next().unwrap_or_default().replace('T', " "),
    };
    if shown.is_empty() { "-".to_owned() } else { printable(&shown) }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let words: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
            words.join(" ")
        }
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Text from outside without control characters: a name or a log line must not steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn bytes(n: f64) -> String {
    const UNITS: [(&str, f64); 4] = [
        ("TiB", 1_099_511_627_776.0),
        ("GiB", 1_073_741_824.0),
        ("MiB", 1_048_576.0),
        ("KiB", 1024.0),
    ];
    match UNITS.iter().find(|(_, scale)| n >= *scale) {
        Some((unit, scale)) if n / scale < 10.0 => format!("{:.1} {unit}", n / scale),
        Some((unit, scale)) => format!("{:.0} {unit}", n / scale),
        None => format!("{n:.0} B"),
    }
}

/// A table of rows under heads, as lines without trailing blanks.
#[must_use]
pub fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.to_vec());
    table.add_rows(rows);
    let lines: Vec<String> =
        table.lines().map(|l| l.strip_prefix(' ').unwrap_or(&l).trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A table of items.
#[must_use]
pub fn items_table(items: &[Value], columns: &[Column], all: bool) -> String {
    let columns: Vec<&Column> = columns.iter().filter(|c| all || !c.wide).collect();
    let heads: Vec<&str> = columns.iter().map(|c| c.head).collect();
    let row = |item: &Value| columns.iter().map(|c| cell(item, c.pointer, c.form)).collect();
    table(&heads, items.iter().map(row).collect())
}

/// JSON for people and programs.
#[must_use]
pub fn json(body: &Value) -> String {
    format!("{body:#}")
}

/// YAML of a body.
///
/// # Errors
/// When it cannot be written, which JSON values do not cause.
pub fn yaml(body: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(body).map_err(|e| Failure::failed(format!("no YAML of it: {e}")))
}

/// What kind of object is shown: where its name is, and its columns.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// JSON pointer to the name or id.
    pub name: &'static str,
    /// Columns of its table.
    pub columns: &'static [Column],
    /// Said on stderr when a list is empty.
    pub none: &'static str,
}

/// Prints a list body (`{"items": [...]}`).
///
/// # Errors
/// [`Failure::Failed`].
pub fn list(body: &Value, shape: &Shape, output: Output) -> Result<(), Failure> {
    let items = body.get("items").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    match output {
        Output::Json => line(&json(body)),
        Output::Yaml => line(yaml(body)?.trim_end()),
        Output::Name => items.iter().for_each(|item| line(&cell(item, shape.name, Form::Text))),
        Output::Table | Output::Wide if items.is_empty() => note(shape.none),
        Output::Table | Output::Wide => {
            line(&items_table(items, shape.columns, output == Output::Wide));
        }
    }
    Ok(())
}

/// Prints one object: its columns downwards, or its body.
///
/// # Errors
/// [`Failure::Failed`].
pub fn object(body: &Value, shape: &Shape, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => line(&json(body)),
        Output::Yaml => line(yaml(body)?.trim_end()),
        Output::Name => line(&cell(body, shape.name, Form::Text)),
        Output::Table | Output::Wide => line(&fields(body, shape.columns)),
    }
    Ok(())
}

/// One object's columns, downwards; what is not known is left out.
#[must_use]
pub fn fields(body: &Value, columns: &[Column]) -> String {
    let width = columns.iter().map(|c| c.head.len()).max().unwrap_or(0);
    let lines: Vec<String> = columns
        .iter()
        .map(|c| (c.head.to_lowercase(), cell(body, c.pointer, c.form)))
        .filter(|(_, shown)| shown != "-")
        .map(|(head, shown)| format!("{head:<width$}  {shown}"))
        .collect();
    lines.join("\n")
}

/// Prints the outcome of a write: a sentence for people, or the body.
///
/// # Errors
/// [`Failure::Failed`].
pub fn outcome(body: &Value, name: &str, sentence: &str, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => line(&json(body)),
        Output::Yaml => line(yaml(body)?.trim_end()),
        Output::Name => line(name),
        Output::Table | Output::Wide => line(sentence),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] = &[
        column("NAME", "/name", Form::Text),
        column("LOAD", "/state/load", Form::Ratio),
        column("PROTECTED", "/may_stop", Form::No),
        wide("MEMORY", "/memory", Form::Bytes),
    ];

    #[test]
    fn tables_have_a_line_per_item_and_wide_ones_more_columns() {
        let items = [
            json!({ "name": "shop", "state": { "load": 0.816 }, "may_stop": true, "memory": 1 }),
            json!({ "name": "a\u{1b}[2J", "may_stop": false, "memory": 3 << 20 }),
        ];
        let narrow = items_table(&items, COLUMNS, false);
        let expected = "NAME   LOAD  PROTECTED\nshop   0.82  -\na [2J  -     yes";
        assert_eq!(narrow, expected);
        let whole = items_table(&items, COLUMNS, true);
        assert!(whole.lines().next().is_some_and(|head| head.ends_with("MEMORY")), "{whole}");
        assert!(whole.ends_with("3.0 MiB"), "{whole}");
        let one = fields(&items[0], COLUMNS);
        assert_eq!(one, "name       shop\nload       0.82\nmemory     1 B");
    }

    #[test]
    fn quantities_are_shown_as_people_say_them() {
        for (value, form, shown) in [
            (json!(250), Form::Cpu, "0.25"),
            (json!(64 << 20), Form::Bytes, "64 MiB"),
            (json!(512), Form::Bytes, "512 B"),
            (json!(0.42), Form::Seconds, "0.4"),
            (json!("2026-11-22T04:17:00.123Z"), Form::Moment, "2026-11-22 04:17:00"),
            (json!({ "zone": "a", "rack": 2 }), Form::Text, "rack=2 zone=a"),
            (json!(["a", "b"]), Form::Text, "a b"),
            (json!(null), Form::Text, "-"),
            (json!("words"), Form::Ratio, "-"),
        ] {
            assert_eq!(cell(&value, "", form), shown, "{value}");
        }
    }
}
