//! Ports and modes at registration: what is refused, and what a service's state says.

use crate::cell::{Cell, Manager, until};
use domain::{Ability, BalancerId};
use scoreboard::Board;
use serde_json::{Value, json};
use std::time::Duration;

const NAT: &str = r#"{"run": {"command": ["./db"]}, "route": {"mode": "nat", "port": 5432}}"#;
const TCP: &str = r#"{"run": {"command": ["./db"]}, "route": {"mode": "tcp", "port": 5432}}"#;

async fn put(manager: &Manager, name: &str, body: &str) -> (u16, Value) {
    let path = format!("/v1/services/{name}");
    let answer = crate::api_tests::call(&manager.client, "PUT", &path, &[], body).await;
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
}

async fn says(cell: &Cell, balancer: &str, ability: &Ability) {
    let balancer: BalancerId = balancer.parse().unwrap();
    cell.board.write_ability(&balancer, ability).await.unwrap();
    cell.board.write_demand(&balancer, &[]).await.unwrap();
}

#[tokio::test]
async fn nat_is_refused_where_every_balancer_lacks_something() {
    let cell = Cell::new().await;
    let manager = crate::api_tests::started(&cell).await;
    let lame = Ability { nat_lacks: Some("install nftables".into()), ..Ability::default() };
    says(&cell, "b-1", &lame).await;
    let (status, problem) = put(&manager, "db", NAT).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/route/mode")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("b-1: install nftables") && detail.contains("mode tcp"), "{detail}");
    says(&cell, "b-2", &Ability::default()).await;
    assert_eq!(put(&manager, "db", NAT).await.0, 201, "one that can is enough");
    manager.stop().await;
}

#[tokio::test]
async fn a_port_belongs_to_one_service_and_troubles_show_in_its_state() {
    let cell = Cell::new().await;
    let manager = crate::api_tests::started(&cell).await;
    assert_eq!(put(&manager, "db", TCP).await.0, 201);
    let (status, problem) = put(&manager, "cache", TCP).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (409, &json!("/route/port")));
    let plain = r#"{"run": {"command": ["./web"]}}"#;
    assert_eq!(put(&manager, "web", plain).await.0, 201, "http shares its port");
    until("the trouble is shown", || async {
        let mut trouble = Ability::default();
        trouble.troubles.insert("db".parse().unwrap(), "port 5432 is taken".to_owned());
        says(&cell, "b-1", &trouble).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let path = "/v1/services/db";
        let answer = crate::api_tests::call(&manager.client, "GET", path, &[], "").await;
        let view: Value = serde_json::from_slice(&answer.body).unwrap();
        let waiting = view["state"]["waiting_for"].as_str().unwrap_or_default();
        (waiting == "balancer b-1: port 5432 is taken").then_some(())
    })
    .await;
    manager.stop().await;
}
