//! The administration API, as commands call it: of a gateway at a URL, or in this process on a store.

mod local;
mod refusal;
mod remote;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::Value;
use tower::ServiceExt as _;
use url::Url;

use super::{CommonArgs, Failure, StoreArgs};
use crate::error_chain::error_chain;
use local::LocalApi;
pub(crate) use local::Needs;
pub(crate) use refusal::{ApiError, Refusal};
use remote::RemoteApi;

/// For one request. A test of a provider takes up to a minute, and the check of a long audit log more.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Longest answer: a year of usage in CSV is the longest there is.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How often a change is tried that somebody else's was in the way of.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// Of one page of a list: as much as the API gives.
const PAGE: usize = 100;
/// Entries of all pages of a list together.
pub(crate) const MAX_LISTED: usize = 100_000;

/// Where the API is: of a running gateway, or here, on the store.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiArgs {
    #[arg(
        long,
        value_name = "URL",
        help = "Ask the gateway at this URL, with the administrator's token in DYAD_ADMIN_TOKEN, instead of working on a store [env: DYAD_ADMIN_URL]"
    )]
    pub url: Option<String>,
    /// Trust the authorities of this PEM file with --url, instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    /// Below `/admin`.
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    if_match: Option<String>,
}

impl Call {
    fn new(method: Method, segments: &[&str]) -> Self {
        let segments = segments.iter().map(|&segment| segment.to_owned()).collect();
        Self { method, segments, query: Vec::new(), body: None, if_match: None }
    }

    pub(crate) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    pub(crate) fn post(segments: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, segments) }
    }

    pub(crate) fn put(segments: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PUT, segments) }
    }

    pub(crate) fn patch(segments: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PATCH, segments) }
    }

    pub(crate) fn delete(segments: &[&str]) -> Self {
        Self::new(Method::DELETE, segments)
    }

    pub(crate) fn query(mut self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        self.query.extend(value.map(|value| (name, value.into())));
        self
    }

    /// The change is made of this version only.
    pub(crate) fn if_match(mut self, etag: Option<String>) -> Self {
        self.if_match = etag;
        self
    }

    fn to_request(&self, base: &Url) -> Result<Request<Full<Bytes>>, ApiError> {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("admin").extend(&self.segments);
        }
        for (name, value) in &self.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let uri: Uri = url.as_str().parse().map_err(|_| ApiError::Failed(format!("{url} is too long")))?;
        let mut request = Request::builder().method(&self.method).uri(uri);
        if let Some(etag) = &self.if_match {
            request = request.header(IF_MATCH, etag);
        }
        let body = match &self.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Full::new(Bytes::from(body.to_string()))
            }
            None => Full::default(),
        };
        request.body(body).map_err(|error| ApiError::Failed(error_chain(&error)))
    }
}

struct Answer {
    etag: Option<String>,
    content: Bytes,
}

pub(crate) struct Api {
    transport: Transport,
}

enum Transport {
    Local(Box<LocalApi>),
    Remote(Box<RemoteApi>),
}

/// For messages: where the changes go.
impl std::fmt::Display for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.transport {
            Transport::Local(local) => local.location().fmt(f),
            Transport::Remote(remote) => f.write_str(remote.base().as_str().trim_end_matches('/')),
        }
    }
}

impl Api {
    /// Reads and checks all that says where it is, and opens the store if it is that one. Nothing is asked yet of a
    /// gateway at a URL.
    pub(crate) async fn open(args: &ApiArgs, needs: Needs) -> Result<Self, Failure> {
        let transport = match RemoteApi::of(args)? {
            Some(remote) => Transport::Remote(Box::new(remote)),
            None => Transport::Local(Box::new(LocalApi::open(args, needs).await?)),
        };
        Ok(Self { transport })
    }

    /// What is answered, `null` if nothing.
    pub(crate) async fn json(&self, call: Call) -> Result<Value, ApiError> {
        Ok(self.versioned(call).await?.0)
    }

    /// The same with its `ETag`, for a change of this very version.
    pub(crate) async fn versioned(&self, call: Call) -> Result<(Value, Option<String>), ApiError> {
        let answer = self.call(&call).await?;
        if answer.content.is_empty() {
            return Ok((Value::Null, answer.etag));
        }
        let value = serde_json::from_slice(&answer.content)
            .map_err(|_| ApiError::Failed(format!("{self} answers something else than JSON")))?;
        Ok((value, answer.etag))
    }

    /// What is answered as it is.
    pub(crate) async fn content(&self, call: Call) -> Result<Bytes, ApiError> {
        Ok(self.call(&call).await?.content)
    }

    /// The first entries of a list, from as many pages as it takes.
    pub(crate) async fn list(&self, call: Call, at_most: usize) -> Result<Vec<Value>, ApiError> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        while entries.len() < at_most {
            let wanted = (at_most - entries.len()).min(PAGE);
            let page = call.clone().query("limit", Some(wanted.to_string())).query("cursor", cursor.clone());
            let mut page = self.json(page).await?;
            entries.extend(self.data_of(&mut page)?);
            let next = page["nextCursor"].as_str().map(str::to_owned);
            if next.is_none() || next == cursor {
                break;
            }
            cursor = next;
        }
        entries.truncate(at_most);
        Ok(entries)
    }

    /// All of a list that has no pages.
    pub(crate) async fn whole_list(&self, call: Call) -> Result<Vec<Value>, ApiError> {
        let mut list = self.json(call).await?;
        self.data_of(&mut list)
    }

    fn data_of(&self, list: &mut Value) -> Result<Vec<Value>, ApiError> {
        match list.get_mut("data").map(Value::take) {
            Some(Value::Array(data)) => Ok(data),
            _ => Err(ApiError::Failed(format!("{self} answers something else than a list"))),
        }
    }

    /// A change that somebody else's is in the way of has not been made, and is tried again.
    async fn call(&self, call: &Call) -> Result<Answer, ApiError> {
        let mut tried = 0;
        loop {
            tried += 1;
            match tokio::time::timeout(TIMEOUT, self.call_once(call)).await {
                Err(_) => return Err(ApiError::Failed(format!("{self} does not answer"))),
                Ok(Err(ApiError::Refused(refusal))) if refusal.code == "conflict" && tried < TRIES => {
                    tokio::time::sleep(PAUSE * tried).await;
                }
                Ok(result) => return result,
            }
        }
    }

    async fn call_once(&self, call: &Call) -> Result<Answer, ApiError> {
        match &self.transport {
            Transport::Local(local) => {
                let request = call.to_request(LocalApi::base())?;
                let answered = local.router().oneshot(request.map(axum::body::Body::new)).await;
                let response = answered.unwrap_or_else(|never| match never {});
                let cause = admin_api::cause_of_failure(response.extensions()).map(str::to_owned);
                match self.read(response).await {
                    Err(ApiError::Refused(refusal)) if refusal.status.is_server_error() => {
                        Err(local.explain(refusal, cause).await)
                    }
                    result => result,
                }
            }
            Transport::Remote(remote) => {
                let request = call.to_request(remote.base())?;
                let response = remote.send(request).await.map_err(|error| {
                    ApiError::Failed(format!("{self} cannot be reached: {}", error_chain(&error)))
                })?;
                self.read(response).await
            }
        }
    }

    async fn read<B>(&self, response: Response<B>) -> Result<Answer, ApiError>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = response.into_parts();
        let read = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let content = read
            .map_err(|error| ApiError::Failed(format!("the answer of {self} breaks off: {error}")))?
            .to_bytes();
        if head.status.is_success() {
            let etag = head.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            return Ok(Answer { etag, content });
        }
        Err(Refusal::read(head.status, &head.headers, &content)
            .map_or_else(|| not_the_api(&self.to_string(), head.status), ApiError::Refused))
    }
}

fn not_the_api(place: &str, status: StatusCode) -> ApiError {
    ApiError::Failed(format!(
        "{place} answers {status}, and not as an administration API does: check the URL, which is the gateway's own, without a path"
    ))
}
