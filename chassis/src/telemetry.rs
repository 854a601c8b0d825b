//! Logs: one line each, JSON where no person looks; errors with their whole chain.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Names of fields in spans and events, so that each is spelled in one way.
pub mod field {
    /// A service's name.
    pub const SERVICE: &str = "service.id";
    /// A node's id.
    pub const NODE: &str = "node.id";
    /// An instance's id.
    pub const INSTANCE: &str = "instance.id";
    /// A request's id.
    pub const REQUEST: &str = "request.id";
}

/// Shows an error and everything that caused it: `a: b: c`.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// Starts logging to stderr; `filter` as in `RUST_LOG`. A second call changes nothing.
///
/// # Errors
/// When the filter is not readable.
pub fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| format!("the log filter {filter:?} is not readable: {e}"))?;
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    // Already started: tests and `tally demo` share one process.
    started.or(Ok(()))
}
