//! The seam to the machine-manager: where instances start, which go, what the cap admits.

use async_trait::async_trait;
use bytes::Bytes;
use chassis::peer::Answer;
use chassis::{Client, PeerError};
use http::{HeaderMap, Method};
use std::time::Duration;
use wire::placement::{AdmissionAnswer, AdmissionRequest, PlacementAnswer, PlacementRequest};

/// Answers come from memory within 50 ms; this is for a busy host, and bounds a step.
pub const PLACEMENT_DEADLINE: Duration = Duration::from_secs(1);
/// An admission is computed, not looked up.
pub const ADMISSION_DEADLINE: Duration = Duration::from_secs(3);
/// A request passed on for an operator: orders write the ledger first.
pub const PASS_DEADLINE: Duration = Duration::from_secs(20);

/// The machine-manager.
#[async_trait]
pub trait Placements: Send + Sync + 'static {
    /// Where starts go and which instances stop. The same question gets the same answer.
    async fn ask(&self, request: &PlacementRequest) -> Result<PlacementAnswer, PeerError>;

    /// Whether a service's minimum fits the cap. `None`: it cannot tell, which admits.
    async fn admit(&self, request: &AdmissionRequest)
    -> Result<Option<AdmissionAnswer>, PeerError>;

    /// Passes an operator's request on, whatever it is, and its answer back.
    async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, PeerError>;
}

/// The machine-manager over HTTP.
#[derive(Debug, Clone)]
pub struct HttpPlacements {
    client: Client,
}

impl HttpPlacements {
    /// Speaks through `client`.
    #[must_use]
    pub fn new(client: Client) -> HttpPlacements {
        HttpPlacements { client }
    }
}

#[async_trait]
impl Placements for HttpPlacements {
    async fn ask(&self, request: &PlacementRequest) -> Result<PlacementAnswer, PeerError> {
        self.client.post("/v1/placements", request, PLACEMENT_DEADLINE).await
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
    ) -> Result<Option<AdmissionAnswer>, PeerError> {
        match self.client.post("/v1/admission", request, ADMISSION_DEADLINE).await {
            Ok(answer) => Ok(Some(answer)),
            Err(PeerError::Refused { status, .. }) if status.as_u16() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, PeerError> {
        self.client.call(method, path, headers, body, PASS_DEADLINE).await
    }
}
