//! What an edge answers that cannot serve.

use catalog::Violations;
use gateway::{Body, full};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

/// The answer to every request as long as variables are missing or wrong: a 503 in OpenAI's form that names them. Their
/// values are not in it. The log says the same. `fill_random` is the host's, for the request's id.
pub fn not_configured(violations: &Violations, fill_random: impl FnOnce(&mut [u8])) -> http::Response<Body> {
    let reasons = violations.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut random = [0; 12];
    fill_random(&mut random);
    let request_id = random.iter().fold("req_".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    tracing::error!(request_id, reason = reasons, "the variables are not right");
    let message = format!("This gateway cannot serve before its variables are set right. {reasons}.");
    let error = json!({
        "error": {"message": message, "type": "server_error", "param": null, "code": "not_configured"}
    });
    let mut response = http::Response::new(full(error.to_string()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let id = HeaderValue::try_from(request_id).expect("hexadecimal digits are fit for a header");
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use gateway::Settings;
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use crate::Deployment;

    #[test]
    fn it_names_every_variable_and_no_value() {
        let set = |name: &str| match name {
            "DYAD_TABLE" => Some("a-table".to_owned()),
            "DYAD_KEY_SECRET" => Some("too-short".to_owned()),
            _ => None,
        };
        let response =
            not_configured(&Deployment::from_variables(set, Settings::default()).unwrap_err(), |bytes| {
                bytes.fill(0xAB);
            });
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-request-id"], "req_abababababababababababab");
        let body = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        let error = &serde_json::from_slice::<Value>(&body).unwrap()["error"];
        assert_eq!(error["code"], "not_configured");
        let message = error["message"].as_str().unwrap();
        for name in ["AWS_REGION", "DYAD_KEY_SECRET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            assert!(message.contains(&format!("{name}: ")), "{name}: {message}");
        }
        assert!(!message.contains("too-short") && !message.contains("DYAD_TABLE"), "{message}");
    }
}
