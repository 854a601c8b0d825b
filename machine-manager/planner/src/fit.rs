//! The cheapest set of new nodes that holds what fits nowhere: complete, or as much as the types'
//! maximum counts allow.

use crate::room::{Candidate, dominant, orderable};
use crate::snapshot::Wanted;
use domain::{NodeType, NodeTypeName, Resources};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Up to this many starts every way to share nodes is tried (203 ways for six); beyond it greedy
/// strategies compete.
const EXACT_MAX: usize = 6;

/// Types that may be ordered, each with how many more.
pub type Supply<'a> = Vec<(&'a NodeType, u32)>;

/// One node to be had and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh<'a> {
    /// Its type.
    pub node_type: &'a NodeType,
    /// What goes on it.
    pub content: Vec<&'a Wanted>,
}

/// A set of nodes to be had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Set<'a> {
    /// The nodes.
    pub nodes: Vec<Fresh<'a>>,
    /// What the types' maximum counts leave out.
    pub left_out: Vec<&'a Wanted>,
}

impl Set<'_> {
    /// Micro-units an hour.
    #[must_use]
    pub fn price(&self) -> i64 {
        self.nodes.iter().fold(0_i64, |sum, n| sum.saturating_add(n.node_type.price.0))
    }

    fn rank(&self) -> (usize, i64, usize, Vec<NodeTypeName>) {
        let names = self.nodes.iter().map(|n| n.node_type.name.clone()).collect();
        (self.left_out.len(), self.price(), self.nodes.len(), names)
    }
}

fn room_of(content: &[&Wanted]) -> Resources {
    content.iter().fold(Resources::default(), |sum, w| sum.plus(w.resources))
}

/// Whether a node of this type, empty, would hold all of `content`.
#[must_use]
pub fn would_hold(node_type: &NodeType, content: &[&Wanted]) -> bool {
    let candidate = Candidate::of_type(node_type);
    orderable(node_type)
        && node_type.capacity.resources.holds(room_of(content))
        && content.iter().all(|w| candidate.matches(&w.needs, w.group))
        && (content.len() < 2 || content.iter().all(|w| !w.needs.dedicated))
}

/// The cheapest set for `wanted`. Every one of them must fit some type of `supply` alone.
#[must_use]
pub fn fit<'a>(wanted: &[&'a Wanted], supply: &Supply<'a>) -> Set<'a> {
    let mut sorted = wanted.to_vec();
    sorted.sort_by_cached_key(|w| (Reverse(smallest_share(w, supply)), w.instance.clone()));
    let mut sets: Vec<Set<'a>> =
        supply.iter().map(|(t, _)| preferring(&sorted, supply, &t.name)).collect();
    sets.push(by_rank(&sorted, supply));
    for set in &mut sets {
        downsize(set, supply);
    }
    if sorted.len() <= EXACT_MAX {
        let mut groups = Vec::new();
        exact(&sorted, 0, &mut groups, supply, &mut sets);
    }
    sets.into_iter().min_by_key(Set::rank).unwrap_or_default()
}

fn smallest_share(wanted: &Wanted, supply: &Supply<'_>) -> u64 {
    let shares = supply.iter().map(|(t, _)| dominant(wanted.resources, t.capacity));
    shares.min().unwrap_or(0)
}

fn used<'a>(nodes: &[Fresh<'a>]) -> BTreeMap<&'a str, u32> {
    let mut used = BTreeMap::new();
    for node in nodes {
        *used.entry(node.node_type.name.as_str()).or_default() += 1;
    }
    used
}

/// The cheapest type that holds `content` and may be had once more.
fn cheapest<'a>(
    content: &[&Wanted],
    supply: &Supply<'a>,
    used: &BTreeMap<&str, u32>,
) -> Option<&'a NodeType> {
    let free = |t: &NodeType, n: u32| used.get(t.name.as_str()).copied().unwrap_or(0) < n;
    let holding = supply.iter().filter(|(t, n)| free(t, *n) && would_hold(t, content));
    holding.map(|(t, _)| *t).min_by_key(|t| (t.price, t.name.clone()))
}

/// First fit; a new node is of type `name` where that will do.
fn preferring<'a>(sorted: &[&'a Wanted], supply: &Supply<'a>, name: &NodeTypeName) -> Set<'a> {
    let mut set = Set::default();
    for wanted in sorted {
        let open = set.nodes.iter_mut().find(|node: &&mut Fresh<'a>| {
            let mut content = node.content.clone();
            content.push(wanted);
            would_hold(node.node_type, &content)
        });
        if let Some(node) = open {
            node.content.push(wanted);
            continue;
        }
        let used = used(&set.nodes);
        let only: Supply<'a> = supply.iter().filter(|(t, _)| t.name == *name).copied().collect();
        let node_type =
            cheapest(&[wanted], &only, &used).or_else(|| cheapest(&[wanted], supply, &used));
        match node_type {
            Some(node_type) => set.nodes.push(Fresh { node_type, content: vec![wanted] }),
            None => set.left_out.push(wanted),
        }
    }
    set
}

/// Node by node, the type whose fill is worth its price most: (C + X) / (T + X), C the price, T the
/// price of an ideal fit, X the price of half a processor.
fn by_rank<'a>(sorted: &[&'a Wanted], supply: &Supply<'a>) -> Set<'a> {
    let per_cpu =
        |t: &NodeType| i128::from(t.price.0) * 1000 / i128::from(t.capacity.resources.cpu.0.max(1));
    let ideal = supply.iter().map(|(t, _)| per_cpu(t)).min().unwrap_or(0);
    let half = ideal / 2 + 1;
    let mut set = Set::default();
    let mut rest = sorted.to_vec();
    while !rest.is_empty() {
        let used = used(&set.nodes);
        let mut best: Option<(i128, Reverse<usize>, Fresh<'a>)> = None;
        for (node_type, most) in supply {
            if used.get(node_type.name.as_str()).copied().unwrap_or(0) >= *most {
                continue;
            }
            let content = fill(&rest, node_type);
            if content.is_empty() {
                continue;
            }
            let fit_price = ideal * i128::from(room_of(&content).cpu.0) / 1000;
            let price = i128::from(node_type.price.0);
            let rank = (price + half) * 1_000_000 / (fit_price + half);
            let count = Reverse(content.len());
            if best.as_ref().is_none_or(|(r, c, _)| (rank, count) < (*r, *c)) {
                best = Some((rank, count, Fresh { node_type, content }));
            }
        }
        let Some((_, _, node)) = best else { break };
        rest.retain(|w| node.content.iter().all(|c| c.instance != w.instance));
        set.nodes.push(node);
    }
    set.left_out = rest;
    set
}

fn fill<'a>(rest: &[&'a Wanted], node_type: &NodeType) -> Vec<&'a Wanted> {
    let mut content = Vec::new();
    for wanted in rest {
        content.push(*wanted);
        if !would_hold(node_type, &content) {
            content.pop();
        }
    }
    content
}

/// Replaces each node by the cheapest type that holds what is on it.
fn downsize<'a>(set: &mut Set<'a>, supply: &Supply<'a>) {
    for i in 0..set.nodes.len() {
        let mut used = used(&set.nodes);
        if let Some(n) = used.get_mut(set.nodes[i].node_type.name.as_str()) {
            *n -= 1;
        }
        if let Some(node_type) = cheapest(&set.nodes[i].content, supply, &used) {
            set.nodes[i].node_type = node_type;
        }
    }
}

/// Every way to divide the starts into groups that share a node, each group on its cheapest type.
fn exact<'a>(
    sorted: &[&'a Wanted],
    at: usize,
    groups: &mut Vec<Vec<&'a Wanted>>,
    supply: &Supply<'a>,
    sets: &mut Vec<Set<'a>>,
) {
    let Some(wanted) = sorted.get(at) else {
        let mut set = Set::default();
        for group in groups.iter() {
            match cheapest(group, supply, &used(&set.nodes)) {
                Some(node_type) => set.nodes.push(Fresh { node_type, content: group.clone() }),
                None => set.left_out.extend(group),
            }
        }
        sets.push(set);
        return;
    };
    for i in 0..groups.len() {
        groups[i].push(wanted);
        if supply.iter().any(|(t, _)| would_hold(t, &groups[i])) {
            exact(sorted, at + 1, groups, supply, sets);
        }
        groups[i].pop();
    }
    groups.push(vec![wanted]);
    exact(sorted, at + 1, groups, supply, sets);
    groups.pop();
}
