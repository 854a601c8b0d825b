//! What every store does alike: versions, expectations, leases and the fence, without storage.

use crate::store::{
    BudgetRow, Expect, Lease, RegistryError, Role, ServicePut, ServiceRow, TypeRow,
};
use domain::{Budget, Epoch, Generation, NodeType, NodeTypeName, Revision, ServiceName, Timestamp};
use std::time::Duration;

impl Role {
    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ContainerManager => "container-manager",
            Role::MachineManager => "machine-manager",
        }
    }
}

/// The last numbers an object had when it was removed: a new one of its name continues them, so
/// that no version and no revision ever means two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Retired {
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
}

impl Retired {
    pub(crate) fn or_higher(self, other: Retired) -> Retired {
        Retired {
            generation: self.generation.max(other.generation),
            revision: self.revision.max(other.revision),
        }
    }
}

pub(crate) fn unknown_service(name: &ServiceName) -> RegistryError {
    RegistryError::Unknown { what: format!("service {name}") }
}

pub(crate) fn unknown_type(name: &NodeTypeName) -> RegistryError {
    RegistryError::Unknown { what: format!("node type {name}") }
}

/// Refuses a write whose writer expected something else than `found`.
pub(crate) fn check_expect(
    what: &str,
    found: Option<Generation>,
    expect: Expect,
) -> Result<(), RegistryError> {
    let right = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::At(wanted) => found == Some(wanted),
    };
    if right {
        return Ok(());
    }
    Err(RegistryError::Conflict { what: what.to_owned(), found: found.unwrap_or_default() })
}

/// The row after a declaration was put. A write that changes nothing leaves the row as it is.
pub(crate) fn service_after_put(
    old: Option<ServiceRow>,
    retired: Retired,
    put: ServicePut,
    now: Timestamp,
) -> Result<ServiceRow, RegistryError> {
    let what = format!("service {}", put.name);
    check_expect(&what, old.as_ref().map(|row| row.generation), put.expect)?;
    let Some(mut row) = old else {
        return Ok(ServiceRow {
            name: put.name,
            document: put.document,
            generation: retired.generation.next(),
            revision: Revision(retired.revision.0.saturating_add(1)),
            deleting: false,
            scale_hold: None,
            memory: String::new(),
            created_at: now,
            updated_at: now,
        });
    };
    if row.document == put.document && !put.new_revision && !row.deleting {
        return Ok(row);
    }
    row.document = put.document;
    row.generation = row.generation.next();
    if put.new_revision {
        row.revision = Revision(row.revision.0.saturating_add(1));
    }
    row.deleting = false;
    row.updated_at = now;
    Ok(row)
}

/// The row after its owner removed it. Removing twice changes nothing more; the operator's hold
/// ends with the service it was for.
pub(crate) fn service_after_delete(
    mut row: ServiceRow,
    expect: Expect,
    now: Timestamp,
) -> Result<ServiceRow, RegistryError> {
    check_expect(&format!("service {}", row.name), Some(row.generation), expect)?;
    if !row.deleting {
        row.deleting = true;
        row.scale_hold = None;
        row.generation = row.generation.next();
        row.updated_at = now;
    }
    Ok(row)
}

/// The row after the operator's hold was set or lifted: the declaration keeps its version.
pub(crate) fn service_after_hold(
    mut row: ServiceRow,
    instances: Option<u32>,
    now: Timestamp,
) -> ServiceRow {
    if row.scale_hold != instances {
        row.scale_hold = instances;
        row.updated_at = now;
    }
    row
}

/// The row after a restart was asked for.
pub(crate) fn service_after_bump(mut row: ServiceRow, now: Timestamp) -> ServiceRow {
    row.generation = row.generation.next();
    row.revision = Revision(row.revision.0.saturating_add(1));
    row.updated_at = now;
    row
}

/// The oldest revision whose document is kept even if no instance of it lives.
pub(crate) fn oldest_kept(current: Revision, kept: u64) -> Revision {
    Revision(current.0.saturating_sub(kept.saturating_sub(1)))
}

/// The row after a node type was put. A write that changes nothing leaves the row as it is.
pub(crate) fn type_after_put(
    old: Option<TypeRow>,
    retired: Retired,
    (mut node_type, document): (NodeType, String),
    expect: Expect,
    now: Timestamp,
) -> Result<TypeRow, RegistryError> {
    let found = old.as_ref().map(|row| row.generation);
    check_expect(&format!("node type {}", node_type.name), found, expect)?;
    let before = found.unwrap_or(retired.generation);
    node_type.generation = before;
    if let Some(row) = old
        && row.document == document
        && row.node_type == node_type
    {
        return Ok(row);
    }
    node_type.generation = before.next();
    Ok(TypeRow {
        name: node_type.name.clone(),
        generation: node_type.generation,
        node_type,
        document,
        updated_at: now,
    })
}

/// The row after the budget was put; its generation rises each time.
pub(crate) fn budget_after_put(
    old: Option<&BudgetRow>,
    mut budget: Budget,
    document: String,
    expect: Expect,
    now: Timestamp,
) -> Result<BudgetRow, RegistryError> {
    let found = old.map(|row| row.budget.generation);
    check_expect("the budget", found, expect)?;
    budget.generation = found.unwrap_or_default().next();
    Ok(BudgetRow { budget, document, updated_at: now })
}

/// A lease as stored. It is never removed, so that its epoch only rises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    pub(crate) epoch: Epoch,
    /// `None`: given back.
    pub(crate) holder: Option<String>,
    pub(crate) until: Timestamp,
}

/// The lease after `holder` took it; `None`: another holds it.
///
/// The epoch is `max(stored + 1, unix seconds)` (protocols, Credentials): a wiped registry still
/// outranks what executors remember.
pub(crate) fn lease_after_take(
    stored: Option<&LeaseRow>,
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> Option<LeaseRow> {
    let others = stored.and_then(|row| row.holder.as_deref()).is_some_and(|held| held != holder);
    if others && stored.is_some_and(|row| row.until > now) {
        return None;
    }
    let next = stored.map_or(0, |row| row.epoch.0.saturating_add(1));
    let seconds = u64::try_from(now.0.div_euclid(1000)).unwrap_or(0);
    Some(LeaseRow {
        epoch: Epoch(next.max(seconds)),
        holder: Some(holder.to_owned()),
        until: now.plus(ttl),
    })
}

/// Whether `stored` is still the term that `lease` names. One that ran out and that nobody took
/// since is: its epoch is still the highest.
pub(crate) fn lease_is_held(stored: Option<&LeaseRow>, lease: &Lease) -> bool {
    stored.is_some_and(|row| {
        row.epoch == lease.epoch && row.holder.as_deref() == Some(lease.holder.as_str())
    })
}

/// The fence of every `commit_*`: refuses a lease of another role or of an earlier term.
pub(crate) fn check_fence(
    stored: Option<&LeaseRow>,
    role: Role,
    lease: &Lease,
) -> Result<(), RegistryError> {
    if lease.role != role {
        // The two roles count apart: equal numbers would prove nothing.
        let what = format!("a commit of the {} under a lease of the {}", role.as_str(), {
            lease.role.as_str()
        });
        return Err(RegistryError::Conflict { what, found: Generation(0) });
    }
    match stored {
        Some(row) if row.epoch == lease.epoch => Ok(()),
        Some(row) => Err(RegistryError::Superseded { ours: lease.epoch, newer: row.epoch }),
        None => Err(RegistryError::Superseded { ours: lease.epoch, newer: Epoch(0) }),
    }
}
