//! Folders, members and numbers: the shape of the checkout.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::{File, Finding, floors};

/// What the root must hold.
const REQUIRED: [&str; 21] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "deny.toml",
    "rustfmt.toml",
    "clippy.toml",
    "rust-toolchain.toml",
    ".ci/run",
    "balancer",
    "load-receiver",
    "container-manager",
    "machine-manager",
    "executor",
    "transmitter",
    "deploy",
    "docs/decisions",
    "docs/ARCHITECTURE.md",
    "docs/lexicon.md",
    "tests",
];

/// Fields every package takes from the workspace.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// Checks the checkout's shape.
pub fn check(repo: &Path, files: &[File]) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for path in REQUIRED {
        if !repo.join(path).exists() {
            found.push(Finding::new(path, 0, "is missing; docs/ARCHITECTURE.md says what it is"));
        }
    }
    found.extend(executable(repo, ".ci/run"));
    let root = files
        .iter()
        .find(|file| file.path == Path::new("Cargo.toml"))
        .context("the root has no Cargo.toml")?;
    let root: Table = root.text.parse().context("Cargo.toml is not TOML")?;
    let excluded = excluded(&root);
    let apart = |file: &&File| !excluded.iter().any(|folder| file.path.starts_with(folder));
    let ours: Vec<&File> = files.iter().filter(apart).collect();
    found.extend(membership(&floors::members(&root), &ours));
    found.extend(ours.iter().flat_map(|file| manifest(file)));
    found.extend(decisions(files));
    Ok(found)
}

fn executable(repo: &Path, path: &str) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(repo.join(path)).ok()?.permissions().mode();
    (mode & 0o111 == 0).then(|| Finding::new(path, 0, "is not executable; chmod +x it"))
}

/// Folders that the root names as workspaces of their own: what is only measured against.
fn excluded(root: &Table) -> Vec<String> {
    let folders = root.get("workspace").and_then(|w| w.get("exclude")?.as_array());
    let names = folders.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

/// A package folder that is no member is never built, linted or tested.
fn membership(members: &[String], files: &[&File]) -> Vec<Finding> {
    let missing = |file: &&&File| {
        let folder = file.path.parent().unwrap_or(Path::new(""));
        file.path.ends_with("Cargo.toml")
            && folder != Path::new("")
            && members.iter().all(|member| Path::new(member) != folder)
    };
    files
        .iter()
        .filter(missing)
        .map(|file| {
            let what = "is no member of the workspace; name its folder in the root Cargo.toml";
            Finding::new(&file.path, 0, what)
        })
        .collect()
}

fn manifest(file: &File) -> Vec<Finding> {
    if !file.path.ends_with("Cargo.toml") || file.path == Path::new("Cargo.toml") {
        return Vec::new();
    }
    let Ok(manifest) = file.text.parse::<Table>() else {
        return vec![Finding::new(&file.path, 0, "is not TOML")];
    };
    let mut found = Vec::new();
    let inherits = |entry: Option<&Value>| {
        entry.and_then(|entry| entry.get("workspace")?.as_bool()).unwrap_or(false)
    };
    if !inherits(manifest.get("lints")) {
        let what = "has lints of its own; write [lints] workspace = true";
        found.push(Finding::new(&file.path, 0, what));
    }
    let package = manifest.get("package");
    for field in INHERITED {
        if !inherits(package.and_then(|package| package.get(field))) {
            let what = format!("write `{field}.workspace = true` in [package]");
            found.push(Finding::new(&file.path, 0, what));
        }
    }
    if package.and_then(|package| package.get("description")).is_none() {
        let what = "says in no `description` what the package is for; one line will do";
        found.push(Finding::new(&file.path, 0, what));
    }
    found
}

/// Decisions are `docs/decisions/NNNN-name.md`, numbered from 0001 without a gap.
fn decisions(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut numbers: BTreeMap<u32, &Path> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.starts_with("docs/decisions")) {
        let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        match decision_number(name) {
            None => {
                let what = "decisions are named NNNN-name.md, in small letters with hyphens";
                found.push(Finding::new(&file.path, 0, what));
            }
            Some(number) => {
                if let Some(other) = numbers.insert(number, &file.path) {
                    let what = format!("has the number of {}; take the next", other.display());
                    found.push(Finding::new(&file.path, 0, what));
                }
            }
        }
    }
    for (expected, (number, path)) in (1..).zip(&numbers) {
        if *number != expected {
            let what = format!("decision {expected:04} is missing before it; numbers have no gap");
            found.push(Finding::new(*path, 0, what));
            break;
        }
    }
    found
}

fn decision_number(file: &str) -> Option<u32> {
    let (number, name) = file.strip_suffix(".md")?.split_once('-')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (number.len() == 4 && !name.is_empty() && name.chars().all(plain)).then_some(())?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_package_outside_the_workspace_is_found() {
        let files = [file("Cargo.toml", ""), file("a/Cargo.toml", ""), file("b/Cargo.toml", "")];
        let files: Vec<&File> = files.iter().collect();
        let found = membership(&["a".to_owned()], &files);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, Path::new("b/Cargo.toml"));
    }

    #[test]
    fn folders_outside_the_workspace_are_those_the_root_names() {
        let root: Table = "[workspace]\nexclude = [\"tests/peer\"]".parse().unwrap();
        assert_eq!(excluded(&root), ["tests/peer"]);
        assert!(excluded(&Table::new()).is_empty());
    }

    #[test]
    fn a_manifest_must_inherit() {
        let good = "[package]\ndescription = \"x\"\nversion.workspace = true\n\
                    edition.workspace = true\nrust-version.workspace = true\n\
                    license.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true";
        assert_eq!(manifest(&file("a/Cargo.toml", good)), []);
        let own_lints = good.replace("workspace = true", "rust.unsafe_code = \"allow\"");
        assert!(!manifest(&file("a/Cargo.toml", &own_lints)).is_empty());
        let no_licence = good.replace("license.workspace = true\n", "");
        assert_eq!(manifest(&file("a/Cargo.toml", &no_licence)).len(), 1);
    }

    #[test]
    fn decisions_are_numbered_without_gap_or_twin() {
        let name = |name: &str| file(&format!("docs/decisions/{name}"), "");
        assert_eq!(decisions(&[name("0001-one.md"), name("0002-two-b.md")]), []);
        assert_eq!(decisions(&[name("0001-one.md"), name("0001-two.md")]).len(), 1);
        assert_eq!(decisions(&[name("0001-one.md"), name("0003-three.md")]).len(), 1);
        assert_eq!(decisions(&[name("1-one.md")]).len(), 1);
        assert_eq!(decisions(&[name("0001-One.md")]).len(), 1);
    }
}
