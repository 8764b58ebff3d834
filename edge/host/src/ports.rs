//! The store's HTTP client, sleep and clock, on those of the host.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use gateway::{Body, CallError, Host, full};
use http_body_util::BodyExt as _;
use store::HostPorts;
use store::sdk::{
    AsyncSleep, ConnectorError, HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
    HttpRequest, HttpResponse, RuntimeComponents, SdkBody, SharedAsyncSleep, SharedHttpClient,
    SharedHttpConnector, SharedTimeSource, Sleep, TimeSource,
};
use sync_wrapper::SyncFuture;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A page of a query has 1 MB of items, which JSON makes longer.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// What a [`DynamoStore`](store::DynamoStore) needs, from what every host has.
pub fn store_ports(host: Arc<dyn Host>) -> HostPorts {
    let ports = Ports(host);
    HostPorts {
        http_client: SharedHttpClient::new(ports.clone()),
        sleep: SharedAsyncSleep::new(ports.clone()),
        time: SharedTimeSource::new(ports),
    }
}

#[derive(Clone)]
struct Ports(Arc<dyn Host>);

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}

impl AsyncSleep for Ports {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(SyncFuture::new(self.0.sleep(duration)))
    }
}

impl TimeSource for Ports {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.unix_ms())
    }
}

impl HttpClient for Ports {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Ports {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let host = self.0.clone();
        HttpConnectorFuture::new(async move {
            let response = host.call(convert(request)?, CONNECT_TIMEOUT).await.map_err(failure)?;
            let (head, body) = response.into_parts();
            let body = read(body).await?;
            let response = http::Response::from_parts(head, SdkBody::from(body));
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The store's requests are in memory, so that their length is known: signed calls need it.
fn convert(request: HttpRequest) -> Result<http::Request<Body>, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::other(error.into(), None))?;
    let (head, body) = request.into_parts();
    let body = body.bytes().map(Bytes::copy_from_slice);
    let body = body.ok_or_else(|| ConnectorError::other("a request's body is a stream".into(), None))?;
    Ok(http::Request::from_parts(head, full(body)))
}

async fn read(mut body: Body) -> Result<Bytes, ConnectorError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Err(ConnectorError::io(error)),
        };
        let data = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > MAX_ANSWER_BYTES {
            return Err(ConnectorError::other("the store's answer is too long".into(), None));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn failure(error: CallError) -> ConnectorError {
    match error {
        CallError::ConnectTimeout => ConnectorError::timeout(error.into()),
        CallError::Connect
        | CallError::Tls
        | CallError::Closed
        | CallError::Protocol
        | CallError::Refused
        | CallError::NoIdentity => ConnectorError::io(error.into()),
    }
}
