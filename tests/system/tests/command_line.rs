//! Bad input, at the command line and over HTTP: a sentence that says what to do, the right code,
//! and nothing changed.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Output;
use system_tests::api::Answer;
use system_tests::platform::{Platform, demo_service};
use system_tests::process::run;

/// Nobody listens here: the port is reserved.
const NOWHERE: &str = "http://127.0.0.1:1";

/// What a command said on stderr, having ended with `code`.
fn said(output: &Output, code: i32) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(!told.trim().is_empty() && !told.contains("panicked"), "{told}");
    told
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a manifest");
    path.display().to_string()
}

fn service_file(folder: &Path, name: &str, rest: &str) -> String {
    let text = format!("kind: service\nname: {name}\nrun: {{command: [a]}}\n{rest}\n");
    file(folder, &format!("{name}.yaml"), &text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_manifest_gets_a_sentence_and_changes_nothing() {
    let platform = Platform::start(None).await;
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name).display().to_string();
    let many = format!("kind: service\nname: big\nowner: {}\n", "a".repeat(2 << 20));
    let good = "kind: service\nname: good\nmin_instances: 0\nrun: {command: [a]}\n";
    let table = [
        (service_file(folder.path(), "key", "min_instance: 1"), "did you mean `min_instances`?"),
        (
            service_file(folder.path(), "quantity", "resources: {cpu: lots, memory: 64MiB}"),
            "/resources/cpu: \"lots\"",
        ),
        (
            service_file(folder.path(), "bounds", "min_instances: 3\nmax_instances: 2"),
            "min_instances",
        ),
        (service_file(folder.path(), "unit", "load: {window: 60}"), "/load/window"),
        (file(folder.path(), "broken.yaml", "kind: service\nname: [x\n"), "not YAML"),
        (file(folder.path(), "kind.yaml", "kind: servise\nname: x\n"), "service"),
        (file(folder.path(), "big.yaml", &many), "bytes at most"),
        (in_folder("absent.yaml"), "cannot be read"),
        // One wrong document keeps the right ones back, too.
        (
            file(folder.path(), "two.yaml", &format!("{good}---\nkind: service\nname: UPPER\n")),
            "document 2",
        ),
    ];
    for (path, words) in table {
        for more in [&[][..], &["--dry-run"], &["--no-wait"]] {
            let args = ["apply", "-f", &path, "--api", &platform.at.api];
            let told = said(&run(&[&args[..], more].concat()), 2);
            assert!(told.contains(words), "{path}: {told}");
        }
    }
    for args in [
        &["service", "scale", "good", "many"][..],
        &["service", "get", "NOT-A-NAME"],
        &["budget", "set", "--monthly-cap", "a lot"],
        &["apply"],
        &["no-such-command"],
    ] {
        said(&run(&[args, &["--api", &platform.at.api]].concat()), 2);
    }
    let list = platform.api().get("/v1/services").await.body;
    assert_eq!(list["items"], json!([]), "nothing changed");
    let budget = platform.api().get("/v1/budget").await.body;
    assert_eq!(budget["monthly_cap"], "unset", "nothing changed");
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_says_what_kind_of_failure_it_was() {
    let platform = Platform::start(None).await;
    let api = platform.at.api.clone();
    let folder = tempfile::tempdir().unwrap();
    let path = service_file(folder.path(), "coded", "min_instances: 0");
    let apply = ["apply", "-f", &path, "--api", &api];
    let first = run(&[&apply[..], &["--if-version", "0"]].concat());
    assert!(first.status.success(), "{first:?}");

    let told = said(&run(&[&apply[..], &["--if-version", "7"]].concat()), 4);
    assert!(told.contains("generation 1"), "{told}");
    said(&run(&[&apply[..], &["--if-version", "0"]].concat()), 4);
    let view = platform.service("coded").await.unwrap();
    assert_eq!(view.generation.0, 1, "a conflict changes nothing");

    let told = said(&run(&["apply", "-f", &path, "--no-wait", "--api", NOWHERE]), 5);
    assert!(told.contains("tally up"), "the next step: {told}");
    said(&run(&["service", "ls", "--api", NOWHERE]), 5);
    let told = said(&run(&["service", "get", "absent", "--api", &api]), 1);
    assert!(told.contains("absent"), "{told}");

    // Its command cannot be started: accepted, and not ready in time.
    let stuck = service_file(folder.path(), "stuck", "min_instances: 1");
    let waited = run(&["apply", "-f", &stuck, "--timeout", "1s", "--api", &api]);
    let told = said(&waited, 3);
    assert!(told.contains("stuck"), "{told}");

    for path in ["/v1/services", "/v1/services/coded", "/v1/budget", "/v1/node-types"] {
        let words: &[&str] = match path {
            "/v1/services" => &["service", "ls"],
            "/v1/services/coded" => &["service", "get", "coded"],
            "/v1/budget" => &["budget", "get"],
            _ => &["node-type", "ls"],
        };
        same_as_the_api(&platform, words, path).await;
    }
    platform.down().await;
}

/// `--json` prints the API's body, key for key; figures that move on by themselves may differ.
async fn same_as_the_api(platform: &Platform, words: &[&str], path: &str) {
    let output = run(&[words, &["--json", "--api", &platform.at.api]].concat());
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let body = platform.api().get(path).await.body;
    assert_eq!(still(printed), still(body), "{words:?}");
}

/// The same without what an instance that keeps failing changes by itself.
fn still(mut value: Value) -> Value {
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        for item in items {
            *item = still(item.take());
        }
    }
    if let Some(state) = value.get_mut("state").and_then(Value::as_object_mut) {
        state.values_mut().for_each(|v| *v = Value::Null);
        state.retain(|key, _| !matches!(key.as_str(), "waiting_for" | "report" | "load"));
    }
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_belongs_to_one_tally_and_a_lone_role_needs_redis() {
    let platform = Platform::start(None).await;
    let data = platform.data().display().to_string();
    let config = platform.folder().join("tally.toml").display().to_string();
    let args = ["up", "--data", &data, "--config", &config, "--listen", "127.0.0.1:0"];
    let second = run(&[&args[..], &["--api", "127.0.0.1:0"]].concat());
    let told = said(&second, 1);
    assert!(told.contains("another `tally up` runs on"), "{told}");
    assert!(platform.nodes().await.is_ok(), "the first runs on");

    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("data");
    for role in ["balancer", "load-receiver", "container-manager"] {
        let told = said(&run(&[role, "--data", &fresh.display().to_string()]), 2);
        assert!(told.contains("--redis") && told.contains("one process only"), "{told}");
    }
    let wrong = file(folder.path(), "wrong.toml", "[balancer]\nlistn = \"127.0.0.1:0\"\n");
    let told = said(&run(&["up", "--data", &fresh.display().to_string(), "--config", &wrong]), 2);
    assert!(told.contains("listen"), "{told}");
    assert!(!fresh.exists(), "a usage error makes no directory");
    platform.down().await;
}

fn problem(answer: &Answer, status: StatusCode, kind: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let media = answer.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    assert_eq!(media, Some("application/problem+json"), "{}", answer.body);
    assert_eq!(answer.body["type"], format!("/problems/{kind}"), "{}", answer.body);
    assert_eq!(answer.body["status"], status.as_u16(), "{}", answer.body);
    for words in ["title", "detail"] {
        assert!(answer.body[words].as_str().is_some_and(|w| !w.is_empty()), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_problems_point_at_the_field() {
    let platform = Platform::start(None).await;
    let api = platform.api();
    let good = demo_service(0, 1);
    let path = "/v1/services/exact";
    let created = api.put(path, &good).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    let tag = created.headers.get(http::header::ETAG).expect("an ETag").to_str().unwrap();
    assert_eq!(tag, "\"1\"");

    let mut bad = good.clone();
    bad["load"]["up"] = json!("fast");
    for (pointer, body) in [
        ("/load/up", bad),
        ("/max_instance", json!({"max_instance": 3, "run": {"command": ["a"]}})),
        (
            "/resources/memory",
            json!({"resources": {"cpu": "1", "memory": "much"}, "run": {"command": ["a"]}}),
        ),
        ("/name", json!({"name": "other", "run": {"command": ["a"]}})),
    ] {
        let answer = api.put(path, &body).await;
        problem(&answer, StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{}", answer.body);
    }
    let unreadable = api.call(Method::PUT, path, &[], "{\"max_instances\": ").await;
    problem(&unreadable, StatusCode::BAD_REQUEST, "bad-request");
    problem(&api.get("/v1/services/absent").await, StatusCode::NOT_FOUND, "not-found");
    problem(&api.get("/v1/no-such-path").await, StatusCode::NOT_FOUND, "not-found");
    let stale = api.call(Method::PUT, path, &[("if-match", "\"9\"")], &good.to_string()).await;
    problem(&stale, StatusCode::PRECONDITION_FAILED, "precondition-failed");
    let twice = api.call(Method::PUT, path, &[("if-none-match", "*")], &good.to_string()).await;
    problem(&twice, StatusCode::PRECONDITION_FAILED, "precondition-failed");
    let mut large = good.clone();
    large["owner"] = json!("a".repeat(4 << 20));
    problem(&api.put(path, &large).await, StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    let method = api.call(Method::DELETE, "/v1/services", &[], "").await;
    problem(&method, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed");

    let kept = api.get(path).await;
    assert_eq!(kept.body["generation"], 1, "nothing changed: {}", kept.body);
    assert_eq!(kept.body["max_instances"], 1, "{}", kept.body);
    platform.down().await;
}
