//! The set of new nodes: complete, and as cheap as any where that can be counted out.

use crate::scene::{Scene, kind};
use domain::{NodeType, Resources};
use machine_planner::Wanted;
use machine_planner::fit::{Supply, fit};
use proptest::prelude::*;

fn starts(sizes: &[u32]) -> Vec<Wanted> {
    let mut scene = Scene::new(&[], 1.0);
    for (n, cpu) in (0..).zip(sizes) {
        scene.wants(n, *cpu);
    }
    scene.snapshot.wanted
}

/// The least price by subsets: what shares the first start's node, then the rest.
fn counted_out(sizes: &[u32], types: &[NodeType]) -> i64 {
    let all = (1_usize << sizes.len()) - 1;
    let mut best = vec![i64::MAX; all + 1];
    best[0] = 0;
    for rest in 1..=all {
        let first = rest & rest.wrapping_neg();
        let mut group = rest;
        while group > 0 {
            if group & first != 0 && best[rest ^ group] < i64::MAX {
                let cpu: u32 =
                    (0..sizes.len()).filter(|i| group >> i & 1 == 1).map(|i| sizes[i]).sum();
                let holds = types.iter().filter(|t| t.capacity.resources.cpu.0 >= cpu);
                if let Some(price) = holds.map(|t| t.price.0).min() {
                    best[rest] = best[rest].min(best[rest ^ group] + price);
                }
            }
            group = (group - 1) & rest;
        }
    }
    best[all]
}

fn types() -> impl Strategy<Value = Vec<NodeType>> {
    prop::collection::vec((1..200_i32, 1..9_u32), 1..4).prop_map(|all| {
        let named = all.into_iter().enumerate();
        let mut types: Vec<NodeType> = named
            .map(|(i, (cents, cpus))| kind(&format!("t{i}"), f64::from(cents) / 100.0, cpus))
            .collect();
        types.push(kind("huge", 4.0, 16));
        types
    })
}

proptest! {
    #[test]
    fn few_starts_get_the_cheapest_set(types in types(), sizes in prop::collection::vec(100..4000_u32, 1..7)) {
        let wanted = starts(&sizes);
        let supply: Supply<'_> = types.iter().map(|t| (t, 100)).collect();
        let set = fit(&wanted.iter().collect::<Vec<_>>(), &supply);
        prop_assert!(set.left_out.is_empty());
        prop_assert_eq!(set.price(), counted_out(&sizes, &types));
    }

    #[test]
    fn many_starts_all_get_room_within_the_counts(types in types(), sizes in prop::collection::vec(100..4000_u32, 7..40), most in 0..4_u32) {
        let wanted = starts(&sizes);
        let mut supply: Supply<'_> = types.iter().map(|t| (t, most)).collect();
        supply.last_mut().unwrap().1 = 40;
        let set = fit(&wanted.iter().collect::<Vec<_>>(), &supply);
        prop_assert!(set.left_out.is_empty());
        let mut placed = 0;
        for node in &set.nodes {
            let sum = node.content.iter().fold(Resources::default(), |s, w| s.plus(w.resources));
            prop_assert!(node.node_type.capacity.resources.holds(sum));
            placed += node.content.len();
        }
        prop_assert_eq!(placed, sizes.len());
        for (node_type, most) in &supply {
            let count = set.nodes.iter().filter(|n| n.node_type.name == node_type.name).count();
            prop_assert!(count <= *most as usize);
        }
    }
}
