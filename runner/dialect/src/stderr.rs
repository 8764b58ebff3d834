//! The last of what a CLI wrote to stderr, fit to be shown to an operator.

use std::collections::VecDeque;
use std::sync::LazyLock;

use regex::Regex;

use crate::plain::plain;

/// So much of stderr is kept.
const TAIL_BYTES: usize = 2 << 10;

pub(crate) const REDACTED: &str = "[redacted]";

/// The end of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
    /// Whether something before `bytes` was dropped.
    cut: bool,
}

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(TAIL_BYTES);
        self.cut |= excess > 0;
        self.bytes.drain(..excess.min(self.bytes.len()));
        self.bytes.extend(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
    }

    /// As plain text without secrets. A word that may have lost its beginning is left out: nobody could tell whether
    /// it is a secret.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = plain(&String::from_utf8_lossy(&bytes));
        let text = match text.split_once(char::is_whitespace) {
            Some((_, rest)) if self.cut => rest,
            None if self.cut => "",
            _ => &text,
        };
        redact(text.trim())
    }
}

/// What credentials look like: by their well-known beginnings, by the names before them, and by being long and random.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?x)
        # A PEM block.
        -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----(?s:.*?)(?:-----END|\z)
        # Vendors' keys: OpenAI and Anthropic, Google, AWS, GitHub, GitLab, Slack, Hugging Face; JSON web tokens.
        | \b(?:sk-|AIza|ya29\.|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|hf_|eyJ)[A-Za-z0-9_.\-/+=*]{8,}
        # Bearer VALUE, and NAME=VALUE or "NAME": "VALUE" where the name says what the value is.
        | (?i:\bbearer\s+|[a-z0-9_\-]*(?:api[_\-]?key|secret|token|password|passwd|authorization|credential)s?["']?\s*[=:]\s*["']?(?:basic\s+|bearer\s+)?)
          (?P<named>[^\s"',;()\[\]{}<>]{6,})
        # USER:PASSWORD@ in a URL.
        | ://(?P<userinfo>[^\s/@:]*:[^\s/@]+)@
        # Thirty-two or more letters and digits in a row.
        | \b(?P<random>[A-Za-z0-9_\-]{32,})
        "#,
    )
    .expect("a valid pattern, which a test compiles")
});

/// Replaces what looks like a secret.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for found in SECRETS.captures_iter(text) {
        let named = ["named", "userinfo", "random"].into_iter().find_map(|name| found.name(name));
        let Some(secret) = named.or_else(|| found.get(0)) else { continue };
        // A long word without digits is a name.
        let random = found.name("random").is_some();
        if random && !secret.as_str().bytes().any(|byte| byte.is_ascii_digit()) {
            continue;
        }
        out.push_str(&text[copied..secret.start()]);
        out.push_str(REDACTED);
        copied = secret.end();
    }
    out.push_str(&text[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go() {
        for (text, shown) in [
            ("key sk-ant-api03-abcDEF_123 was refused", "key [redacted] was refused"),
            ("Incorrect API key provided: sk-proj-abcd1234efgh.", "Incorrect API key provided: [redacted]"),
            ("?key=AIzaSyA1234567890abcdefghijklmnopqrstuvw&alt=sse", "?key=[redacted]&alt=sse"),
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
            ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic [redacted]"),
            ("{\"api_key\":\"short-one\",\"a\":1}", "{\"api_key\":\"[redacted]\",\"a\":1}"),
            ("GEMINI_API_KEY=hunter2hunter2", "GEMINI_API_KEY=[redacted]"),
            ("x-api-key: hunter2", "x-api-key: [redacted]"),
            ("password = hunter2 ", "password = [redacted] "),
            ("proxy http://user:pa$$@host:80/", "proxy http://[redacted]@host:80/"),
            ("0123456789abcdef0123456789abcdef", "[redacted]"),
            ("eyJhbGciOi.eyJzdWIi.c2ln!", "[redacted]!"),
            ("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----", "[redacted] PRIVATE KEY-----"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "must specify the GEMINI_API_KEY environment variable.",
            "Error code: 401 - Invalid API key (mock)",
            "at Client.onError (file:///opt/cli/bundle/chunk-JDPZ4CE3.js:211613:31)",
            "a-very-long-name-of-a-file-without-any-figure-in-it",
            "Token usage: 11 input, 7 output",
            "http://127.0.0.1:18080/v1/responses",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn a_tail_begins_with_a_whole_word() {
        let mut tail = Tail::default();
        tail.push(b"first line\n");
        assert_eq!(tail.text(), "first line");
        let secret = [b"sk-ant-".as_slice(), &[b'a'; TAIL_BYTES - 20], b" and \x1b[31mmore\n"].concat();
        tail.push(&secret);
        assert_eq!(tail.text(), "and more");
        tail.push(&[b'a'; 3 * TAIL_BYTES]);
        assert_eq!(tail.text(), "");
        assert_eq!(tail.bytes.len(), TAIL_BYTES);
    }

    proptest! {
        #[test]
        fn a_tail_is_the_same_however_it_was_cut(text in "[a\u{e9} \n]{0,200}", repeat in 1usize..60, size in 1usize..700) {
            let stream = text.repeat(repeat);
            let (mut whole, mut cut) = (Tail::default(), Tail::default());
            whole.push(stream.as_bytes());
            stream.as_bytes().chunks(size).for_each(|piece| cut.push(piece));
            prop_assert_eq!(whole.text(), cut.text());
            prop_assert!(cut.bytes.len() <= TAIL_BYTES);
        }

        #[test]
        fn redacting_never_panics(text in ".{0,60}") {
            redact(&text);
        }
    }
}
