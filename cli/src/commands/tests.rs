//! The commands against a small API: what is sent, what comes back as an exit code.

use super::fake::Fake;
use super::run;
use crate::args::{Cli, Command};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use std::path::PathBuf;
use wire::problem::Kind;

/// Parses a command line and carries it out; the number is the exit code.
async fn tally(fake: &Fake, words: &[&str]) -> u8 {
    let line = ["tally", "--api", &fake.url].into_iter().chain(words.iter().copied());
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(e) => return u8::try_from(e.exit_code()).unwrap(),
    };
    let Command::Operator(command) = cli.command else {
        panic!("{words:?} is no operator command")
    };
    let code = run(command, &cli.global).await;
    (0..=255).find(|n| code == std::process::ExitCode::from(*n)).unwrap()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifests.yaml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

const SERVICE: &str = "kind: service\nname: shop\nmin_instances: 2\nmax_instances: 3\n\
                       run: {command: [./shop, '{port}']}\n";
const NODE_TYPE: &str = "kind: node-type\nname: small\nprovider: local\ncpu: 2\nmemory: 4GiB\n\
                         price_per_hour: 0.0060 EUR\n";
const BUDGET: &str = "kind: budget\nmonthly_cap: 120 EUR\n";

fn service(ready: u32, generation: u64, revision: u64) -> Value {
    json!({
        "name": "shop", "min_instances": 2, "generation": generation, "revision": revision,
        "state": {
            "desired": 2, "ready": ready, "starting": 2 - ready, "draining": 0, "paused": 0,
            "held_requests": 0, "waiting_for": "a node that is coming",
        },
    })
}

fn instances(revisions: &[u64]) -> Value {
    let items: Vec<Value> = revisions
        .iter()
        .map(|r| json!({ "id": "shop-0123456789", "revision": r, "state": "ready" }))
        .collect();
    json!({ "items": items })
}

#[tokio::test]
async fn apply_declares_types_and_money_first_and_waits_for_the_new_revision() {
    let fake = Fake::start().await;
    fake.on("GET /v1/services/shop", 200, &service(2, 3, 1))
        .on("GET /v1/services/shop", 200, &service(1, 4, 2))
        .on("GET /v1/services/shop", 200, &service(2, 4, 2))
        .on("PUT /v1/services/shop", 200, &service(2, 4, 2))
        .on("GET /v1/services/shop/instances", 200, &instances(&[1, 2]))
        .on("GET /v1/services/shop/instances", 200, &instances(&[2, 2]))
        .on("PUT /v1/node-types/small", 201, &json!({ "name": "small", "generation": 1 }))
        .on("GET /v1/budget", 200, &json!({ "generation": 0 }))
        .on("PUT /v1/budget", 200, &json!({ "generation": 1 }));
    let (_dir, path) = file(&format!("{SERVICE}---\n{BUDGET}---\n{NODE_TYPE}"));
    assert_eq!(tally(&fake, &["apply", "-f", path.to_str().unwrap()]).await, 0);
    let order = ["PUT /v1/node-types/small", "PUT /v1/budget", "PUT /v1/services/shop"];
    assert_eq!(fake.writes(), order);
    let lines: Vec<String> = fake.seen().into_iter().map(|s| s.line).collect();
    let asked = |line: &str| lines.iter().filter(|l| *l == line).count();
    // Ready instances of the old revision were not enough.
    assert_eq!(asked("GET /v1/services/shop/instances"), 2);
    let put = fake.seen().into_iter().find(|s| s.line == "PUT /v1/services/shop").unwrap();
    assert_eq!(put.body["kind"], "service");
    assert_eq!(put.body["run"]["command"], json!(["./shop", "{port}"]));
    assert_eq!(put.headers.get("if-match"), None);
}

#[tokio::test]
async fn apply_ends_with_3_when_it_is_not_satisfied_in_time() {
    let fake = Fake::start().await;
    fake.on("GET /v1/services/shop", 200, &service(0, 1, 1)).on(
        "PUT /v1/services/shop",
        201,
        &service(0, 1, 1),
    );
    let (_dir, path) = file(SERVICE);
    let path = path.to_str().unwrap();
    assert_eq!(tally(&fake, &["apply", "-f", path, "--timeout", "100ms"]).await, 3);
    assert_eq!(tally(&fake, &["apply", "-f", path, "--no-wait"]).await, 0);
    let before = fake.seen().len();
    assert_eq!(tally(&fake, &["apply", "-f", path, "--timeout", "soon"]).await, 2);
    assert_eq!(fake.seen().len(), before, "a wrong command line sends nothing");
}

#[tokio::test]
async fn apply_with_a_minimum_of_0_waits_for_nothing() {
    let fake = Fake::start().await;
    fake.on("PUT /v1/services/shop", 201, &service(0, 1, 1));
    let (_dir, path) = file(&SERVICE.replace("min_instances: 2\n", ""));
    assert_eq!(tally(&fake, &["apply", "-f", path.to_str().unwrap()]).await, 0);
    assert_eq!(fake.seen().len(), 3, "one greeting, one look, one write");
}

#[tokio::test]
async fn versions_become_preconditions_and_their_failure_is_4() {
    let fake = Fake::start().await;
    fake.refuse("PUT /v1/services/shop", Kind::Precondition, "service shop is at version 7");
    let (_dir, path) = file(SERVICE);
    let path = path.to_str().unwrap();
    assert_eq!(tally(&fake, &["apply", "-f", path, "--if-version", "6"]).await, 4);
    assert_eq!(tally(&fake, &["apply", "-f", path, "--if-version", "0"]).await, 4);
    let seen: Vec<_> = fake.seen().into_iter().filter(|s| s.line.starts_with("PUT")).collect();
    assert_eq!(seen[0].headers.get("if-match").map(String::as_str), Some("\"6\""));
    assert_eq!(seen[1].headers.get("if-none-match").map(String::as_str), Some("*"));
    let (_dir, two) = file(&format!("{SERVICE}---\n{BUDGET}"));
    let words = ["apply", "-f", two.to_str().unwrap(), "--if-version", "6"];
    assert_eq!(tally(&fake, &words).await, 2, "one version cannot be that of two manifests");
}

#[tokio::test]
async fn a_wrong_manifest_is_2_and_nothing_is_sent() {
    let fake = Fake::start().await;
    for text in ["", "kind: servise", "kind: service\nname: shop\nload: {upp: 1}", "{", BUDGET] {
        let text = if text == BUDGET {
            format!("{BUDGET}---\n{SERVICE}load: {{up: 40%}}\n")
        } else {
            text.to_owned()
        };
        let (_dir, path) = file(&text);
        assert_eq!(tally(&fake, &["apply", "-f", path.to_str().unwrap()]).await, 2, "{text}");
        assert_eq!(tally(&fake, &["plan", "-f", path.to_str().unwrap()]).await, 2, "{text}");
    }
    assert_eq!(tally(&fake, &["apply", "-f", "/nowhere/at/all.yaml"]).await, 2);
    assert_eq!(fake.seen(), vec![]);
    let (_dir, path) = file("kind: service\nname: shop\nrun: {command: [a]}\nload: {upp: 1}\n");
    let failure = super::apply::read(&[path.to_string_lossy().into_owned()]).unwrap_err();
    let text = failure.to_string();
    assert!(
        text.contains("manifests.yaml: /load/upp: ") && text.contains("did you mean `up`?"),
        "{text}"
    );
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let codes = [
        (Kind::NotFound, 1),
        (Kind::Unauthorized, 1),
        (Kind::Conflict, 4),
        (Kind::Precondition, 4),
        (Kind::Invalid, 2),
        (Kind::Cap, 1),
        (Kind::Internal, 1),
        (Kind::Unavailable, 5),
    ];
    for (kind, code) in codes {
        let fake = Fake::start().await;
        fake.refuse("POST /v1/nodes", kind, "no");
        assert_eq!(tally(&fake, &["node", "order", "small"]).await, code, "{kind:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_5_with_the_next_step() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let cli = Cli::try_parse_from(["tally", "--api", &address.to_string(), "node", "ls"]).unwrap();
    let api = cli.global.connect().unwrap();
    let failure = api.list("/v1/nodes").await.unwrap_err();
    assert_eq!(failure.code(), 5);
    let text = failure.to_string();
    assert!(text.contains(&format!("nothing answers at http://{address}")), "{text}");
    assert!(text.contains("`tally up`") && text.contains("--api"), "{text}");
}

#[tokio::test]
async fn plan_sends_all_manifests_and_tells_changes_by_its_code() {
    let fake = Fake::start().await;
    let change = |action: &str| {
        json!({ "changes": [{
            "kind": "service", "name": "shop", "action": action, "generation": 3,
            "fields": [{ "pointer": "/max_instances", "from": 2, "to": 3 }],
            "effects": ["one more instance may run"],
        }] })
    };
    fake.on("POST /v1/plan", 200, &change("change")).on("POST /v1/plan", 200, &change("none"));
    let (_dir, path) = file(&format!("{SERVICE}---\n{BUDGET}"));
    let words = ["plan", "--exit-code", "-f", path.to_str().unwrap()];
    assert_eq!(tally(&fake, &words).await, 10);
    assert_eq!(tally(&fake, &words).await, 0);
    let kinds: Vec<Value> =
        fake.seen()[0].body.as_array().unwrap().iter().map(|m| m["kind"].clone()).collect();
    assert_eq!(kinds, ["budget", "service"]);
}

#[tokio::test]
async fn lists_are_read_page_after_page() {
    let fake = Fake::start().await;
    fake.on("GET /v1/services", 200, &json!({ "items": [{ "name": "a" }], "next": "x/1" })).on(
        "GET /v1/services?cursor=x%2F1",
        200,
        &json!({ "items": [{ "name": "b" }] }),
    );
    let cli = Cli::try_parse_from(["tally", "--api", &fake.url, "service", "ls"]).unwrap();
    let body = cli.global.connect().unwrap().list("/v1/services").await.unwrap();
    assert_eq!(body, json!({ "items": [{ "name": "a" }, { "name": "b" }] }));
    assert_eq!(tally(&fake, &["service", "ls", "-o", "wide"]).await, 0);
    assert_eq!(tally(&fake, &["service", "ls", "--json"]).await, 0);
    assert_eq!(tally(&fake, &["service", "ls", "--json", "-o", "yaml"]).await, 2);
}

#[tokio::test]
async fn writes_say_what_they_mean() {
    const NODE: &str = "n-0123456789";
    let nodes = json!({ "items": [{ "id": NODE, "name": "db-1", "state": "ready" }] });
    let table: &[(&[&str], &str, Value)] = &[
        (&["service", "rm", "shop"], "DELETE /v1/services/shop", Value::Null),
        (
            &["service", "scale", "shop", "3"],
            "POST /v1/services/shop/scale",
            json!({ "instances": 3 }),
        ),
        (
            &["service", "scale", "shop", "auto", "--dry-run"],
            "POST /v1/services/shop/scale?dry_run=true",
            json!({ "instances": null }),
        ),
        (&["service", "wake", "shop"], "POST /v1/services/shop/wake", json!({})),
        (&["service", "restart", "shop"], "POST /v1/services/shop/restart", json!({})),
        (
            &["instance", "stop", "shop-0123456789"],
            "POST /v1/instances/shop-0123456789/stop",
            Value::Null,
        ),
        (&["node", "order", "small"], "POST /v1/nodes", json!({ "type": "small" })),
        (&["node", "drain", NODE], "POST /v1/nodes/n-0123456789/drain", Value::Null),
        (&["node", "drain", "db-1"], "POST /v1/nodes/n-0123456789/drain", Value::Null),
        (&["node", "rm", NODE], "DELETE /v1/nodes/n-0123456789", Value::Null),
        (&["node", "rm", NODE, "--force"], "DELETE /v1/nodes/n-0123456789?force=true", Value::Null),
        (&["node", "protect", NODE], "PATCH /v1/nodes/n-0123456789", json!({ "may_stop": false })),
        (&["node", "unprotect", NODE], "PATCH /v1/nodes/n-0123456789", json!({ "may_stop": true })),
        (
            &["node", "token", "--type", "small", "--name", "db-1", "--ttl", "30m"],
            "POST /v1/node-tokens",
            json!({ "type": "small", "name": "db-1", "ttl": "30m" }),
        ),
        (&["node-type", "rm", "small"], "DELETE /v1/node-types/small", Value::Null),
    ];
    for (words, line, body) in table {
        let fake = Fake::start().await;
        fake.on("GET /v1/nodes", 200, &nodes).on(line, 200, &json!({ "id": NODE, "token": "t" }));
        assert_eq!(tally(&fake, words).await, 0, "{words:?}: {:?}", fake.seen());
        let seen = fake.seen();
        let last = seen.last().unwrap();
        assert_eq!((last.line.as_str(), &last.body), (*line, body), "{words:?}");
    }
}

#[tokio::test]
async fn a_budget_keeps_what_is_not_said_and_its_version() {
    let fake = Fake::start().await;
    let now = json!({
        "monthly_cap": "100.00 EUR", "reserve": "5%", "pacing": "strict", "generation": 4,
    });
    fake.on("GET /v1/budget", 200, &now).on("PUT /v1/budget", 200, &now);
    assert_eq!(tally(&fake, &["budget", "set", "--monthly-cap", "120 EUR"]).await, 0);
    let put = fake.seen().pop().unwrap();
    assert_eq!(
        put.body,
        json!({
            "kind": "budget", "monthly_cap": "120 EUR", "reserve": "5%", "pacing": "strict"
        })
    );
    assert_eq!(put.headers.get("if-match").map(String::as_str), Some("\"4\""));
    assert_eq!(tally(&fake, &["budget", "set", "--reserve", "2%"]).await, 0);
    assert_eq!(fake.seen().pop().unwrap().body["monthly_cap"], "100.00 EUR");
    let before = fake.seen().len();
    for wrong in [&["--monthly-cap", "lots"][..], &["--reserve", "2"], &["--pacing", "fast"], &[]] {
        let words: Vec<&str> = ["budget", "set"].iter().chain(wrong).copied().collect();
        assert_eq!(tally(&fake, &words).await, 2, "{wrong:?}");
    }
    assert_eq!(fake.seen().len(), before);
}

#[tokio::test]
async fn reads_print_in_every_form() {
    let fake = Fake::start().await;
    let decisions = json!({ "items": [{
        "at": "2026-11-22T04:17:00.123Z", "service": "shop", "from": 1, "to": 2, "reason": "load",
        "inputs": "load=0.81", "clamps": ["max 2"], "waiting_for": "node", "actor": "planner",
        "cost_delta_per_hour": "0.0060 EUR",
    }] });
    let node = json!({ "id": "n-0123456789", "name": "db-1", "state": "ready", "may_stop": false });
    fake.on("GET /v1/services", 200, &json!({ "items": [service(1, 1, 1)] }))
        .on("GET /v1/services/shop", 200, &service(1, 1, 1))
        .on("GET /v1/services/shop/instances", 200, &instances(&[1]))
        .on("GET /v1/services/shop/decisions?limit=5", 200, &decisions)
        .on("GET /v1/services/shop/load", 200, &json!({ "items": [{ "at": "x", "rps": 1.0 }] }))
        .on("GET /v1/nodes", 200, &json!({ "items": [node] }))
        .on("GET /v1/nodes/n-0123456789", 200, &node)
        .on("GET /v1/nodes/n-0123456789/stats", 200, &json!({ "items": [] }))
        .on("GET /v1/node-types", 200, &json!({ "items": [{ "name": "small" }] }))
        .on("GET /v1/node-types/small", 200, &json!({ "name": "small" }))
        .on("GET /v1/budget", 200, &json!({ "monthly_cap": "unset", "held_back": [{}] }))
        .on("GET /v1/instances/shop-0123456789", 200, &json!({ "id": "shop-0123456789" }))
        .on("GET /v1/instances", 200, &instances(&[1]))
        .on(
            "GET /v1/instances/shop-0123456789/logs?lines=200",
            200,
            &json!({ "instance": "shop-0123456789", "lines": ["one", "two"] }),
        );
    let commands: &[&[&str]] = &[
        &["service", "ls"],
        &["service", "get", "shop"],
        &["service", "load", "shop"],
        &["instance", "ls"],
        &["instance", "ls", "--service", "shop"],
        &["instance", "get", "shop-0123456789"],
        &["instance", "logs", "shop-0123456789"],
        &["node", "ls"],
        &["node", "get", "db-1"],
        &["node", "stats", "db-1"],
        &["node-type", "ls"],
        &["node-type", "get", "small"],
        &["budget", "get"],
        &["explain", "service", "shop"],
        &["explain", "node", "db-1"],
        &["top", "--count", "1"],
        &["version"],
    ];
    for form in ["table", "wide", "json", "yaml", "name"] {
        for words in commands {
            let words: Vec<&str> = words.iter().chain(&["-o", form]).copied().collect();
            assert_eq!(tally(&fake, &words).await, 0, "{words:?}");
        }
    }
    assert_eq!(tally(&fake, &["service", "get", "nosuch"]).await, 1);
    assert_eq!(tally(&fake, &["node", "get", "nosuch"]).await, 1);
    assert_eq!(tally(&fake, &["service", "get", "No/Such"]).await, 2);
    assert_eq!(tally(&fake, &["service", "load", "shop", "--since", "yesterday"]).await, 2);
}

#[tokio::test]
async fn a_token_is_sent() {
    let fake = Fake::start().await;
    fake.on("GET /v1/nodes", 200, &json!({ "items": [] }));
    assert_eq!(tally(&fake, &["node", "ls", "--token", "secret"]).await, 0);
    let sent = fake.seen().pop().unwrap().headers.get("authorization").cloned();
    assert_eq!(sent.as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn events_are_read_to_the_end_of_what_is_kept() {
    let fake = Fake::start().await;
    let event = |seq: u64, at: &str| {
        let data = json!({
            "seq": seq, "at": at, "kind": "scale", "subject": "shop", "what": "up",
            "detail": "1 -> 2",
        });
        format!("id: {seq}\nevent: scale\ndata: {data}\n\n")
    };
    let text = format!(
        ": hello\n\n{}{}",
        event(8, "2026-01-01T00:00:00Z"),
        event(9, "2999-01-01T00:00:00Z")
    );
    fake.on_text("GET /v1/events", 200, "text/event-stream", &text);
    for form in ["table", "json", "yaml", "name"] {
        assert_eq!(tally(&fake, &["events", "--after", "7", "-o", form]).await, 0);
    }
    let seen = fake.seen().pop().unwrap();
    assert_eq!(seen.headers.get("last-event-id").map(String::as_str), Some("7"));
}

#[tokio::test]
async fn health_is_0_or_1() {
    let fake = Fake::start().await;
    fake.on_text("GET /readyz", 200, "text/plain", "ready\n").on_text(
        "GET /readyz",
        503,
        "text/plain",
        "registry: locked\n",
    );
    let words = ["health", "balancer", "--url", &fake.url];
    assert_eq!(tally(&fake, &words).await, 0);
    assert_eq!(tally(&fake, &words).await, 1);
    assert_eq!(tally(&fake, &["health", "container-manager"]).await, 1);
    assert_eq!(tally(&fake, &["health", "transmitter"]).await, 2);
    assert_eq!(tally(&fake, &["health", "balancer", "--url", "http://127.0.0.1:1"]).await, 1);
}

#[tokio::test]
async fn a_report_is_believed_or_refused() {
    let fake = Fake::start().await;
    fake.on("POST /v1/load", 202, &json!({ "accepted": 1, "rejected": [] })).on(
        "POST /v1/load",
        422,
        &json!({ "accepted": 0, "rejected": [{ "index": 0, "reason": "unknown instance" }] }),
    );
    let words = ["report", "shop", "shop-0123456789", "0.42", "--load-url", &fake.url];
    assert_eq!(tally(&fake, &words).await, 0);
    let seen = fake.seen();
    assert_eq!(
        seen[0].body,
        json!({ "service": "shop", "instance": "shop-0123456789", "load": 0.42 })
    );
    assert_eq!(tally(&fake, &words).await, 1);
    for wrong in ["-1", "101", "NaN", "much"] {
        let words = ["report", "shop", "shop-0123456789", wrong, "--load-url", &fake.url];
        assert_eq!(tally(&fake, &words).await, 2, "{wrong}");
    }
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
    let words = ["tally", "node", "join", "--api", "http://a:1", "--token", "t", "--label", "a=b"];
    let cli = Cli::try_parse_from(words).unwrap();
    let Command::Operator(super::OperatorCommand::Node(super::NodeCommand::Join(join))) =
        cli.command
    else {
        panic!("not a join")
    };
    assert_eq!((join.api.as_deref(), join.token.as_deref()), (Some("http://a:1"), Some("t")));
    assert_eq!(join.labels, ["a=b"]);
}

#[test]
fn manual_pages_and_completions_are_made() {
    let dir = tempfile::tempdir().unwrap();
    super::man(&Cli::command(), dir.path()).unwrap();
    let page = std::fs::read_to_string(dir.path().join("tally-apply.1")).unwrap();
    assert!(page.contains("if\\-version") || page.contains("if-version"), "{page}");
    assert!(!dir.path().join("tally-instance-shim.1").exists());
}
