//! The answer of an edge that cannot serve because its variables are wrong.

use catalog::Violations;
use gateway::{Body, Host, full};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// 503 in OpenAI's shape, which names every variable that is wrong and never what is in it. It is logged as well.
pub fn not_configured(violations: &Violations, request: &HeaderMap, host: &dyn Host) -> http::Response<Body> {
    let id = request.get(REQUEST_ID).filter(|id| is_sane(id)).cloned();
    let id = id.unwrap_or_else(|| random_id(host));
    tracing::error!(request_id = id.to_str().unwrap_or_default(), %violations, "the variables are wrong");
    let error = json!({
        "message": format!("This gateway is not configured. {violations}"),
        "type": "server_error",
        "param": null,
        "code": "not_configured",
    });
    let mut response = http::Response::new(full(json!({ "error": error }).to_string()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn random_id(host: &dyn Host) -> HeaderValue {
    let mut random = [0; 16];
    host.fill_random(&mut random);
    let id = format!("req_{:032x}", u128::from_le_bytes(random));
    HeaderValue::from_str(&id).expect("hexadecimal digits are fit for a header")
}

#[cfg(test)]
mod tests {
    use catalog::Violation;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::testing::{StillHost, ready};

    fn answer(headers: &HeaderMap) -> (http::response::Parts, serde_json::Value) {
        let violation = |path: &str| Violation { path: path.to_owned(), message: "it is not set".to_owned() };
        let violations = Violations(vec![violation("DYAD_TABLE"), violation("AWS_REGION")]);
        let (head, body) = not_configured(&violations, headers, &StillHost).into_parts();
        let body = ready(body.collect()).unwrap().to_bytes();
        (head, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn every_wrong_variable_is_named() {
        let (head, body) = answer(&HeaderMap::new());
        assert_eq!(head.status, 503);
        assert_eq!(head.headers["content-type"], "application/json");
        assert!(head.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("DYAD_TABLE") && message.contains("AWS_REGION"), "{message}");
        assert_eq!(body["error"]["code"], "not_configured");
    }

    #[test]
    fn the_request_keeps_its_id_if_that_is_sane() {
        for (given, kept) in [("mine-1", true), ("not mine", false), (&"x".repeat(129), false)] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(given).unwrap())]);
            let (head, _) = answer(&headers);
            assert_eq!(head.headers["x-request-id"] == given, kept, "{given}");
        }
    }
}
