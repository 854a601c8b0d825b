//! What a balancer can do on its host, and which services it cannot serve as they were declared.

use crate::id::ServiceName;
use std::collections::BTreeMap;

/// What one balancer says about itself, for whoever declares services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ability {
    /// What it lacks for mode `nat` and what to do about it; `None`: it lacks nothing.
    pub nat_lacks: Option<String>,
    /// Services it knows and cannot serve as declared, each with the reason and what to do.
    pub troubles: BTreeMap<ServiceName, String>,
}
