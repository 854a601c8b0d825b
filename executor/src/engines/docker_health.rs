//! What a container's HEALTHCHECK says, read from what Docker tells of it; pure.

use crate::engine::OwnCheck;
use bollard::models::{ContainerState, HealthStatusEnum};

/// Longest part of a check's output that is told.
const OUTPUT_CHARS_MAX: usize = 200;

/// Whether the container has a HEALTHCHECK.
#[must_use]
pub fn is_checked(state: &ContainerState) -> bool {
    status(state).is_some()
}

fn status(state: &ContainerState) -> Option<HealthStatusEnum> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
        told @ (HealthStatusEnum::STARTING
        | HealthStatusEnum::HEALTHY
        | HealthStatusEnum::UNHEALTHY) => Some(told),
    }
}

/// What it says now.
#[must_use]
pub fn says(state: &ContainerState) -> OwnCheck {
    let word = match status(state) {
        None | Some(HealthStatusEnum::HEALTHY) => return OwnCheck::Well,
        Some(HealthStatusEnum::STARTING) => "has not passed yet",
        Some(_unhealthy) => "fails",
    };
    let log = state.health.as_ref().and_then(|health| health.log.as_ref());
    let last = log.and_then(|log| log.last()?.output.as_deref()).unwrap_or_default().trim();
    let colon = if last.is_empty() { "" } else { ": " };
    let output: String = last.chars().take(OUTPUT_CHARS_MAX).collect();
    OwnCheck::Unwell(format!("its HEALTHCHECK {word}{colon}{output}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{Health, HealthcheckResult};

    fn state(status: Option<HealthStatusEnum>, output: &str) -> ContainerState {
        let result =
            HealthcheckResult { output: Some(output.to_owned()), ..HealthcheckResult::default() };
        let health = Health { status, log: Some(vec![result]), ..Health::default() };
        ContainerState { health: Some(health), ..ContainerState::default() }
    }

    #[test]
    fn without_a_check_it_is_well_and_unchecked() {
        for state in [
            ContainerState::default(),
            state(None, ""),
            state(Some(HealthStatusEnum::NONE), ""),
            state(Some(HealthStatusEnum::EMPTY), ""),
        ] {
            assert!(!is_checked(&state));
            assert_eq!(says(&state), OwnCheck::Well);
        }
    }

    #[test]
    fn a_check_says_why() {
        let well = state(Some(HealthStatusEnum::HEALTHY), "fine");
        assert!(is_checked(&well));
        assert_eq!(says(&well), OwnCheck::Well);
        let starting = says(&state(Some(HealthStatusEnum::STARTING), ""));
        assert_eq!(starting, OwnCheck::Unwell("its HEALTHCHECK has not passed yet".to_owned()));
        let failing = says(&state(Some(HealthStatusEnum::UNHEALTHY), "no database\n"));
        assert_eq!(failing, OwnCheck::Unwell("its HEALTHCHECK fails: no database".to_owned()));
    }
}
