//! How many files and sockets this process may hold at once, raised as far as the system lets it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Nobody here holds more. Where the system sets no bound, programs started from here would
/// inherit a number that some of them count to.
const WANTED: u64 = 1 << 20;

/// Raises the soft limit to the hard one.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(soft) = current else { return };
    let wanted = maximum.unwrap_or(WANTED).min(WANTED);
    if soft < wanted {
        let raised = Rlimit { current: Some(wanted), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, soft, "the limit of open files cannot be raised");
        }
    }
}

/// The soft limit.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert!(limit() >= hard.min(WANTED), "{} of {hard}", limit());
    }
}
