//! Who gets through, where to, and what each side gets to know of the other.

use dyad_runner::config::model::Vendor;
use dyad_runner::egress::{EgressProxy, EgressTimeouts, SystemLookup};

use super::support::{CREDENTIAL, FakeVendor, Peer, Place, ask, enter, request, soon};

const CALL: &str = "POST /v/v1/messages";

#[tokio::test]
async fn without_the_endpoints_own_token_nothing_passes() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    let proxy = place.proxy();
    let open = || proxy.open(&place.cli()).unwrap().unwrap();
    let (endpoint, neighbour) = (open(), open());
    let token = endpoint.token().expose();
    assert_eq!(token.len(), 64);
    assert_ne!(token, neighbour.token().expose());
    for credential in [
        String::new(),
        "x-api-key:\r\n".to_owned(),
        "x-api-key: guessed\r\n".to_owned(),
        format!("x-api-key: {}\r\n", neighbour.token().expose()),
        format!("x-api-key: {}\r\n", &token[1..]),
        format!("x-api-key: {token}0\r\n"),
        format!("authorization: {token}\r\n"),
        format!("proxy-authorization: Bearer {token}\r\n"),
        format!("cookie: {token}\r\n"),
    ] {
        let mut sandbox = enter(&endpoint).await;
        sandbox
            .send(format!("{CALL} HTTP/1.1\r\n{credential}connection: close\r\ncontent-length: 0\r\n\r\n"))
            .await;
        sandbox.closed().await;
        assert_eq!(sandbox.status(), 401, "{credential}");
        let text = sandbox.text();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], 401);
    }
    assert!(vendor.is_untouched().await);
    assert_eq!(endpoint.observed().calls, 0);
}

#[tokio::test]
async fn the_token_is_taken_wherever_a_client_puts_it_and_the_credential_put_where_the_vendor_looks() {
    for (kind, path, name, value) in [
        (Vendor::Anthropic, "/v1/messages", "x-api-key", CREDENTIAL.to_owned()),
        (Vendor::Gemini, "/v1beta/models/g:streamGenerateContent", "x-goog-api-key", CREDENTIAL.to_owned()),
        (Vendor::OpenAi, "/v1/responses", "authorization", format!("Bearer {CREDENTIAL}")),
    ] {
        let vendor = FakeVendor::start().await;
        let place = Place::with(kind, &vendor.url());
        let endpoint = place.open();
        let token = endpoint.token().expose();
        for (query, header) in [
            ("?alt=sse".to_owned(), format!("x-api-key: {token}\r\n")),
            ("?alt=sse".to_owned(), format!("authorization: Bearer {token}\r\n")),
            ("?alt=sse".to_owned(), format!("x-goog-api-key: {token}\r\n")),
            (format!("?key={token}&alt=sse"), String::new()),
        ] {
            let mut sandbox = enter(&endpoint).await;
            sandbox
                .send(format!(
                    "POST /v{path}{query} HTTP/1.1\r\nhost: inside\r\n{header}accept-encoding: gzip\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
                ))
                .await;
            let mut call = vendor.call().await;
            call.until("\r\n\r\n{}").await;
            assert!(call.text().starts_with(&format!("POST {path}?alt=sse HTTP/1.1\r\n")), "{}", call.text());
            assert_eq!(call.header(name), value);
            assert_eq!(call.header("host"), vendor.address().to_string());
            assert_eq!(call.header("accept-encoding"), "identity");
            assert!(!call.text().contains(token), "{}", call.text());
            assert_eq!(call.text().matches(CREDENTIAL).count(), 1);
            // A vendor that says which credential it does not like says it to itself.
            call.answer("200 OK", "set-cookie: a=b\r\nx-kept: yes\r\nconnection: close\r\n", "{}").await;
            sandbox.closed().await;
            assert_eq!((sandbox.status(), sandbox.header("x-kept").as_str()), (200, "yes"));
            assert!(!sandbox.text().contains("set-cookie") && !sandbox.text().contains(CREDENTIAL));
        }
        assert!(!format!("{endpoint:?}").contains(token));
        assert!(!format!("{endpoint:?}").contains(CREDENTIAL));
    }
}

#[tokio::test]
async fn a_rotated_credential_is_used_with_the_next_call_and_a_missing_one_is_told() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    let endpoint = place.open();
    for credential in ["sk-first", "sk-second"] {
        std::fs::write(place.credential_file(), credential).unwrap();
        let mut sandbox = enter(&endpoint).await;
        sandbox.send(request(&endpoint, CALL, "connection: close\r\n", "{}")).await;
        let mut call = vendor.call().await;
        assert_eq!(call.header("x-api-key"), credential);
        call.answer("200 OK", "connection: close\r\n", "{}").await;
        sandbox.closed().await;
    }
    std::fs::remove_file(place.credential_file()).unwrap();
    let sandbox = ask(&endpoint, CALL).await;
    assert_eq!(sandbox.status(), 401);
    assert!(
        !sandbox.text().contains("credential\""),
        "the file's name is nobody's business: {}",
        sandbox.text()
    );
    let observed = endpoint.observed();
    assert_eq!((observed.calls, observed.status), (3, Some(401)));
    assert!(vendor.is_untouched().await);
}

#[tokio::test]
async fn only_listed_upstreams_and_only_what_a_cli_needs_of_them() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::OpenAi, &vendor.url());
    let endpoint = place.open();
    for (line, status) in [
        ("POST /w/v1/responses", 404),
        ("POST /V/v1/responses", 404),
        ("POST /v1/responses", 404),
        ("POST /v", 400),
        ("POST /", 400),
        ("POST /v/", 400),
        ("POST //v/v1/responses", 400),
        ("POST /v//v1/responses", 400),
        ("POST /v/../v/v1/responses", 400),
        ("POST /v/%2e%2e/v1/responses", 400),
        ("POST /v/v1/%2E%2E/files", 400),
        ("POST /v/v1%2fresponses", 400),
        ("POST /v/v1/responses/..", 400),
        ("POST /v/v1/responses;x", 400),
        ("POST http://169.254.169.254/v1/responses", 400),
        ("POST https://127.0.0.1/v/v1/responses", 400),
        ("OPTIONS *", 400),
        ("GET /v/v1/files", 403),
        ("POST /v/v1/files", 403),
        ("GET /v/v1/responses/resp_1", 403),
        ("DELETE /v/v1/responses/resp_1", 403),
        ("GET /v/v1/organization/admin_api_keys", 403),
        ("POST /v/v1/batches", 403),
        ("PUT /v/v1/responses", 403),
        // It would come back with the credential in it.
        ("TRACE /v/v1/responses", 403),
        ("TRACE /v/v1/models", 403),
    ] {
        assert_eq!(ask(&endpoint, line).await.status(), status, "{line}");
    }
    assert!(vendor.is_untouched().await);
}

#[tokio::test]
async fn a_base_url_with_a_path_stays_in_front() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::OpenAi, &format!("{}/proxy/v1/", vendor.url()));
    let endpoint = place.open();
    assert_eq!(endpoint.base_url("v"), "http://127.0.0.1:8080/v");
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, "GET /v/models?client_version=1&evil=2", "", "")).await;
    let call = vendor.call().await;
    assert!(call.text().starts_with("GET /proxy/v1/models?client_version=1 HTTP/1.1\r\n"), "{}", call.text());
}

#[tokio::test]
async fn a_websocket_is_refused_with_the_status_that_makes_codex_go_on_without() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::OpenAi, &vendor.url());
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    sandbox.send(request(&endpoint, "GET /v/v1/responses", upgrade, "")).await;
    sandbox.until("plain HTTP/1.1").await;
    assert_eq!((sandbox.status(), sandbox.header("upgrade").as_str()), (426, "HTTP/1.1"));
    assert!(vendor.is_untouched().await);
}

#[tokio::test]
async fn a_connection_may_be_warmed_up_without_a_token_and_without_the_vendor() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    let endpoint = place.open();
    for path in ["/", "/v", "/v/v1/messages"] {
        let mut sandbox = enter(&endpoint).await;
        sandbox.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        sandbox.closed().await;
        assert_eq!(sandbox.status(), 204);
    }
    assert!(vendor.is_untouched().await);
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_reaches_the_vendor_in_one_form_only() {
    let smuggled = "POST /v1/files HTTP/1.1\r\nhost: x\r\n\r\n";
    for framing in [
        format!(
            "content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{smuggled}",
            12 + smuggled.len()
        ),
        format!("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{smuggled}"),
        format!("content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}{smuggled}"),
        format!("content-length: 2\r\nx: y\nz: 1\r\n\r\n{{}}{smuggled}"),
    ] {
        let vendor = FakeVendor::start().await;
        let place = Place::with(Vendor::Anthropic, &vendor.url());
        let endpoint = place.open();
        let mut sandbox = enter(&endpoint).await;
        let token = endpoint.token().expose();
        sandbox.send(format!("{CALL} HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\n{framing}")).await;
        let mut call = vendor.call().await;
        call.until("{}").await;
        call.answer("200 OK", "connection: close\r\n", "{}").await;
        call.closed().await;
        let text = call.text();
        assert_eq!(text.matches("HTTP/1.1\r\n").count(), 1, "{text}");
        assert!(!text.contains("/v1/files"), "{text}");
        let lengths = text.to_ascii_lowercase().matches("content-length:").count();
        let encodings = text.to_ascii_lowercase().matches("transfer-encoding:").count();
        assert_eq!(lengths + encodings, 1, "{text}");
        // The second request, if it is taken for one, is judged by itself: it has no token.
        sandbox.until("HTTP/1.1 200").await;
    }
    for framing in [
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "content-length: +2\r\n\r\n{}",
        "transfer-encoding: chunked, identity\r\n\r\n{}",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "x: y\r\n folded: z\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let vendor = FakeVendor::start().await;
        let place = Place::with(Vendor::Anthropic, &vendor.url());
        let endpoint = place.open();
        let mut sandbox = enter(&endpoint).await;
        let token = endpoint.token().expose();
        sandbox.send(format!("{CALL} HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\n{framing}")).await;
        sandbox.closed().await;
        assert_eq!(sandbox.status(), 400, "{framing}");
        assert!(vendor.is_untouched().await);
    }
}

#[tokio::test]
async fn a_dropped_endpoint_leaves_nothing() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    let endpoint = place.open();
    let (socket, directory) = (endpoint.socket_path(), endpoint.dir().to_owned());
    assert!(socket.starts_with(&directory));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    // One in an answer, one that has not been answered yet, one that has said nothing.
    let (mut streaming, mut waiting, mut silent) =
        (enter(&endpoint).await, enter(&endpoint).await, enter(&endpoint).await);
    streaming.send(request(&endpoint, CALL, "", "{}")).await;
    let mut answering = vendor.call().await;
    answering.begin_stream().await;
    answering.chunk("data: {}\n\n").await;
    streaming.until("data: {}").await;
    waiting.send(request(&endpoint, CALL, "", "{}")).await;
    let mut thinking = vendor.call().await;
    drop(endpoint);
    for sandbox in [&mut streaming, &mut waiting, &mut silent] {
        sandbox.closed().await;
    }
    for call in [&mut answering, &mut thinking] {
        call.closed().await;
    }
    assert!(!socket.exists() && !directory.exists());
    assert!(!streaming.text().ends_with("0\r\n\r\n"), "it must not look complete");
}

#[tokio::test]
async fn a_sandbox_that_leaves_ends_its_call() {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, CALL, "", "{}")).await;
    let mut call = vendor.call().await;
    Peer::hang_up(sandbox);
    soon("the vendor's end", call.closed()).await;
    assert!(!endpoint.observed().broken, "no fault of the vendor's");
}

#[tokio::test]
async fn a_cli_without_egress_has_no_endpoint() {
    let mut cli = (*Place::new().cli()).clone();
    cli.egress = None;
    let proxy = Place::new().proxy();
    assert!(proxy.open(&cli.into()).unwrap().is_none());
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let mut place = Place::with(Vendor::Anthropic, "https://vendor.example");
    place.add("w", Vendor::Anthropic, "https://vendor.example");
    place.egress.upstreams[0].ca = Some("/no/such/ca.pem".into());
    place.egress.upstreams[1].ca = Some(place.credential_file());
    let file = place.credential_file();
    let faults =
        EgressProxy::new(&file, &[place.cli()], EgressTimeouts::default(), std::sync::Arc::new(SystemLookup))
            .unwrap_err();
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for named in ["/no/such/ca.pem", "there is no certificate in it", "cannot be used for sockets"] {
        assert!(told.iter().any(|fault| fault.contains(named)), "{named}: {told:?}");
    }
}
