//! `gemini -o stream-json`: one JSON object a line. As of gemini 0.61.
//!
//! `message` with the role `user` repeats the prompt, with `assistant` has a delta; `tool_use` and `tool_result`;
//! `error`, of which the severity `warning` ends nothing; `result` with `status` and `stats`. It tells no finish reason
//! and no thoughts. A stream that broke is asked for again, up to four times, and its text printed again with no mark
//! between.
//!
//! **`@NAME` in what was said is taken for a file** of the workspace, or for one of the CLI's agents, if there is one of
//! that name: the CLI then adds the file, or a word about the agent, to the prompt, and a space before every `@`. All
//! that can be named so is the request's own: its images, its system prompt, and what this run of the CLI has written.
//! What names nothing stays as it is. Nothing is escaped: `\@` does stop it, but in headless mode the backslash stays in
//! what the model reads, in every address and every decorator. `gemini --acp` ([`crate::Kind::Acp`]) looks for no names
//! in texts.
//!
//! The exit code is 0 where the stream failed, and an HTTP status modulo 256 where the vendor refused.

use runner_api::{ErrorClass, RunUsage};
use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::hold::Suspects;
use crate::one_shot::{JsonLines, Objects, OneShot, head_says};
use crate::prompt::{Images, Input, Limit};
use crate::{Action, Dialect, Exit, Settings};

/// gemini cuts stdin there, and then does not call its vendor at all.
const MAX_PROMPT_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Gemini {
    /// What the last error said.
    error: Option<String>,
    failed: bool,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input = Input {
        system: settings.system,
        // It reads a file that the prompt names so, also with all its tools off.
        images: Images::Files("@"),
        commands: &['/'],
        limit: Limit::Bytes(MAX_PROMPT_BYTES),
    };
    let suspects = Suspects { repetition: true, error: None };
    let manners = Manners { suspects, ..Manners::default() };
    OneShot::new(input, settings.tools, manners, JsonLines::new(Gemini::default()))
}

impl Objects for Gemini {
    fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        match text("/type") {
            "message" if text("/role") == "assistant" => answer.text(text("/content"), out),
            "tool_use" => {
                let arguments = object.get("parameters").map(Value::to_string).unwrap_or_default();
                answer.tool(text("/tool_id"), text("/tool_name"), arguments, out);
            }
            "tool_result" if text("/status") == "error" => answer.tool_failed(out),
            "error" if text("/severity") == "warning" => answer.notice(text("/message"), out),
            "error" => self.error = Some(text("/message").to_owned()),
            "result" => {
                if let Some(usage) = usage(&object["stats"]) {
                    answer.set_usage(usage);
                }
                if text("/status") == "success" {
                    answer.finish(None);
                    return;
                }
                self.failed = true;
                if let Some(message) = object.pointer("/error/message").and_then(Value::as_str) {
                    let message = message.strip_prefix("[API Error: ").unwrap_or(message);
                    self.error = Some(message.strip_suffix(']').unwrap_or(message).to_owned());
                }
            }
            _ => {}
        }
    }

    /// The prompt, and what a tool printed.
    fn can_lose(&self, head: &[u8]) -> bool {
        head_says(head, "role", "user") || head_says(head, "type", "tool_result")
    }

    fn end(&mut self, exit: Option<&Exit>, answer: &mut Answer) {
        let code = exit.filter(|exit| exit.limit.is_none()).and_then(|exit| exit.code);
        match code {
            // Its own codes: no credential, no fit input.
            Some(41) => {
                answer.fail(Failure::of_class(ErrorClass::Auth, "the CLI has no credential"));
            }
            Some(42) => {
                answer.fail(Failure::of_class(ErrorClass::InvalidRequest, "the CLI refused its input"));
            }
            _ if self.failed || self.error.is_some() => {
                let status = code.filter(|code| (144..256).contains(code)).map(|code| code + 256);
                let message = self.error.take().unwrap_or_else(|| "the CLI tells no reason".to_owned());
                answer
                    .fail(Failure::of_vendor(message, status.and_then(|status| u16::try_from(status).ok())));
            }
            _ => {}
        }
    }
}

/// None where nothing was counted. `output_tokens` leaves out what was thought; `total_tokens` has it.
fn usage(stats: &Value) -> Option<RunUsage> {
    let count = |name: &str| stats[name].as_u64();
    let (total, input) = (count("total_tokens")?, count("input_tokens")?);
    let output = count("output_tokens")?.max(total.saturating_sub(input));
    (total > 0).then_some(RunUsage {
        input_tokens: Some(input),
        output_tokens: Some(output),
        cached_input_tokens: count("cached"),
        reasoning_tokens: None,
    })
}
