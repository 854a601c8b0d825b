//! The words of a measuring program's command line: `--name value` pairs and what stands bare.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};

/// A command line, taken apart.
#[derive(Debug)]
pub struct Args {
    usage: &'static str,
    named: BTreeMap<String, Vec<String>>,
    bare: Vec<String>,
}

impl Args {
    /// Takes the process's own words apart. A name without a value is a switch: `--quick`.
    ///
    /// # Errors
    /// When the last name lacks its value.
    pub fn of_process(usage: &'static str, switches: &[&str]) -> Result<Args> {
        Args::of(std::env::args().skip(1), usage, switches)
    }

    fn of(
        words: impl Iterator<Item = String>,
        usage: &'static str,
        switches: &[&str],
    ) -> Result<Args> {
        let mut args = Args { usage, named: BTreeMap::new(), bare: Vec::new() };
        let mut words = words;
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                args.bare.push(word);
                continue;
            };
            let value = if switches.contains(&name) {
                String::new()
            } else {
                words.next().with_context(|| format!("--{name} needs a value\n{usage}"))?
            };
            args.named.entry(name.to_owned()).or_default().push(value);
        }
        Ok(args)
    }

    /// What stands without a name, in its order.
    pub fn bare(&mut self) -> Vec<String> {
        std::mem::take(&mut self.bare)
    }

    /// Whether a switch was given.
    pub fn switch(&mut self, name: &str) -> bool {
        self.named.remove(name).is_some()
    }

    /// The value of a name that may be left out.
    ///
    /// # Errors
    /// When it reads oddly.
    pub fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>>
    where
        T::Err: Display,
    {
        let Some(text) = self.named.remove(name).and_then(|mut values| values.pop()) else {
            return Ok(None);
        };
        let read = text.parse();
        let odd = |why| anyhow!("--{name} {text}: {why}\n{}", self.usage);
        Ok(Some(read.map_err(odd)?))
    }

    /// The value of a name, or a default.
    ///
    /// # Errors
    /// When it reads oddly.
    pub fn or<T: FromStr>(&mut self, name: &str, default: T) -> Result<T>
    where
        T::Err: Display,
    {
        Ok(self.option(name)?.unwrap_or(default))
    }

    /// The value of a name that must be given.
    ///
    /// # Errors
    /// When it is missing or reads oddly.
    pub fn must<T: FromStr>(&mut self, name: &str) -> Result<T>
    where
        T::Err: Display,
    {
        let missing = format!("--{name} is missing\n{}", self.usage);
        self.option(name)?.context(missing)
    }

    /// Words of a comma-separated value; empty when it was left out.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let values = self.named.remove(name).unwrap_or_default();
        let words = values.iter().flat_map(|v| v.split(',')).map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// When something is left over.
    pub fn finish(self) -> Result<()> {
        if let Some(name) = self.named.keys().next() {
            bail!("unknown argument --{name}\n{}", self.usage);
        }
        if let Some(word) = self.bare.first() {
            bail!("what is {word:?}?\n{}", self.usage);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        let words = line.split(' ').map(str::to_owned);
        Args::of(words, "usage", &["quick"]).unwrap()
    }

    #[test]
    fn names_switches_lists_and_bare_words_are_told_apart() {
        let mut args = args("a --rate 5 --quick b --only x,y --only z");
        assert_eq!(args.or("rate", 1_u32).unwrap(), 5);
        assert!(args.switch("quick") && !args.switch("slow"));
        assert_eq!(args.list("only"), ["x", "y", "z"]);
        assert_eq!(args.bare(), ["a", "b"]);
        args.finish().unwrap();
    }

    #[test]
    fn odd_and_unknown_words_are_refused_with_the_usage() {
        let mut odd = args("--rate many");
        let said = odd.or("rate", 1_u32).unwrap_err().to_string();
        assert!(said.contains("many") && said.contains("usage"), "{said}");
        let unknown = args("--colour red");
        assert!(unknown.finish().unwrap_err().to_string().contains("--colour"));
        let missing = args("x").must::<u32>("rate").unwrap_err().to_string();
        assert!(missing.contains("--rate is missing"));
    }
}
