//! What every process rides on: configuration, telemetry, clocks, shutdown, HTTP, credentials.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod dial;
pub mod halt;
pub mod http;
pub mod identity;
pub mod ids;
pub mod peer;
pub mod periodic;
pub mod problem;
pub mod shutdown;
pub mod signature;
pub mod telemetry;

pub use admin::{Metrics, Readiness};
pub use clock::SystemClock;
pub use halt::Halt;
pub use http::{Listen, Listener, PeerAddr, ServerLimits, serve};
pub use identity::Identity;
pub use ids::RandomIds;
pub use peer::{Client, PeerError, PeerUrl};
pub use periodic::{Nudge, Woke};
pub use problem::{ApiError, ApiJson, ApiPath, ApiQuery};
pub use shutdown::Shutdown;
pub use signature::{Signer, Verifier};
