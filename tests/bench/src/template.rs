//! Peers' configurations as committed, with the addresses of one run filled in.
//!
//! `@NAME@` becomes a value. A line with `@HOST@`, `@PORT@` or `@INDEX@` is repeated for each
//! upstream. A line that begins with `@WORD?` stays, without that mark, when the word is chosen.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What goes into a configuration.
#[derive(Debug, Default)]
pub struct Filling<'a> {
    /// `@NAME@` and its value.
    pub values: &'a [(&'a str, String)],
    /// The chosen words of conditional lines.
    pub chosen: &'a [&'a str],
    /// Each makes one line of the lines that are repeated.
    pub upstreams: &'a [SocketAddr],
}

/// Fills in `template` and writes it to `to`.
///
/// # Errors
/// When a file cannot be read or written, or a name has no value.
pub fn write(template: &Path, filling: &Filling<'_>, to: &Path) -> Result<()> {
    let text =
        fs::read_to_string(template).with_context(|| format!("read {}", template.display()))?;
    let filled = fill(&text, filling).with_context(|| template.display().to_string())?;
    fs::write(to, filled).with_context(|| format!("write {}", to.display()))
}

fn fill(text: &str, filling: &Filling<'_>) -> Result<String> {
    let mut out = String::new();
    for line in text.lines() {
        let line = match condition(line) {
            Some((word, rest)) if filling.chosen.contains(&word) => rest,
            Some(_) => continue,
            None => line,
        };
        let mut line = line.to_owned();
        for (name, value) in filling.values {
            line = line.replace(&format!("@{name}@"), value);
        }
        let repeated = ["@HOST@", "@PORT@", "@INDEX@"].iter().any(|mark| line.contains(mark));
        if repeated {
            for (index, upstream) in filling.upstreams.iter().enumerate() {
                let one = line
                    .replace("@HOST@", &upstream.ip().to_string())
                    .replace("@PORT@", &upstream.port().to_string())
                    .replace("@INDEX@", &index.to_string());
                out.push_str(&one);
                out.push('\n');
            }
            continue;
        }
        if let Some(name) = unfilled(&line) {
            bail!("nothing is given for @{name}@");
        }
        out.push_str(&line);
        out.push('\n');
    }
    Ok(out)
}

/// `@WORD?rest`
fn condition(line: &str) -> Option<(&str, &str)> {
    let (word, rest) = line.strip_prefix('@')?.split_once('?')?;
    word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-').then_some((word, rest))
}

fn unfilled(line: &str) -> Option<&str> {
    let (_, after) = line.split_once('@')?;
    let (name, _) = after.split_once('@')?;
    let capital = |b: u8| b.is_ascii_uppercase() || b == b'_';
    (!name.is_empty() && name.bytes().all(capital)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_upstreams_and_conditions_are_filled_in() {
        let text =
            "listen @LISTEN@\n@fast?quick \"@type\"\n@slow?lazy\nserver s@INDEX@ @HOST@:@PORT@\n";
        let upstreams = ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        let values = [("LISTEN", "x:9".to_owned())];
        let filling = Filling { values: &values, chosen: &["fast"], upstreams: &upstreams };
        let filled = fill(text, &filling).unwrap();
        let wanted = "listen x:9\nquick \"@type\"\nserver s0 127.0.0.1:1\nserver s1 127.0.0.1:2\n";
        assert_eq!(filled, wanted);
        assert!(fill(text, &Filling::default()).is_err());
    }
}
