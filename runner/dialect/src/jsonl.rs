//! `jsonl`: any CLI that prints JSON objects, one a line; the operator says by JSON Pointers what is where.
//!
//! It has succeeded when it exits with 0, told no error, and told why it finished if the operator says where.

use runner_api::{FinishReason, RunUsage};
use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::one_shot::{JsonLines, Objects, OneShot, succeeded};
use crate::prompt::{Images, Input, Limit};
use crate::{Action, Dialect, Exit, JsonlPaths, Settings};

struct Jsonl {
    paths: JsonlPaths,
    reason: Option<FinishReason>,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input = Input { system: settings.system, images: Images::Refused, commands: &[], limit: Limit::None };
    let paths = settings.jsonl.clone().unwrap_or_default();
    // Nothing is known of its manners: what was seen of the vendor is trusted more.
    let manners = Manners { hides_failures: true, ..Manners::default() };
    OneShot::new(input, settings.tools, manners, JsonLines::new(Jsonl { paths, reason: None }))
}

impl Objects for Jsonl {
    fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let at = |path: &Option<String>| object.pointer(path.as_deref()?).filter(|value| !value.is_null());
        if let Some(text) = at(&self.paths.reasoning).and_then(Value::as_str) {
            answer.reasoning(text, out);
        }
        if let Some(text) = object.pointer(&self.paths.text).and_then(Value::as_str) {
            answer.text(text, out);
        }
        let before = answer.usage();
        let count = |path: &Option<String>| at(path).and_then(Value::as_u64);
        let usage = RunUsage {
            input_tokens: count(&self.paths.input_tokens).or(before.input_tokens),
            output_tokens: count(&self.paths.output_tokens).or(before.output_tokens),
            ..before
        };
        if usage != before {
            answer.set_usage(usage);
        }
        match at(&self.paths.error) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::String(message)) => answer.fail(Failure::of_vendor(message, None)),
            Some(error) => answer.fail(Failure::of_vendor(error.to_string(), None)),
        }
        if let Some(finish) = at(&self.paths.finish).and_then(Value::as_str) {
            self.reason = Some(reason(finish));
        }
    }

    fn can_lose(&self, _head: &[u8]) -> bool {
        false
    }

    fn end(&mut self, exit: Option<&Exit>, answer: &mut Answer) {
        if succeeded(exit) && (self.paths.finish.is_none() || self.reason.is_some()) {
            answer.finish(self.reason);
        }
    }
}

fn reason(reason: &str) -> FinishReason {
    match reason {
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}
