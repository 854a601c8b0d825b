//! `Cargo.lock`: one source of packages, and none of those we keep out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Finding;

/// The only source packages may come from, besides this checkout.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What must not be in the tree, and why. `deny.toml` says the same.
const BANNED: [(&str, &str); 3] = [
    ("ring", "one crypto provider: aws-lc"),
    ("openssl", "no system TLS: rustls"),
    ("openssl-sys", "no system TLS: rustls"),
];

/// Checks the lock file.
pub fn check(repo: &Path) -> Result<Vec<Finding>> {
    Ok(judge(&packages(repo)?))
}

/// Who uses whom: package name to the names it depends on (versions of one name are one).
pub fn read(repo: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages(repo)? {
        let uses = package.get("dependencies").and_then(|uses| uses.as_array());
        let names = uses
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.as_str()?.split(' ').next().map(str::to_owned));
        graph.entry(field(&package, "name").to_owned()).or_default().extend(names);
    }
    Ok(graph)
}

fn packages(repo: &Path) -> Result<Vec<Table>> {
    let text = std::fs::read_to_string(repo.join("Cargo.lock")).context("read Cargo.lock")?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Table>> {
    let lock: Table = text.parse().context("Cargo.lock is not TOML")?;
    let packages = lock.get("package").and_then(Value::as_array).context("no packages")?;
    Ok(packages.iter().filter_map(|package| package.as_table().cloned()).collect())
}

fn field<'a>(package: &'a Table, name: &str) -> &'a str {
    package.get(name).and_then(Value::as_str).unwrap_or("")
}

fn judge(packages: &[Table]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        let (name, source) = (field(package, "name"), field(package, "source"));
        if !source.is_empty() && source != SOURCE {
            let what = format!("{name} comes from {source}; only crates.io is allowed");
            found.push(Finding::new("Cargo.lock", 0, what));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            let what = format!(
                "{name} is kept out ({why}); find who brings it with \
                 `cargo tree --workspace -i {name}` and switch off the feature"
            );
            found.push(Finding::new("Cargo.lock", 0, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_sources_and_banned_packages_are_found() {
        let lock = "\
[[package]]
name = \"ours\"

[[package]]
name = \"serde\"
source = \"registry+https://github.com/rust-lang/crates.io-index\"

[[package]]
name = \"ring\"
source = \"registry+https://github.com/rust-lang/crates.io-index\"

[[package]]
name = \"fork\"
source = \"git+https://github.com/example/fork\"
";
        let found = judge(&parse(lock).unwrap());
        assert_eq!(found.len(), 2);
        assert!(found[0].what.starts_with("ring") && found[1].what.starts_with("fork"));
    }
}
