//! `qwen -o stream-json --include-partial-messages`: as Claude Code prints it ([`crate::stream_json`]), but for errors.
//! As of qwen 0.15.
//!
//! What the vendor refused comes as the model's text, `[API Error: 401 …]`, with `is_error: false` and exit code 0. At
//! the limit of tokens it asks on four times, and prints all of what comes as one message.

use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::hold::Suspects;
use crate::one_shot::{JsonLines, Objects, OneShot};
use crate::prompt::{Images, Input, Limit};
use crate::stream_json::{Flavour, StreamJson};
use crate::{Action, Dialect, Exit, Settings};

/// qwen cuts stdin there.
const MAX_PROMPT_BYTES: usize = 8 << 20;

struct Qwen(StreamJson);

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input = Input {
        system: settings.system,
        images: Images::Refused,
        commands: &['/'],
        limit: Limit::Bytes(MAX_PROMPT_BYTES),
    };
    let manners = Manners {
        suspects: Suspects { repetition: true, error: Some("[API Error: ") },
        hides_failures: true,
    };
    OneShot::new(input, settings.tools, manners, JsonLines::new(Qwen(StreamJson::new(Flavour::Qwen))))
}

impl Objects for Qwen {
    fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        self.0.object(object, answer, out);
    }

    fn can_lose(&self, head: &[u8]) -> bool {
        StreamJson::can_lose(head)
    }

    fn end(&mut self, _exit: Option<&Exit>, answer: &mut Answer) {
        self.0.end(answer);
    }
}
