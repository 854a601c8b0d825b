//! What a story asks the API, typed where it goes on with the answer and raw where the answer itself
//! is the subject.

use crate::process::{self, tail};
use crate::wait::until;
use chassis::{Client, PeerUrl};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use wire::operator::{InstanceView, List, NodeView, ServiceView};

/// One call.
const CALL: Duration = Duration::from_secs(10);

/// The API of a Tally whose logs are in `folder`.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where it answers.
    pub url: String,
    /// Logs, for a story that fails.
    pub folder: PathBuf,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; null where it is none.
    pub body: Value,
}

impl Api {
    /// The ends of all logs of this Tally.
    #[must_use]
    pub fn log(&self) -> String {
        process::logs(&self.folder).iter().map(|log| tail(log)).collect()
    }

    /// One call, answered with whatever status.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let client = reqwest::Client::builder().no_proxy().timeout(CALL).build().expect("a client");
        let mut request = client
            .request(method, format!("{}{path}", self.url))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.expect("a whole answer");
        Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    /// One declaration, by PUT.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, &[], &body.to_string()).await
    }

    /// One object, by GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    /// A client of its API.
    ///
    /// # Panics
    /// When the address is none.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.url.parse::<PeerUrl>().expect("the API's address"))
    }

    /// Declares a service.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn put_service(&self, name: &str, body: &Value) -> ServiceView {
        let path = format!("/v1/services/{name}");
        let put = self.client().json(http::Method::PUT, &path, Some(body), CALL).await;
        put.unwrap_or_else(|e| panic!("declaring {name}: {e}"))
    }

    /// A service.
    ///
    /// # Errors
    /// In words.
    pub async fn service(&self, name: &str) -> Result<ServiceView, String> {
        let path = format!("/v1/services/{name}");
        self.client().get(&path, CALL).await.map_err(|e| e.to_string())
    }

    /// Its instances that have not stopped.
    ///
    /// # Errors
    /// In words.
    pub async fn instances(&self, name: &str) -> Result<Vec<InstanceView>, String> {
        let path = format!("/v1/services/{name}/instances");
        let list: List<InstanceView> =
            self.client().get(&path, CALL).await.map_err(|e| e.to_string())?;
        Ok(list.items.into_iter().filter(|i| i.state != "stopped").collect())
    }

    /// The nodes that have not stopped.
    ///
    /// # Errors
    /// In words.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, String> {
        let list: List<NodeView> =
            self.client().get("/v1/nodes", CALL).await.map_err(|e| e.to_string())?;
        Ok(list.items.into_iter().filter(|n| n.state != "stopped").collect())
    }

    /// Waits until `count` instances are ready; they, sorted.
    pub async fn ready(&self, name: &str, count: usize) -> Vec<InstanceView> {
        until(&format!("{count} ready instances of {name}"), || async {
            let mut ready = self.instances(name).await?;
            ready.retain(|i| i.state == "ready");
            ready.sort_by(|a, b| a.id.cmp(&b.id));
            if ready.len() == count { Ok(ready) } else { Err(format!("{ready:?} {}", self.log())) }
        })
        .await
    }
}
