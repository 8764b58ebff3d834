//! The calls that a CLI may make of its vendor with the operator's credential.
//!
//! A vendor's API does more than run models: it lists and deletes what other runs have stored, and makes keys. So a
//! call is let through only if it is on this list. The paths are the public references' of Anthropic's Messages,
//! Google's Gemini and OpenAI's Responses and Chat Completions.

use http::Method;

use crate::config::model::Vendor;

/// A call that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiCall {
    /// It runs a model, and is observed.
    Model(AnswerFormat),
    /// Counts tokens, lists models.
    Other,
}

/// What a model's answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    Messages,
    GenerateContent,
    Responses,
    ChatCompletions,
}

/// `path` is what follows the upstream's own, checked by [`super::request`].
pub(super) fn allowed(vendor: Vendor, method: &Method, path: &str) -> Option<ApiCall> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // The version belongs to the base URL for some, and to the path for others.
    let segments = match segments.as_slice() {
        ["v1" | "v1beta" | "v1alpha", rest @ ..] => rest,
        all => all,
    };
    if *method == Method::GET {
        let is_model = matches!(segments, ["models"] | ["models", _]);
        return is_model.then_some(ApiCall::Other);
    }
    if *method != Method::POST {
        return None;
    }
    let call = match (vendor, segments) {
        (Vendor::Anthropic, ["messages"]) => ApiCall::Model(AnswerFormat::Messages),
        (Vendor::Gemini, ["models", call]) => match call.split_once(':')?.1 {
            "generateContent" | "streamGenerateContent" => ApiCall::Model(AnswerFormat::GenerateContent),
            "countTokens" | "embedContent" | "batchEmbedContents" => ApiCall::Other,
            _ => return None,
        },
        (Vendor::OpenAi, ["responses"]) => ApiCall::Model(AnswerFormat::Responses),
        (Vendor::OpenAi, ["chat", "completions"]) => ApiCall::Model(AnswerFormat::ChatCompletions),
        (Vendor::Anthropic, ["messages", "count_tokens"])
        | (Vendor::OpenAi, ["responses", "compact" | "input_tokens"] | ["embeddings"]) => ApiCall::Other,
        _ => return None,
    };
    Some(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(vendor: Vendor, path: &str) -> Option<ApiCall> {
        allowed(vendor, &Method::POST, path)
    }

    #[test]
    fn calls_of_models_are_known() {
        for (vendor, path, format) in [
            (Vendor::Anthropic, "/v1/messages", AnswerFormat::Messages),
            (Vendor::Gemini, "/v1beta/models/gemini-2.5-pro:generateContent", AnswerFormat::GenerateContent),
            (Vendor::Gemini, "/v1beta/models/g:streamGenerateContent", AnswerFormat::GenerateContent),
            (Vendor::OpenAi, "/responses", AnswerFormat::Responses),
            (Vendor::OpenAi, "/v1/responses", AnswerFormat::Responses),
            (Vendor::OpenAi, "/v1/chat/completions", AnswerFormat::ChatCompletions),
        ] {
            assert_eq!(post(vendor, path), Some(ApiCall::Model(format)), "{path}");
            assert_eq!(allowed(vendor, &Method::DELETE, path), None, "{path}");
        }
        assert_eq!(post(Vendor::Anthropic, "/v1/messages/count_tokens"), Some(ApiCall::Other));
        assert_eq!(allowed(Vendor::OpenAi, &Method::GET, "/v1/models"), Some(ApiCall::Other));
        assert_eq!(allowed(Vendor::Gemini, &Method::GET, "/v1beta/models/g"), Some(ApiCall::Other));
    }

    #[test]
    fn the_rest_of_a_vendors_api_is_closed() {
        for (vendor, path) in [
            (Vendor::Anthropic, "/v1/messages/batches"),
            (Vendor::Anthropic, "/v1/files"),
            (Vendor::Anthropic, "/v1/organizations/users"),
            (Vendor::Anthropic, "/api/event_logging/batch"),
            (Vendor::Anthropic, "/v1/v1/messages"),
            (Vendor::Gemini, "/v1beta/models/g:batchGenerateContent"),
            (Vendor::Gemini, "/v1beta/files"),
            (Vendor::Gemini, "/upload/v1beta/files"),
            (Vendor::Gemini, "/v1beta/models"),
            (Vendor::OpenAi, "/v1/files"),
            (Vendor::OpenAi, "/v1/organization/admin_api_keys"),
            (Vendor::OpenAi, "/v1/responses/resp_1/cancel"),
            (Vendor::OpenAi, "/"),
        ] {
            assert_eq!(post(vendor, path), None, "{path}");
        }
        for path in ["/v1/files", "/v1/responses/resp_1", "/v1/models/a/b", "/v1/batches"] {
            assert_eq!(allowed(Vendor::OpenAi, &Method::GET, path), None, "{path}");
        }
        for method in
            [Method::DELETE, Method::PUT, Method::PATCH, Method::TRACE, Method::HEAD, Method::OPTIONS]
        {
            assert_eq!(allowed(Vendor::OpenAi, &method, "/v1/models"), None, "{method}");
        }
    }
}
