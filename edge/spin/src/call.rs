//! Calls that go out.

use std::time::Duration;

use gateway::{Body, CallError};
use http::header;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use spin_sdk::http::FromResponse as _;
use spin_sdk::wasip3::http::client;
use spin_sdk::wasip3::http::types::{ErrorCode, RequestOptions};
use spin_sdk::wasip3::http_compat::{RequestOptionsExtension, http_into_wasi_request};

use crate::message::pieces;

/// The gateway has timeouts of its own for what comes after the connection; Spin's, ten minutes unless told otherwise,
/// must not come before them.
const LATER_THAN_OURS: Duration = Duration::from_hours(7 * 24);

/// Spin follows no redirects. Dropping the future or the body closes the stream to the upstream.
pub(crate) async fn send(
    mut request: http::Request<Body>,
    connect_timeout: Duration,
) -> Result<http::Response<Body>, CallError> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    request.extensions_mut().insert(options(connect_timeout));
    // The host is the URI's: Spin refuses the header.
    request.headers_mut().remove(header::HOST);
    if let Some(length) = request.body().size_hint().exact() {
        // Without it the body would go out in chunks, which not every upstream takes.
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    let answer = async {
        let request = http_into_wasi_request(request.map(pieces))?;
        client::send(request).await.and_then(spin_sdk::http::Response::from_response)
    };
    match answer.await {
        Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
        Err(ErrorCode::HttpRequestDenied) => {
            tracing::warn!(
                host,
                "a call was not made: allowed_outbound_hosts in spin.toml does not have its host"
            );
            Err(CallError::Connect)
        }
        Err(error) => {
            tracing::debug!(host, %error, "call failed");
            Err(classify(&error))
        }
    }
}

fn options(connect_timeout: Duration) -> RequestOptionsExtension {
    let options = RequestOptions::new();
    let nanoseconds = |timeout: Duration| u64::try_from(timeout.as_nanos()).ok();
    // A host that cannot do one of them says so, and there is nothing to do about it.
    let _ = options.set_connect_timeout(nanoseconds(connect_timeout));
    let _ = options.set_first_byte_timeout(nanoseconds(LATER_THAN_OURS));
    let _ = options.set_between_bytes_timeout(nanoseconds(LATER_THAN_OURS));
    RequestOptionsExtension(options)
}

fn classify(error: &ErrorCode) -> CallError {
    use ErrorCode as E;
    match error {
        E::ConnectionTimeout | E::DnsTimeout => CallError::ConnectTimeout,
        E::DnsError(_)
        | E::DestinationNotFound
        | E::DestinationUnavailable
        | E::DestinationIpProhibited
        | E::DestinationIpUnroutable
        | E::ConnectionRefused
        | E::ConnectionLimitReached
        | E::HttpRequestDenied => CallError::Connect,
        E::TlsProtocolError | E::TlsCertificateError | E::TlsAlertReceived(_) => CallError::Tls,
        E::HttpResponseIncomplete
        | E::HttpResponseHeaderSectionSize(_)
        | E::HttpResponseHeaderSize(_)
        | E::HttpResponseTransferCoding(_)
        | E::HttpResponseContentCoding(_) => CallError::Protocol,
        // Spin says `HttpProtocolError` of most failures, a kept connection that its peer has closed among them.
        _ => CallError::Closed,
    }
}
