//! Requests go where their client, their key and the policy say.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use domain::{HashBy, HashRule, Health, PolicyName, Probe, RouteState, ServiceFront, Sticky};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use support::{Answer, Backend, Running, front, id, ok, read_request, ready, until};
use tokio::io::AsyncWriteExt;
use wire::picks::PicksView;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

async fn backends() -> Vec<Backend> {
    let mut all = Vec::new();
    for name in NAMES {
        all.push(Backend::named(name).await);
    }
    all
}

async fn publish(running: &Running, front: &ServiceFront, backends: &[Backend]) {
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    running.publish(front, &addresses).await;
}

async fn ask(running: &Running, lines: &str) -> Answer {
    running.send(&format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")).await
}

#[tokio::test]
async fn a_hashed_key_stays_where_it_is_when_another_instance_goes() {
    let running = Running::start().await;
    let backends = backends().await;
    let by = HashBy::Header("x-user".to_owned());
    let hash = HashRule { by, ..HashRule::default() };
    let front = ServiceFront { policy: PolicyName::Hash, hash, ..front("shop") };
    publish(&running, &front, &backends).await;
    let home = async |user: usize| {
        let answer = ask(&running, &format!("X-User: {user}\r\n")).await;
        assert_eq!(answer.status(), 200);
        answer.body().to_owned()
    };
    let mut homes = Vec::new();
    for user in 0..40 {
        homes.push(home(user).await);
        assert_eq!(home(user).await, homes[user]);
    }
    let used: BTreeSet<&str> = homes.iter().map(String::as_str).collect();
    assert_eq!(used.len(), NAMES.len(), "{homes:?}");
    let left = [0, 1, 3].map(|n| ready("shop", n, backends[n].address));
    running.publish_routes("shop", left.to_vec()).await;
    for (user, before) in homes.iter().enumerate() {
        let after = home(user).await;
        assert!(after == *before || before == "c", "{user}: {before} -> {after}");
        assert_ne!(after, "c");
    }
    assert_eq!(ask(&running, "").await.status(), 200, "who has no key is served all the same");
}

#[tokio::test]
async fn a_client_stays_at_its_instance_while_it_stands() {
    let running = Running::start().await;
    let backends = backends().await;
    let sticky = Sticky { cookie: "shop".to_owned(), max_age: Some(Duration::from_secs(60)) };
    let front = ServiceFront { sticky: Some(sticky), ..front("shop") };
    publish(&running, &front, &backends).await;
    let tie = |answer: &Answer| {
        let line = answer.head().lines().find_map(|l| {
            let (name, value) = l.split_once(": ")?;
            name.eq_ignore_ascii_case("set-cookie").then(|| value.to_owned())
        });
        line.map(|line| line.split(';').next().unwrap().to_owned())
    };
    let first = ask(&running, "").await;
    assert!(first.head().contains("; Max-Age=60"), "{}", first.head());
    let cookie = tie(&first).unwrap();
    for _ in 0..20 {
        let again = ask(&running, &format!("Cookie: x=y; {cookie}\r\n")).await;
        assert_eq!(again.body(), first.body());
        assert_eq!(tie(&again), None, "it still holds");
    }
    let gone = NAMES.iter().position(|name| *name == first.body()).unwrap();
    let left: Vec<_> =
        (0..4).filter(|n| *n != gone).map(|n| ready("shop", n, backends[n].address)).collect();
    running.publish_routes("shop", left).await;
    let moved = ask(&running, &format!("Cookie: {cookie}\r\n")).await;
    assert_ne!(moved.body(), first.body());
    assert_ne!(tie(&moved).unwrap(), cookie);
    let strange = ask(&running, "Cookie: shop=../../etc\r\n").await;
    assert!(strange.status() == 200 && tie(&strange).is_some());
}

#[tokio::test]
async fn every_policy_serves_and_leaves_nobody_out() {
    let running = Running::start().await;
    let backends = backends().await;
    for policy in PolicyName::ALL {
        let front = ServiceFront { policy, ..front("shop") };
        publish(&running, &front, &backends).await;
        let seen = std::sync::Mutex::new(BTreeSet::new());
        until("each of them is used", || async {
            let answer = running.get("/").await;
            assert_eq!(answer.status(), 200, "{policy:?}");
            let mut seen = seen.lock().unwrap();
            seen.insert(answer.body().to_owned());
            // One client's source has one instance.
            seen.len() == NAMES.len() || policy == PolicyName::Hash && seen.len() == 1
        })
        .await;
    }
}

/// How many checks an instance fails before it is unwell, one every tenth of a second.
fn checked(path: Option<&str>) -> Health {
    Health {
        path: path.map(str::to_owned),
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(500),
        failures: 2,
    }
}

/// Waits until none of ten requests goes to `backend`, or all of them are answered by both.
async fn until_unused(running: &Running, backend: &Backend) {
    until("the unwell one gets nothing", || async {
        let before = backend.hits();
        for _ in 0..10 {
            assert_eq!(running.get("/").await.status(), 200);
        }
        backend.hits() == before
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_fails_its_checks_gets_nothing_until_it_passes_one() {
    let running = Running::start().await;
    let well = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&well);
    let shy = Backend::raw(move |mut stream, hits| {
        let says = Arc::clone(&says);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let answer = if !request.starts_with("GET /up ") {
                    hits.fetch_add(1, Relaxed);
                    ok("shy")
                } else if says.load(Relaxed) {
                    ok("up")
                } else {
                    "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned()
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let steady = Backend::named("steady").await;
    let front = ServiceFront { health: checked(Some("/up")), ..front("shop") };
    running.publish(&front, &[shy.address, steady.address]).await;
    until_unused(&running, &shy).await;
    well.store(true, Relaxed);
    until("it is used again", || async { running.get("/").await.body() == "shy" }).await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_found_without_a_request() {
    let running = Running::start().await;
    let (gone, steady) = (Backend::named("gone").await, Backend::named("steady").await);
    let front = ServiceFront { health: checked(None), ..front("shop") };
    running.publish(&front, &[gone.address, steady.address]).await;
    gone.kill().await;
    until("it is unwell", || async {
        running.metric("tally_balancer_instances{service=\"shop\",state=\"unwell\"}").await
            == Some(1.0)
    })
    .await;
    assert_eq!(running.get("/").await.body(), "steady");
    steady.kill().await;
    until("nobody is taken out when all are unwell", || async {
        running.metric("tally_balancer_instances{service=\"shop\",state=\"standing\"}").await
            == Some(2.0)
    })
    .await;
}

#[tokio::test]
async fn probes_find_the_instance_that_is_quick_and_not_busy() {
    let running = Running::start().await;
    let probes = Arc::new(AtomicUsize::new(0));
    let mut backends = Vec::new();
    for (name, says) in [
        ("slow", "named_metrics.rif=1,named_metrics.latency=0.5"),
        ("quick", "named_metrics.rif=0,named_metrics.latency=0.01"),
        ("slower", "named_metrics.rif=1,named_metrics.latency=0.9"),
    ] {
        let probes = Arc::clone(&probes);
        backends.push(
            Backend::answering(move |request| {
                if !request.starts_with("GET /probe ") {
                    return ok(name);
                }
                probes.fetch_add(1, Relaxed);
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nendpoint-load-metrics: TEXT ";
                format!("{head}cpu_utilization=0.1,{says}\r\n\r\n")
            })
            .await,
        );
    }
    let probe = Some(Probe { path: "/probe".to_owned() });
    let front = ServiceFront { policy: PolicyName::Prequal, probe, ..front("shop") };
    publish(&running, &front, &backends).await;
    until("most go to the quick one", || async {
        let mut quick = 0;
        for _ in 0..40 {
            quick += usize::from(running.get("/").await.body() == "quick");
        }
        quick >= 30
    })
    .await;
    assert!(probes.load(Relaxed) > 40, "about three a request: {}", probes.load(Relaxed));
}

#[tokio::test]
async fn the_last_picks_are_explained() {
    let running = Running::start().await;
    let backends = backends().await;
    publish(&running, &front("shop"), &backends).await;
    let mut entries: Vec<_> = (0..4).map(|n| ready("shop", n, backends[n].address)).collect();
    entries[2].state = RouteState::Draining;
    running.publish_routes("shop", entries).await;
    let read = async |query: &str| {
        let answer = running.ask_admin(&format!("/v1/picks?{query}")).await;
        (answer.status(), answer.body().to_owned())
    };
    let (status, text) = read("service=shop").await;
    let none: PicksView = serde_json::from_str(&text).unwrap();
    assert_eq!((status, none.items.len(), none.field.standing), (200, 0, 3));
    let body = running.get("/").await.body().to_owned();
    let picks: PicksView = serde_json::from_str(&read("service=shop&limit=1").await.1).unwrap();
    let pick = &picks.items[0];
    let chosen = NAMES.iter().position(|name| *name == body).unwrap();
    assert_eq!((pick.policy.as_str(), &pick.chosen), ("feedback", &id("shop", chosen)));
    assert_eq!(pick.candidates.len(), 3);
    let least = pick.candidates.iter().map(|c| c.cost).fold(f64::MAX, f64::min);
    let won = pick.candidates.iter().find(|c| c.instance == pick.chosen).unwrap();
    assert!(won.cost <= least && (won.success - 1.0).abs() < 1e-9);
    let not: Vec<_> = pick.not_eligible.iter().map(|n| (&n.instance, n.why.as_str())).collect();
    assert_eq!(not, [(&id("shop", 2), "draining")]);
    let (status, text) = read("service=nobody").await;
    assert!(status == 404 && text.contains("problem"), "{text}");
    assert_eq!(read("limit=1").await.0 / 100, 4);
}
