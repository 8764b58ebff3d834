//! The listener for Prometheus.

use super::support::Place;

#[test]
fn a_scrape_tells_of_requests_and_of_the_process() {
    let place = Place::new();
    let gateway = place.up(&["--metrics", "127.0.0.1:0"]);
    assert_eq!(gateway.get("/v1/models", "dgw_wrong"), 401);
    let answer = gateway.ask_metrics("GET", "/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    for line in [
        "dyad_gateway_ready 1",
        "dyad_gateway_store_up 1",
        "dyad_gateway_errors_total{code=\"invalid_api_key\"} 1",
    ] {
        assert!(page.lines().any(|other| other == line), "{line}: {page}");
    }
    let positive = |name: &str| {
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.is_some_and(|value| value.parse::<f64>().unwrap() > 0.0)
    };
    for name in ["process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds"] {
        assert!(positive(name), "{name}: {page}");
    }
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn nothing_else_is_served_there_and_metrics_nowhere_else() {
    let place = Place::new();
    let gateway = place.up(&["--metrics", "127.0.0.1:0"]);
    for path in ["/", "/v1/models", "/healthz", "/metrics/"] {
        assert!(gateway.ask_metrics("GET", path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert!(gateway.ask_metrics("POST", "/metrics").starts_with("HTTP/1.1 405 "));
    for path in ["/metrics", "/v1/metrics"] {
        assert_eq!(gateway.get(path, gateway.first_key()), 404, "{path}");
    }
}

#[test]
fn without_the_option_there_is_no_listener() {
    let mut place = Place::new();
    assert!(place.up(&[]).ready["metrics_url"].is_null());
    place.set("DYAD_GATEWAY_METRICS", "127.0.0.1:0");
    assert!(place.up(&[]).ask_metrics("GET", "/metrics").starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran =
        place.run(&["up", "--listen", "127.0.0.1:0", "--no-discovery", "--metrics", &address]).expect(1);
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("--metrics"), "{ran:#?}");
    let ran = place.run(&["up", "--metrics", "9464"]).expect(2);
    assert!(ran.stderr.contains("write an address and a port"), "{ran:#?}");
}
