//! All text: white space, conflict marks, and places that are not the reader's.

use std::path::Path;

use super::{File, Finding};

/// Kinds of files whose white space is ours to keep.
const OURS: [&str; 10] = ["rs", "toml", "md", "yaml", "yml", "sh", "cfg", "sql", "service", "json"];

/// Folders on somebody's own machine; a reader's is laid out otherwise.
const FOREIGN_FOLDERS: [&str; 3] = ["work", "root", "Users"];

/// Hosts a link or an example may name.
const HOSTS: &[&str] = &[
    "apache.org",
    "www.apache.org",
    "crates.io",
    "docs.rs",
    "github.com",
    "spec.openapis.org",
    "www.rfc-editor.org",
    "rfc-editor.org",
    "www.w3.org",
    "keepachangelog.com",
    "semver.org",
    "redis.io",
    "docs.docker.com",
    "www.haproxy.org",
    "json-schema.org",
    "static.rust-lang.org",
    "sh.rustup.rs",
    "doc.rust-lang.org",
    "www.kernel.org",
    "docs.kernel.org",
    "rustup.rs",
];

/// Endings reserved for examples and tests (RFC 2606, RFC 6761, RFC 6762).
const EXAMPLE_ENDINGS: [&str; 9] = [
    ".example",
    ".test",
    ".invalid",
    ".localhost",
    ".local",
    ".internal",
    "example.com",
    "example.org",
    "example.net",
];

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    let lock = file.path == Path::new("Cargo.lock");
    let licence = file.path == Path::new("LICENSE");
    if lock || licence {
        return Vec::new();
    }
    let mut found = Vec::new();
    let spaced = OURS.contains(&file.extension());
    for (index, line) in file.text.lines().enumerate() {
        let mut say = |what: String| found.push(Finding::new(&file.path, index + 1, what));
        if spaced && line.ends_with([' ', '\t', '\r']) {
            say("white space at the line's end; remove it".into());
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            say("a conflict mark; finish the merge".into());
        }
        if let Some(folder) = foreign_folder(line) {
            say(format!("`/{folder}/` is a folder of one machine; name one any reader has"));
        }
        if let Some(host) = foreign_host(line) {
            say(format!(
                "links to {host}; use a host reserved for examples, or list it in \
                 xtask/src/tidy/text.rs"
            ));
        }
    }
    if spaced && !file.text.is_empty() && !file.text.ends_with('\n') {
        found.push(Finding::new(&file.path, 0, "ends without a newline; add one"));
    }
    found
}

fn foreign_folder(line: &str) -> Option<&'static str> {
    FOREIGN_FOLDERS.into_iter().find(|folder| {
        line.match_indices(&format!("/{folder}/")).any(|(at, _)| {
            // In the middle of a longer path it is another folder; a path of our own begins here.
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !(c.is_alphanumeric() || "._-}~/*".contains(c)))
        })
    })
}

/// The first literal host of a URL that is on no list. Hosts with placeholders, numbers only, or
/// no dot name nobody.
fn foreign_host(line: &str) -> Option<&str> {
    for (at, mark) in line.match_indices("://") {
        let rest = &line[at + mark.len()..];
        let ends = |c: char| !(c.is_ascii_alphanumeric() || "-._{}$@".contains(c));
        let host = rest.split(ends).next().unwrap_or("");
        let host = host.rsplit('@').next().unwrap_or(host).trim_end_matches('.');
        let literal = host.contains('.')
            && !host.contains(['{', '$'])
            && host.rsplit('.').next().is_some_and(|tld| tld.chars().all(char::is_alphabetic));
        let known =
            HOSTS.contains(&host) || EXAMPLE_ENDINGS.iter().any(|ending| host.ends_with(ending));
        if literal && !known {
            return Some(host);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&File { path: path.into(), text: text.into() }).len()
    }

    #[test]
    fn white_space_is_kept_clean() {
        assert_eq!(count("a.md", "one \ntwo\t\n"), 2);
        assert_eq!(count("a.rs", "no newline"), 1);
        assert_eq!(count("a.png.txt", "free here "), 0);
    }

    #[test]
    fn conflict_marks_are_found() {
        assert_eq!(count("a.md", "<<<<<<< ours\n"), 1);
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        let folder = FOREIGN_FOLDERS[0];
        assert_eq!(count("a.md", &format!("see `/{folder}/thing`\n")), 1);
        assert_eq!(count("a.md", &format!("see /srv/{folder}/thing and {folder}/x\n")), 0);
    }

    #[test]
    fn unlisted_hosts_are_found_and_examples_pass() {
        let scheme = "https:";
        assert_eq!(count("a.md", &format!("{scheme}//mirror.somewhere.io/x\n")), 1);
        for host in [
            "shop.example.com",
            "github.com/x",
            "127.0.0.1:80",
            "{addr}/v1",
            "redis:6379",
            "a.test",
        ] {
            assert_eq!(count("a.md", &format!("{scheme}//{host}\n")), 0, "{host}");
        }
    }
}
