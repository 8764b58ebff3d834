//! Which operation a path means. Anything not listed here is refused.

use std::borrow::Cow;

use http::Method;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    ChatCompletions,
    Embeddings,
    Models,
    /// The percent-decoded id; it may contain `/` and `:`.
    Model(Cow<'a, str>),
    Health,
    Ready,
}

impl Route<'_> {
    pub(crate) fn method(&self) -> Method {
        match self {
            Self::ChatCompletions | Self::Embeddings => Method::POST,
            Self::Models | Self::Model(_) | Self::Health | Self::Ready => Method::GET,
        }
    }
}

/// Every operation: its method and its path, as `OpenAPI` writes it. The aliases that [`route`] takes are left out.
pub const ROUTES: [(&str, &str); 6] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{id}"),
    ("GET", "/healthz"),
    ("GET", "/ready"),
];

/// The operations live under `/v1` and at the root, and a base URL that was pasted with the whole
/// `/chat/completions` on it still works: people do both.
pub(crate) fn route(path: &str) -> Option<Route<'_>> {
    match path {
        "/v1/chat/completions" => return Some(Route::ChatCompletions),
        "/healthz" => return Some(Route::Health),
        "/ready" => return Some(Route::Ready),
        _ => {}
    }
    let mut rest = path;
    while let Some(shorter) = rest.strip_prefix("/v1").filter(|s| s.is_empty() || s.starts_with('/')) {
        rest = shorter;
    }
    if let Some(pasted) = rest.strip_prefix("/chat/completions").filter(|s| s.len() > 1 && s.starts_with('/'))
    {
        rest = pasted;
    }
    match rest.strip_suffix('/').unwrap_or(rest) {
        "/chat/completions" => Some(Route::ChatCompletions),
        "/embeddings" => Some(Route::Embeddings),
        "/models" => Some(Route::Models),
        _ => {
            let id = rest.strip_prefix("/models/")?;
            percent_encoding::percent_decode_str(id).decode_utf8().ok().map(Route::Model)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_listed() {
        let mut left = vec!["chat", "embeddings", "models", "model", "health", "ready"];
        for (method, path) in ROUTES {
            let route = route(path).unwrap();
            assert_eq!(route.method(), method, "{path}");
            let name = match route {
                Route::ChatCompletions => "chat",
                Route::Embeddings => "embeddings",
                Route::Models => "models",
                Route::Model(_) => "model",
                Route::Health => "health",
                Route::Ready => "ready",
            };
            left.retain(|other| *other != name);
        }
        assert!(left.is_empty(), "not listed: {left:?}");
    }

    #[test]
    fn aliases_and_pasted_urls_reach_the_operation() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/v1/chat/completions/",
            "/v1/v1/chat/completions",
            "/v1/chat/completions/chat/completions",
            "/chat/completions/chat/completions",
        ] {
            assert_eq!(route(path), Some(Route::ChatCompletions), "{path}");
        }
        assert_eq!(route("/v1/chat/completions/models"), Some(Route::Models));
        assert_eq!(route("/models/"), Some(Route::Models));
        assert_eq!(route("/embeddings"), Some(Route::Embeddings));
    }

    #[test]
    fn model_ids_are_decoded_once_and_never_a_path() {
        assert_eq!(route("/v1/models/google%2Fgemini:free"), Some(Route::Model("google/gemini:free".into())));
        assert_eq!(route("/v1/models/a/b"), Some(Route::Model("a/b".into())));
        assert_eq!(route("/v1/models/..%2f..%2fadmin"), Some(Route::Model("../../admin".into())));
        assert_eq!(route("/v1/models/100%25"), Some(Route::Model("100%".into())));
        assert_eq!(route("/v1/models/%ff"), None);
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v12/models",
            "/v1/chat",
            "/chat/completionsx",
            "/v1/healthz",
            "/admin",
            "*",
        ] {
            assert_eq!(route(path), None, "{path}");
        }
    }
}
