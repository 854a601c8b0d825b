//! What an outer balancer is told, and what instances' agents decide.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use domain::Terms;
use scoreboard::Board;
use support::{Backend, Running, front, id, until};
use wire::orca::{HEADER, OrcaReport};

/// The report in an answer's head, which must have one at most.
fn report(head: &str) -> Option<OrcaReport> {
    let mut values = head.lines().filter_map(|line| line.strip_prefix("endpoint-load-metrics: "));
    let value = values.next()?;
    assert_eq!(values.next(), None, "{head}");
    Some(OrcaReport::parse(HEADER.as_bytes(), value.as_bytes()).unwrap())
}

#[tokio::test]
async fn who_asks_is_told_the_services_load() {
    let running = Running::start().await;
    let mut backends = Vec::new();
    for load in ["0.2", "0.6"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nendpoint-load-metrics: TEXT application_utilization={load},\
             named_metrics.in_flight=4\r\nContent-Length: 2\r\n\r\nok"
        );
        backends.push(Backend::answering(move |_request| answer.clone()).await);
    }
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    running.publish(&front("shop"), &addresses).await;
    let ask = async |format: &str| {
        let head = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n";
        let answer =
            running.send(&format!("{head}endpoint-load-metrics-format: {format}\r\n\r\n")).await;
        assert_eq!(answer.status(), 200);
        report(answer.head())
    };
    until("both instances' loads are in it", || async {
        let told = ask("TEXT").await.unwrap();
        // Between the two, nearer to that of the instance which does as much at less load.
        let load = told.application_utilization.unwrap_or_default();
        told.in_flight == Some(8) && (0.2..=0.4).contains(&load)
    })
    .await;
    for format in ["JSON", "BIN"] {
        assert_eq!(ask(format).await.unwrap().in_flight, Some(8), "{format}");
    }
    assert_eq!(ask("XML").await, None);
    assert_eq!(report(running.get("/").await.head()), None, "who does not ask is told nothing");
}

#[tokio::test]
async fn an_agent_closes_its_instance_and_opens_it_again() {
    let running = Running::start().await;
    let (first, second) = (Backend::named("first").await, Backend::named("second").await);
    running.publish(&front("shop"), &[first.address, second.address]).await;
    let answers = async |name: &'static str| running.get("/").await.body() == name;
    until("the first gets requests", || answers("first")).await;
    running.board.write_terms(&[(id("shop", 0), Terms::NOTHING_NEW)]).await.unwrap();
    until("the first gets none", || async {
        let before = first.hits();
        for _ in 0..20 {
            assert_eq!(running.get("/").await.status(), 200);
        }
        first.hits() == before
    })
    .await;
    running.board.write_terms(&[(id("shop", 0), Terms::AS_CONFIGURED)]).await.unwrap();
    until("the first gets requests again", || answers("first")).await;
}
