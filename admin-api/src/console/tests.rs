use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

async fn answer(method: Method, path: &str, if_none_match: Option<&str>) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(tags) = if_none_match {
        request = request.header(IF_NONE_MATCH, tags);
    }
    console_routes().with_state(()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn pages_and_what_they_load_are_served_with_strict_headers() {
    for (path, name, content_type) in [
        ("/console", "index.html", "text/html; charset=utf-8"),
        ("/console/", "index.html", "text/html; charset=utf-8"),
        ("/openapi", "openapi.html", "text/html; charset=utf-8"),
        ("/console/main.js", "main.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "style.css", "text/css; charset=utf-8"),
    ] {
        let response = answer(Method::GET, path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()[CONTENT_TYPE], content_type, "{path}");
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response.headers()[REFERRER_POLICY], "no-referrer");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
        let asset = ASSETS.iter().find(|asset| asset.name == name).unwrap();
        assert_eq!(text(response).await, asset.text, "{path}");
    }
}

#[tokio::test]
async fn what_a_browser_has_is_not_sent_again() {
    let first = answer(Method::GET, "/console/main.js", None).await;
    let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
    for tags in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let again = answer(Method::GET, "/console/main.js", Some(&tags)).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{tags}");
        assert_eq!(again.headers()[ETAG], etag.as_str());
        assert_eq!(text(again).await, "");
    }
    let other = answer(Method::GET, "/console/dom.js", Some(&etag)).await;
    assert_eq!(other.status(), StatusCode::OK, "each file has a tag of its own");
}

#[tokio::test]
async fn nothing_else_is_there() {
    for path in
        ["/console/nothing.js", "/console/a/b", "/console/../Cargo.toml", "/console/%2e%2e/Cargo.toml"]
    {
        let response = answer(Method::GET, path, None).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY, "{path}");
    }
    assert_eq!(answer(Method::POST, "/console", None).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let head = answer(Method::HEAD, "/console", None).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(text(head).await, "");
}

#[test]
fn every_file_is_compiled_in() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
    let files = std::fs::read_dir(directory).unwrap();
    let files: BTreeSet<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let compiled_in: BTreeSet<_> = ASSETS.iter().map(|asset| asset.name.to_owned()).collect();
    assert_eq!(files, compiled_in);
}

/// Names in quotes that look like files of ours, in whatever a file loads.
fn loaded(asset: &Asset) -> impl Iterator<Item = &'static str> {
    let text: &'static str = asset.text;
    let quoted = text.split(['"', '\'', '`']);
    let names = quoted.filter_map(|part| part.strip_prefix("./").or_else(|| part.strip_prefix("/console/")));
    names.filter(|name| matches!(name.rsplit_once('.'), Some((_, "js" | "css" | "html"))))
}

#[test]
fn what_files_load_is_there() {
    let mut count = 0;
    for asset in ASSETS {
        for name in loaded(asset) {
            count += 1;
            assert!(ASSETS.iter().any(|other| other.name == name), "{} loads {name}", asset.name);
        }
    }
    assert!(count > ASSETS.len(), "only {count} references were found");
}

#[test]
fn nothing_makes_html_of_text_or_comes_from_elsewhere() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "localStorage",
        "document.cookie",
    ];
    for asset in ASSETS {
        for word in forbidden {
            assert!(!asset.text.contains(word), "{} has {word}", asset.name);
        }
        let without_svg = asset.text.replace("http://www.w3.org/2000/svg", "");
        let elsewhere = ["src=\"http", "href=\"http", "from \"http", "url(http", "style=\""];
        for start in elsewhere {
            assert!(!without_svg.contains(start), "{} has {start}", asset.name);
        }
    }
}
