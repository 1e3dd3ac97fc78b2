//! Asking another service, in time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// The largest answer taken, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Where a service is.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    host: String,
    port: u16,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Service {
    /// A service by its default name, or as `NAME_HOSTNAME` and `NAME_SERVICE_PORT` say.
    pub(crate) fn from_env(name: &str) -> Self {
        let upper = name.to_ascii_uppercase();
        let host = std::env::var(format!("{upper}_HOSTNAME")).unwrap_or_else(|_| name.to_owned());
        let port = std::env::var(format!("{upper}_SERVICE_PORT")).ok().and_then(|port| port.parse().ok());
        // A connection a request, as Bookinfo's services make them: it is spread over all versions each time.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { host, port: port.unwrap_or(9080), client }
    }

    /// Asks for a JSON document; the status and the document, or what went wrong.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: &HeaderMap,
        within: Duration,
    ) -> Result<(u16, Value), String> {
        let uri = format!("http://{}:{}{path}", self.host, self.port);
        let mut request = Request::get(&uri).body(Empty::new()).map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers.clone());
        let asking = async {
            let response = self.client.request(request).await.map_err(|error| format!("{uri}: {error}"))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| format!("{uri}: {error}"))?;
            Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null)))
        };
        tokio::time::timeout(within, asking)
            .await
            .unwrap_or_else(|_| Err(format!("{uri}: no answer within {within:?}")))
    }
}
