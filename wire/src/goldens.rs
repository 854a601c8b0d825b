//! A recorded example of each message: a change of the wire is seen as a change of a file.
//!
//! `TALLY_GOLDEN=1 cargo test -p wire` writes the files anew; what was meant is then a diff to read.

mod operators;
mod parts;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

/// Examples by file name, each with its text and the name it is kept under.
#[derive(Default)]
struct Book {
    pages: Vec<(String, String)>,
}

impl Book {
    /// Adds a message: it must read back as it was written, and take nothing unknown for itself.
    fn page<T>(&mut self, name: &str, message: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let text = format!("{:#}\n", serde_json::to_value(message).unwrap());
        let back: T = serde_json::from_str(&text).unwrap();
        assert_eq!(&back, message, "{name} does not read back as it was written");
        self.pages.push((format!("{name}.json"), text));
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by the environment to write its files anew; the product never is"
)]
fn rewrites() -> bool {
    std::env::var("TALLY_GOLDEN").is_ok_and(|v| v == "1")
}

#[test]
fn messages_are_as_recorded() {
    let mut book = Book::default();
    parts::write(&mut book);
    operators::write(&mut book);
    let mut names = BTreeSet::new();
    for (name, text) in &book.pages {
        assert!(names.insert(name.clone()), "{name} is recorded twice");
        let path = folder().join(name);
        if rewrites() {
            std::fs::write(&path, text).unwrap();
        }
        let recorded = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{name}: {e}; run TALLY_GOLDEN=1 cargo test -p wire"));
        assert_eq!(
            text, &recorded,
            "{name} changed on the wire; if that is meant, run TALLY_GOLDEN=1"
        );
    }
    let kept: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert_eq!(kept, names, "a recorded message that nothing says any more");
    yaml_manifests_become_the_recorded_json();
}

/// After the files were compared, or written: what YAML says is what they hold.
fn yaml_manifests_become_the_recorded_json() {
    use crate::manifest::{Format, Manifest, parse_text};
    let yaml = std::fs::read_to_string(folder().join("manifests.yaml")).unwrap();
    let manifests = parse_text(&yaml, Format::Yaml).unwrap();
    let recorded = ["manifest-service.json", "manifest-node-type.json", "manifest-budget.json"]
        .map(|name| {
            let text = std::fs::read_to_string(folder().join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        });
    let values: Vec<Value> = manifests.iter().map(Manifest::to_value).collect();
    assert_eq!(values, recorded);
}
