//! `cargo xtask tidy`: the house rules that a program can check.

mod floors;
mod layout;
mod lock;
mod sources;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::root;
use crate::score::Score;

const HELP: &str = "\
Checks the house rules that are code, and says for each break where it is and what to do:

  floors    a package depends only on what docs/ARCHITECTURE.md's table names; the deciding
            packages and the words hold no runtime, engine or store anywhere in their tree
  layout    every package is a workspace member with the workspace's lints; decisions are numbered
  sources   file heads, file length, bans, exceptions without a reason
  text      white space, foreign paths and hosts
  lock      one source of packages, none of the banned ones

  cargo xtask tidy";

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path inside the checkout.
    pub path: PathBuf,
    /// Line, counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.what),
        }
    }
}

/// A text file of the checkout, its path relative to the root.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    pub text: String,
}

impl File {
    fn extension(&self) -> &str {
        self.path.extension().and_then(|ext| ext.to_str()).unwrap_or("")
    }
}

/// Runs the chore.
pub fn main(args: &[String]) -> Result<ExitCode> {
    if !args.is_empty() {
        println!("{HELP}");
        let asked = args.iter().all(|arg| arg == "--help" || arg == "-h");
        return Ok(if asked { ExitCode::SUCCESS } else { ExitCode::from(crate::USAGE) });
    }
    let score = score();
    println!("tidy: {}", score.line());
    Ok(if score.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each group of rules is one check: prints what it found and counts it.
pub fn score() -> Score {
    let mut score = Score::default();
    for (group, found) in groups(&root::repo()) {
        match found {
            Ok(found) if found.is_empty() => score.add(Score::pass()),
            Ok(found) => {
                for finding in &found {
                    println!("  {finding}");
                }
                score.add(Score::fail(format!("tidy {group}: {} findings", found.len())));
            }
            Err(error) => score.add(Score::fail(format!("tidy {group}: {error:#}"))),
        }
    }
    score
}

fn groups(repo: &Path) -> Vec<(&'static str, Result<Vec<Finding>>)> {
    let files = match read_tree(repo) {
        Ok(files) => files,
        Err(error) => return vec![("tree", Err(error))],
    };
    let sorted = |mut found: Vec<Finding>| {
        found.sort();
        found
    };
    vec![
        ("floors", floors::check(repo).map(sorted)),
        ("layout", layout::check(repo, &files).map(sorted)),
        ("lock", lock::check(repo).map(sorted)),
        ("sources", Ok(sorted(files.iter().flat_map(sources::check).collect()))),
        ("text", Ok(sorted(files.iter().flat_map(text::check).collect()))),
    ]
}

/// Folders that are not the project's text.
const SKIPPED_DIRS: [&str; 5] = ["target", ".git", "node_modules", "tally-data", "dist"];
/// A larger file is data, not text a person wrote.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Every text file of the checkout.
fn read_tree(repo: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![repo.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {folder:?}"))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED_DIRS.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if name == ".git" {
                // In a second work tree it is a file, which names folders of this machine.
            } else if kind.is_file() && entry.metadata()?.len() <= TEXT_BYTES_MAX {
                // What is not UTF-8 is not text.
                if let Ok(text) = std::fs::read_to_string(entry.path()) {
                    let path = entry.path().strip_prefix(repo)?.to_path_buf();
                    files.push(File { path, text });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_checkout_is_tidy() {
        let mut told = String::new();
        for (group, found) in groups(&root::repo()) {
            for finding in found.unwrap() {
                told.push_str(&format!("{group}: {finding}\n"));
            }
        }
        assert!(told.is_empty(), "\n{told}");
    }

    #[test]
    fn a_finding_says_where() {
        let finding = Finding::new("balancer/src/lib.rs", 3, "bad; do good");
        assert_eq!(finding.to_string(), "balancer/src/lib.rs:3: bad; do good");
    }
}
