//! The names a sender chose, remembered so that none stands twice.

use super::{Group, OrcaError, told};
use std::borrow::Cow;

/// Names remembered without allocation.
pub const FEW: usize = 8;
/// Most names in one report: a value of two kilobytes cannot hold many more that mean something.
pub const NAMES_MAX: usize = 64;

/// The names so far.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    few: [Option<(Group, Cow<'a, str>)>; FEW],
    more: Vec<(Group, Cow<'a, str>)>,
}

impl<'a> Names<'a> {
    /// Remembers one, unless it is there or there are too many.
    pub(super) fn add(&mut self, group: Group, name: Cow<'a, str>) -> Result<(), OrcaError> {
        for place in &mut self.few {
            match place {
                Some((of, known)) if *of == group && *known == name => {
                    return Err(twice(group, &name));
                }
                Some(_other) => {}
                None => {
                    *place = Some((group, name));
                    return Ok(());
                }
            }
        }
        if self.more.iter().any(|(of, known)| *of == group && *known == name) {
            return Err(twice(group, &name));
        }
        if self.more.len() >= NAMES_MAX - FEW {
            return Err(OrcaError::TooMany);
        }
        self.more.push((group, name));
        Ok(())
    }
}

fn twice(group: Group, name: &str) -> OrcaError {
    OrcaError::Twice(format!("{}.{}", group.name(), told(name)))
}
