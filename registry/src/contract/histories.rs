//! Contract: events and measurements.

use super::samples::{event, instance_id, node_id, service};
use super::{BEGINNING, Subject};
use crate::store::{InstanceStat, NodeStat, ServiceStat};
use domain::Timestamp;
use std::time::Duration;

fn at(seconds: u64) -> Timestamp {
    BEGINNING.plus(Duration::from_secs(seconds))
}

fn of_node(n: u32, seconds: u64) -> NodeStat {
    NodeStat {
        node: node_id(n),
        at: at(seconds),
        cpu_millis: 700,
        memory_bytes: 1 << 33,
        disk_bytes: u64::MAX,
        rx_bytes_per_second: 5,
        tx_bytes_per_second: 6,
    }
}

fn of_instance(n: u32, seconds: u64) -> InstanceStat {
    InstanceStat {
        instance: instance_id("shop", n),
        at: at(seconds),
        cpu_millis: 70,
        memory_bytes: 1 << 33,
        throttled_share: 12,
    }
}

fn of_service(name: &str, seconds: u64, load: Option<u32>) -> ServiceStat {
    ServiceStat {
        service: service(name),
        at: at(seconds),
        load,
        desired: 4,
        ready: 3,
        starting: 1,
        draining: 0,
        queued: 9,
        rps_milli: 1_234_567,
    }
}

/// Events get rising numbers and are read from any of them on.
pub async fn events_are_numbered(subject: &Subject) {
    let registry = &subject.registry;
    assert_eq!(registry.last_event().await.unwrap(), 0);
    registry.add_events(vec![event("a"), event("b")]).await.unwrap();
    registry.add_events(vec![]).await.unwrap();
    registry.add_events(vec![event("c")]).await.unwrap();
    let all = registry.events_after(0, 10).await.unwrap();
    let whats: Vec<_> = all.iter().map(|one| one.event.what.as_str()).collect();
    assert_eq!(whats, ["a", "b", "c"]);
    assert!(all.is_sorted_by(|one, next| one.seq < next.seq), "strictly");
    assert_eq!(registry.last_event().await.unwrap(), all[2].seq);
    assert_eq!(registry.events_after(all[0].seq, 1).await.unwrap(), vec![all[1].clone()]);
    assert_eq!(registry.events_after(all[2].seq, 9).await.unwrap(), vec![]);
    assert_eq!(registry.events_after(u64::MAX, 9).await.unwrap(), vec![]);
    assert_eq!(all[0].event, event("a"));
}

/// Measurements older than a day are dropped.
pub async fn stats_are_kept_for_a_day(subject: &Subject) {
    let registry = &subject.registry;
    let day = 24 * 3600;
    let (node, instance) = (node_id(1), instance_id("shop", 1));
    for seconds in [0, day] {
        subject.clock.set(at(seconds));
        let (nodes, instances) = (vec![of_node(1, seconds)], vec![of_instance(1, seconds)]);
        registry.add_stats(nodes, instances).await.unwrap();
        let point = of_service("shop", seconds, Some(5000));
        registry.add_service_stats(vec![point]).await.unwrap();
    }
    subject.upkeep().await;
    let all = Timestamp(i64::MIN);
    let nodes = registry.node_stats(&node, all, 9).await.unwrap();
    assert_eq!(nodes, vec![of_node(1, day)]);
    let instances = registry.instance_stats(&instance, all, 9).await.unwrap();
    assert_eq!(instances, vec![of_instance(1, day)]);
    let end = Timestamp(i64::MAX);
    let points = registry.service_stats(&service("shop"), all, end, 9).await.unwrap();
    assert_eq!(points, vec![of_service("shop", day, Some(5000))]);
}

/// The newest within a span are answered oldest first, also when they came out of order.
pub async fn stats_read_in_spans(subject: &Subject) {
    let registry = &subject.registry;
    let nodes = [3, 1, 2].map(|s| of_node(1, s)).into_iter().chain([of_node(2, 1)]).collect();
    let instances = vec![of_instance(1, 2), of_instance(1, 1), of_instance(2, 3)];
    registry.add_stats(nodes, instances).await.unwrap();
    let node = node_id(1);
    let found = registry.node_stats(&node, at(0), 9).await.unwrap();
    assert_eq!(found, [1, 2, 3].map(|s| of_node(1, s)));
    let found = registry.node_stats(&node, at(0), 2).await.unwrap();
    assert_eq!(found, [2, 3].map(|s| of_node(1, s)));
    assert_eq!(registry.node_stats(&node, at(3), 9).await.unwrap(), vec![of_node(1, 3)]);
    assert_eq!(registry.node_stats(&node, at(4), 9).await.unwrap(), vec![]);
    let found = registry.instance_stats(&instance_id("shop", 1), at(0), 9).await.unwrap();
    assert_eq!(found, [1, 2].map(|s| of_instance(1, s)));
    let points: Vec<_> = [4, 5, 6, 7].map(|s| of_service("shop", s, None)).into();
    registry.add_service_stats(points).await.unwrap();
    registry.add_service_stats(vec![of_service("blog", 5, Some(40_000))]).await.unwrap();
    let shop = service("shop");
    let found = registry.service_stats(&shop, at(5), at(7), 9).await.unwrap();
    assert_eq!(found, [5, 6].map(|s| of_service("shop", s, None)));
    let found = registry.service_stats(&shop, at(0), at(9), 1).await.unwrap();
    assert_eq!(found, vec![of_service("shop", 7, None)]);
    assert_eq!(registry.service_stats(&shop, at(7), at(5), 9).await.unwrap(), vec![]);
}

/// Only the newest events are kept; their numbers stay. (Bound: 5.)
pub async fn events_are_bounded(subject: &Subject) {
    let registry = &subject.registry;
    let events = (0..9).map(|n| event(&n.to_string())).collect();
    registry.add_events(events).await.unwrap();
    subject.upkeep().await;
    let kept = registry.events_after(0, 99).await.unwrap();
    let seqs: Vec<u64> = kept.iter().map(|one| one.seq).collect();
    assert_eq!(seqs, [5, 6, 7, 8, 9]);
    registry.add_events(vec![event("next")]).await.unwrap();
    assert_eq!(registry.last_event().await.unwrap(), 10);
}

/// Only the newest measurements are kept, of whatever they are. (Bound: 8.)
pub async fn stats_are_bounded(subject: &Subject) {
    let registry = &subject.registry;
    let nodes = (0..12).map(|s| of_node(1, s)).collect();
    let instances = (0..12).map(|s| of_instance(1, s)).collect();
    registry.add_stats(nodes, instances).await.unwrap();
    let points = (0..12).map(|s| of_service("shop", s, None)).collect();
    registry.add_service_stats(points).await.unwrap();
    subject.upkeep().await;
    let nodes = registry.node_stats(&node_id(1), at(0), 99).await.unwrap();
    assert_eq!((nodes.len(), nodes[0].at), (8, at(4)));
    let id = instance_id("shop", 1);
    let instances = registry.instance_stats(&id, at(0), 99).await.unwrap();
    assert_eq!((instances.len(), instances[0].at), (8, at(4)));
    let points = registry.service_stats(&service("shop"), at(0), at(99), 99).await.unwrap();
    assert_eq!((points.len(), points[0].at), (8, at(4)));
}
