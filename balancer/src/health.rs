//! Health checks.

/// What is known of an instance by checks.
#[derive(Debug, Default)]
pub struct Check {
    /// It failed as many in a row as were declared.
    pub unwell: bool,
}
