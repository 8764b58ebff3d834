//! The runners' nodes, for administrators.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use runner_api::{DRAIN_PATH, NodeRecord, VERSION, VERSION_HEADER, understands};

use crate::Gateway;
use crate::adapter::{call_failure, until};
use crate::host::{Body, full};

const RUNNER_VERSION: HeaderName = HeaderName::from_static(VERSION_HEADER);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerNode {
    pub record: NodeRecord,
    /// Whether runs are sent there now.
    pub is_up: bool,
}

impl Gateway {
    /// The nodes that runs may go to, and those that expired or drain, in the order of the registry. `Err` says why they
    /// are not known; while the registry is away, it is those that were known last.
    pub async fn runners(&self) -> Result<Vec<RunnerNode>, String> {
        let nodes = &self.0.nodes;
        if let Err(error) = nodes.refresh().await
            && !nodes.freshness().is_loaded()
        {
            return Err(error.to_string());
        }
        Ok(nodes.all())
    }

    /// Lets a node take no more runs and finish those that it has. `Err` says why it does not.
    pub async fn drain_runner(&self, id: &str) -> Result<(), String> {
        let known = self.runners().await?;
        let Some(node) = known.into_iter().find(|node| node.record.id == id) else {
            return Err(format!("there is no runner node {id:?}"));
        };
        let host = &*self.0.host;
        let request = runner_request(&node.record, Method::POST, DRAIN_PATH, Vec::new())
            .ok_or("its address cannot be used")?;
        let deadline = host.monotonic() + ANSWER_TIMEOUT;
        let response = match until(host, deadline, host.call_runner(request, CONNECT_TIMEOUT)).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(call_failure(error).message.into_owned()),
            None => return Err("it did not answer in time".to_owned()),
        };
        if !is_runner(&response) {
            return Err("what answered is no runner, or one of another version than this gateway".to_owned());
        }
        match response.status() {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(()),
            status => Err(format!("it refused, with status {}", status.as_u16())),
        }
    }
}

/// A request to a node; `None` if its address cannot be used.
pub(crate) fn runner_request(
    node: &NodeRecord,
    method: Method,
    path: &str,
    json: Vec<u8>,
) -> Option<http::Request<Body>> {
    let uri = format!("{}{path}", node.url.trim_end_matches('/')).parse::<Uri>().ok()?;
    let mut request = http::Request::new(full(json));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(RUNNER_VERSION, HeaderValue::from_static(VERSION));
    Some(request)
}

/// Whether what answered is a runner that speaks our version.
pub(crate) fn is_runner(response: &http::Response<Body>) -> bool {
    let version = response.headers().get(RUNNER_VERSION).and_then(|version| version.to_str().ok());
    version.is_some_and(understands)
}
