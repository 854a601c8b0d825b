//! On what terms an instance takes requests, by the word of its agent.

/// What an agent may say besides the load. It changes what was configured, and is forgotten when
/// the agent falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Weight in percent of the configured one; 0: no new requests.
    pub weight: u32,
    /// Requests it takes at once, where that is less than configured.
    pub max_in_flight: Option<u32>,
}

impl Terms {
    /// Nothing is changed.
    pub const AS_CONFIGURED: Terms = Terms { weight: 100, max_in_flight: None };
    /// No new requests; those in flight are finished.
    pub const NOTHING_NEW: Terms = Terms { weight: 0, max_in_flight: None };
}

impl Default for Terms {
    fn default() -> Terms {
        Terms::AS_CONFIGURED
    }
}
