//! Rust files: heads, length, bans, and exceptions that say why.

use std::path::Path;

use super::{File, Finding};

/// House style asks for about 400; past this a file is two files.
const LINES_MAX: usize = 600;

/// Longer files, each with the reason it stays whole.
const LONG_FILES: &[(&str, &str)] = &[];

/// Words no file may hold, tests included.
const NEVER: [(&str, &str); 3] = [
    ("todo!", "finish it, or leave it out and say so in the README's table"),
    ("unimplemented!", "finish it, or leave it out and say so in the README's table"),
    ("dbg!", "use tracing, or remove it"),
];

/// Words for one place alone, and what to take instead. Tests are free of these.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    ("Instant::now", "chassis", "clocks are read in chassis::clock alone; take a domain::Clock"),
    ("SystemTime::now", "chassis", "clocks are read in chassis::clock alone; take a domain::Clock"),
    ("env::var", "chassis", "the environment is read by chassis::config alone"),
    ("Uuid", "domain/src/id.rs", "ids are typed; use one of domain::id"),
];

/// The place that is checked precisely by clippy may be excepted there, with its reason.
const CLIPPY_EXCEPTION: &str = "clippy::disallowed_methods";

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    if file.extension() != "rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    head(file, &mut found);
    length(file, &mut found);
    bans(file, &mut found);
    exceptions(file, &mut found);
    found
}

fn head(file: &File, found: &mut Vec<Finding>) {
    let first = file.text.lines().next().unwrap_or("");
    if first.strip_prefix("//! ").is_none_or(|sentence| sentence.trim().len() < 10) {
        let what = "opens without a `//!` sentence; say in one what this file owns";
        found.push(Finding::new(&file.path, 1, what));
    }
}

fn length(file: &File, found: &mut Vec<Finding>) {
    let lines = file.text.lines().count();
    let listed = LONG_FILES.iter().any(|(path, _)| Path::new(path) == file.path);
    if lines > LINES_MAX && !listed {
        let what = format!(
            "has {lines} lines, over {LINES_MAX}; divide it by what its parts own, or list it \
             with a reason in xtask/src/tidy/sources.rs"
        );
        found.push(Finding::new(&file.path, 0, what));
    } else if lines <= LINES_MAX && listed {
        let what = "is no longer too long; take it off the list in xtask/src/tidy/sources.rs";
        found.push(Finding::new(&file.path, 0, what));
    }
}

fn bans(file: &File, found: &mut Vec<Finding>) {
    let test_file = file.path.components().any(|part| part.as_os_str() == "tests")
        || file.path.ends_with("tests.rs");
    let ours = file.path.starts_with("xtask");
    let excepted = file.text.contains(CLIPPY_EXCEPTION);
    // Deadlines of waits are taken on the runtime's clock, which tests can hold still.
    let tokios = imports_tokio_instant(&file.text);
    let mut in_tests = test_file;
    for (index, line) in file.text.lines().enumerate() {
        // By our habit a file's tests are its end.
        in_tests = in_tests || line.trim() == "#[cfg(test)]";
        let code = without_comment_and_text(line);
        for (word, instead) in NEVER {
            if holds(&code, word) {
                found.push(Finding::new(&file.path, index + 1, format!("`{word}`: {instead}")));
            }
        }
        for (word, home, instead) in ELSEWHERE {
            let free = in_tests || ours || file.path.starts_with(home);
            let by_clippy = excepted && word != "Uuid" || word == "Instant::now" && tokios;
            if !free && !by_clippy && holds(&code, word) {
                found.push(Finding::new(&file.path, index + 1, format!("`{word}`: {instead}")));
            }
        }
    }
}

/// Whether `Instant` is tokio's here; clippy, which knows types, still refuses the system's.
fn imports_tokio_instant(text: &str) -> bool {
    text.contains("tokio::time::Instant")
        || text.split("use tokio::time::{").nth(1).is_some_and(|rest| {
            rest.split('}').next().is_some_and(|names| names.contains("Instant"))
        })
}

/// Whether code uses this word, not a longer one that ends or begins with it.
fn holds(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = !word.ends_with('!') && code[at + word.len()..].starts_with(part);
        !before && !after
    })
}

/// A line's code: what stands in string literals and after `//` is talk.
fn without_comment_and_text(line: &str) -> String {
    let mut code = String::new();
    let mut chars = line.chars().peekable();
    let mut in_text = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_text => {
                chars.next();
            }
            '"' => in_text = !in_text,
            '\'' if !in_text && chars.peek() == Some(&'"') => {
                // The character literal '"' opens no text.
                chars.next();
                chars.next();
            }
            '/' if !in_text && chars.peek() == Some(&'/') => break,
            other if !in_text => code.push(other),
            _text => {}
        }
    }
    code
}

/// `#[allow]` stays silent when it is no longer needed, and any exception needs its why.
fn exceptions(file: &File, found: &mut Vec<Finding>) {
    let lines: Vec<&str> = file.text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let allows = code.starts_with("#[allow(") || code.starts_with("#![allow(");
        let expects = code.starts_with("#[expect(") || code.starts_with("#![expect(");
        if !allows && !expects {
            continue;
        }
        let rest = &lines[index..];
        let end = rest.iter().position(|line| line.contains(")]")).map_or(rest.len(), |at| at + 1);
        if !rest[..end].iter().any(|line| line.contains("reason")) {
            let what = "an exception without a reason; write #[expect(lint, reason = \"...\")]";
            found.push(Finding::new(&file.path, index + 1, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, body: &str) -> Vec<String> {
        let text = format!("//! Owns what a test needs.\n{body}\n");
        let file = File { path: path.into(), text };
        check(&file).into_iter().map(|finding| finding.to_string()).collect()
    }

    fn one(path: &str, body: &str) -> bool {
        findings(path, body).len() == 1
    }

    #[test]
    fn a_head_is_asked_for() {
        let file = File { path: "a/src/lib.rs".into(), text: "fn a() {}\n".into() };
        assert_eq!(check(&file).len(), 1);
        assert!(findings("a/src/lib.rs", "fn a() {}").is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(one("a/src/lib.rs", &"fn a() {}\n".repeat(LINES_MAX)));
        assert!(findings("a/src/lib.rs", &"fn a() {}\n".repeat(LINES_MAX - 2)).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_even_in_tests() {
        assert!(one("a/src/lib.rs", "fn a() { todo!() }"));
        assert!(one("a/tests/x.rs", "fn a() { unimplemented!(\"later\") }"));
        assert!(one("xtask/src/x.rs", "let x = dbg!(y);"));
    }

    #[test]
    fn clocks_environment_and_bare_ids_have_one_home() {
        for line in
            ["Instant::now()", "std::time::SystemTime::now()", "env::var(name)", "id: Uuid,"]
        {
            assert!(one("balancer/src/lib.rs", line), "{line}");
            assert!(findings("tests/system/src/lib.rs", line).is_empty(), "{line}");
            let in_tests = format!("#[cfg(test)]\nmod tests {{ {line} }}");
            assert!(findings("balancer/src/lib.rs", &in_tests).is_empty(), "{line}");
        }
        assert!(findings("chassis/src/clock.rs", "Instant::now()").is_empty());
        let tokios = "use tokio::time::{Instant, sleep};\nlet end = Instant::now();";
        assert!(findings("balancer/src/lib.rs", tokios).is_empty());
        assert!(one("chassis/src/clock.rs", "Uuid::new()"));
        assert!(findings("domain/src/id.rs", "Uuid::new()").is_empty());
    }

    #[test]
    fn talk_is_not_code() {
        for line in [
            "// Instant::now is banned",
            "let x = \"todo!(\\\" dbg!\";",
            "let q = '\"'; // todo!",
            "MyInstant::nowhere()",
        ] {
            assert_eq!(findings("balancer/src/lib.rs", line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn an_exception_needs_its_reason() {
        assert!(one("a/src/lib.rs", "#[allow(dead_code)]"));
        assert!(one("a/src/lib.rs", "#[expect(\n    dead_code\n)]"));
        assert!(findings("a/src/lib.rs", "#[expect(x, reason = \"y\")]").is_empty());
        assert!(findings("a/src/lib.rs", "#[expect(\n x,\n reason = \"y\"\n)]").is_empty());
    }
}
