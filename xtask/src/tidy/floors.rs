//! The floors: which package may use which, and what the pure ones may not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use toml::Table;

use super::{Finding, lock};

/// What packages of one folder may use.
#[derive(Debug, Clone, Copy)]
enum May {
    /// These of our own packages, and anything from outside.
    Use(&'static [&'static str]),
    /// The same, and nothing of a runtime, an engine or a store in the whole tree.
    UsePurely(&'static [&'static str]),
    /// Anything.
    Anything,
}

/// The table of `docs/ARCHITECTURE.md`, by folder.
const FLOORS: &[(&str, May)] = &[
    ("domain", May::UsePurely(&[])),
    ("wire", May::UsePurely(&["domain"])),
    ("balancer/picker", May::UsePurely(&["domain"])),
    ("container-manager/planner", May::UsePurely(&["domain"])),
    ("machine-manager/planner", May::UsePurely(&["domain"])),
    ("scoreboard", May::Use(&["domain"])),
    ("registry", May::Use(&["domain"])),
    ("chassis", May::Use(&["domain", "wire"])),
    ("balancer", May::Use(&["picker", "scoreboard", "wire", "chassis", "domain"])),
    ("load-receiver", May::Use(&["scoreboard", "wire", "chassis", "domain"])),
    (
        "container-manager",
        May::Use(&[
            "container-planner",
            "scoreboard",
            "registry",
            "wire",
            "chassis",
            "domain",
            "dashboard",
        ]),
    ),
    ("machine-manager", May::Use(&["machine-planner", "registry", "wire", "chassis", "domain"])),
    ("executor", May::Use(&["wire", "chassis", "domain"])),
    ("transmitter", May::Use(&["wire", "chassis", "domain"])),
    (
        "cli",
        May::Use(&[
            "balancer",
            "load-receiver",
            "container-manager",
            "machine-manager",
            "executor",
            "transmitter",
            "scoreboard",
            "registry",
            "wire",
            "chassis",
            "domain",
        ]),
    ),
    ("dashboard", May::Use(&[])),
    (
        "tests/simulation",
        May::Use(&[
            "picker",
            "container-planner",
            "machine-planner",
            "scoreboard",
            "registry",
            "domain",
        ]),
    ),
    ("tests/system", May::Anything),
    ("tests/bench", May::Anything),
    ("tests/torture", May::Anything),
    ("fuzz", May::Anything),
    ("xtask", May::Use(&[])),
];

/// What makes a tree impure: runtimes, stores, engines, and clients of them.
const IMPURE: [&str; 9] =
    ["tokio", "hyper", "redis", "rusqlite", "bollard", "reqwest", "axum", "sysinfo", "socket2"];

/// One of our packages.
#[derive(Debug)]
struct Package {
    folder: String,
    name: String,
    manifest: Table,
}

/// Checks every member of the workspace.
pub fn check(repo: &Path) -> Result<Vec<Finding>> {
    let root: Table = read(&repo.join("Cargo.toml"))?;
    let mut packages = Vec::new();
    for folder in members(&root) {
        let manifest = read(&repo.join(&folder).join("Cargo.toml"))?;
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
            .with_context(|| format!("{folder}/Cargo.toml names no package"))?
            .to_owned();
        packages.push(Package { folder, name, manifest });
    }
    let lock = lock::read(repo)?;
    Ok(judge(&packages, &lock))
}

/// The workspace's member folders.
pub fn members(root: &Table) -> Vec<String> {
    let members = root.get("workspace").and_then(|workspace| workspace.get("members")?.as_array());
    members.into_iter().flatten().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

fn judge(packages: &[Package], lock: &BTreeMap<String, BTreeSet<String>>) -> Vec<Finding> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in packages {
        let path = format!("{}/Cargo.toml", package.folder);
        let Some((_, may)) = FLOORS.iter().find(|(folder, _)| *folder == package.folder) else {
            let what = "this package has no row in the table of floors; add one in \
                        docs/ARCHITECTURE.md and in xtask/src/tidy/floors.rs";
            found.push(Finding::new(path, 0, what));
            continue;
        };
        let (allowed, pure) = match may {
            May::Anything => continue,
            May::Use(allowed) => (allowed, false),
            May::UsePurely(allowed) => (allowed, true),
        };
        for used in dependencies(&package.manifest) {
            // Tests may ask for the package's own generators.
            if ours.contains(used.as_str())
                && used != package.name
                && !allowed.contains(&used.as_str())
            {
                let what = format!(
                    "{} may not depend on {used}: the table of floors in docs/ARCHITECTURE.md \
                     allows it {}; move the code down a floor, or meet on the wire, the \
                     scoreboard or the registry",
                    package.name,
                    if allowed.is_empty() { "nothing of ours".into() } else { allowed.join(", ") },
                );
                found.push(Finding::new(&path, 0, what));
            }
        }
        if pure && let Some(way) = way_to_impurity(&package.name, lock) {
            let what = format!(
                "{} must stay pure, but its tree holds {}; take the value from the caller instead",
                package.name,
                way.join(" > ")
            );
            found.push(Finding::new(&path, 0, what));
        }
    }
    found
}

/// Every package a manifest names: normal, build, test, and per-target ones.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    const KINDS: [&str; 3] = ["dependencies", "build-dependencies", "dev-dependencies"];
    let mut tables: Vec<&Table> = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(|target| target.as_table()) {
        tables.extend(targets.iter().filter_map(|(_, target)| target.as_table()));
    }
    let mut names = BTreeSet::new();
    for table in tables {
        for kind in KINDS {
            let Some(entries) = table.get(kind).and_then(|entries| entries.as_table()) else {
                continue;
            };
            for (name, entry) in entries {
                let renamed = entry.get("package").and_then(|package| package.as_str());
                names.insert(renamed.unwrap_or(name).to_owned());
            }
        }
    }
    names
}

/// The first way from a package to something impure, as the names on it.
fn way_to_impurity(start: &str, lock: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::from([start.to_owned()]);
    let mut ways = std::collections::VecDeque::from([vec![start.to_owned()]]);
    while let Some(way) = ways.pop_front() {
        let last = way.last()?;
        if way.len() > 1 && IMPURE.contains(&last.as_str()) {
            return Some(way);
        }
        for next in lock.get(last).into_iter().flatten() {
            if seen.insert(next.clone()) {
                let mut longer = way.clone();
                longer.push(next.clone());
                ways.push_back(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &str, name: &str, manifest: &str) -> Package {
        Package { folder: folder.into(), name: name.into(), manifest: manifest.parse().unwrap() }
    }

    fn lock(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(name, to)| ((*name).to_owned(), owned(to))).collect()
    }

    #[test]
    fn a_package_above_its_floor_is_found_in_any_kind_of_dependency() {
        for manifest in [
            "[dependencies]\nregistry.workspace = true",
            "[dev-dependencies]\nregistry = { path = \"../registry\" }",
            "[target.'cfg(unix)'.dependencies]\nstore = { package = \"registry\", path = \"x\" }",
        ] {
            let packages =
                [package("balancer", "balancer", manifest), package("registry", "registry", "")];
            let found = judge(&packages, &BTreeMap::new());
            assert_eq!(found.len(), 1, "{manifest}");
            assert!(found[0].what.contains("balancer may not depend on registry"));
        }
    }

    #[test]
    fn what_the_table_allows_and_what_is_not_ours_passes() {
        let manifest = "[dependencies]\ndomain.workspace = true\ntokio.workspace = true";
        let packages =
            [package("scoreboard", "scoreboard", manifest), package("domain", "domain", "")];
        assert_eq!(judge(&packages, &BTreeMap::new()), []);
    }

    #[test]
    fn a_runtime_deep_in_a_pure_tree_is_found_with_the_way_to_it() {
        let packages = [package("balancer/picker", "picker", "")];
        let tree = lock(&[("picker", &["a"]), ("a", &["b"]), ("b", &["tokio", "a"])]);
        let found = judge(&packages, &tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("picker > a > b > tokio"), "{}", found[0].what);
    }

    #[test]
    fn a_package_without_a_row_is_found() {
        let found = judge(&[package("extra", "extra", "")], &BTreeMap::new());
        assert!(found[0].what.contains("no row"));
    }
}
