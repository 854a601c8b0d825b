//! Random ids and secrets, from the operating system.

use domain::IdSource;
use domain::id::{CROCKFORD, ID_RANDOM_CHARS};
use std::fmt::Write;

/// Ids from the operating system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn random_part(&mut self) -> String {
        let mut bytes = [0u8; ID_RANDOM_CHARS];
        fill(&mut bytes);
        bytes.iter().map(|b| char::from(CROCKFORD[usize::from(b % 32)])).collect()
    }
}

/// Fills `bytes` from the operating system; waits for entropy at boot rather than failing.
pub fn fill(bytes: &mut [u8]) {
    while let Err(error) = getrandom::fill(bytes) {
        tracing::error!(%error, "the operating system gives no random bytes; trying again");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// A secret of 256 bits in hex.
#[must_use]
pub fn secret() -> String {
    let mut bytes = [0u8; 32];
    fill(&mut bytes);
    hex(&bytes)
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _never_fails = write!(text, "{b:02x}");
        text
    })
}

/// A seed for a fast generator.
#[must_use]
pub fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
