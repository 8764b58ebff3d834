//! A way to the store that counts what goes by: calls of `DynamoDB`'s API, by operation.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// `DynamoDB` takes and gives no more.
const MAX_BODY_BYTES: usize = 16 << 20;

type Fault = Box<dyn std::error::Error + Send + Sync>;
/// By operation, such as `GetItem`.
pub type Calls = BTreeMap<String, u64>;

/// The relay. It ends when it is dropped.
#[derive(Debug)]
pub struct StoreRelay {
    /// To be used in place of the store's.
    pub endpoint: String,
    calls: Arc<Mutex<Calls>>,
    accepting: AbortHandle,
}

impl Drop for StoreRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl StoreRelay {
    /// Starts on a free loopback port, in front of the store at `endpoint`.
    pub async fn start(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let store = Store {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            calls: Arc::default(),
        };
        let calls = Arc::clone(&store.calls);
        let accepting = tokio::spawn(accept(listener, store)).abort_handle();
        Self { endpoint: format!("http://{address}"), calls, accepting }
    }

    /// All so far.
    pub fn calls(&self) -> Calls {
        self.calls.lock().expect("no holder panics").clone()
    }

    /// The number of all so far.
    pub fn count(&self) -> u64 {
        self.calls().values().sum()
    }
}

#[derive(Clone)]
struct Store {
    endpoint: String,
    client: Client<HttpConnector, Full<Bytes>>,
    calls: Arc<Mutex<Calls>>,
}

async fn accept(listener: TcpListener, store: Store) {
    // Owned by this task, so that connections end with the relay.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, store.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, store: Store) {
    let service = service_fn(move |request| {
        let store = store.clone();
        async move {
            Ok::<_, Infallible>(match store.relay(request).await {
                Ok(response) => response,
                Err(error) => {
                    let mut response = Response::new(Full::from(error.to_string()));
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    response
                }
            })
        }
    });
    // An error is the peer leaving, which is its affair.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Store {
    async fn relay(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Fault> {
        let (mut head, body) = request.into_parts();
        // `DynamoDB_20120810.GetItem`
        let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.split_once('.')).map_or("unknown", |(_, name)| name);
        *self.calls.lock().expect("no holder panics").entry(operation.to_owned()).or_default() += 1;
        head.uri = format!("{}{}", self.endpoint, head.uri.path()).parse::<Uri>()?;
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await?.to_bytes();
        let response = self.client.request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await?.to_bytes();
        Ok(Response::from_parts(head, Full::new(body)))
    }
}
