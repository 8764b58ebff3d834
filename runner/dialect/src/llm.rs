//! `llm -u`: the answer and a line feed on stdout; on stderr `Token usage: 11 input, 7 output` or `Error: …`.
//! As of llm 0.36.

use runner_api::RunUsage;

use crate::answer::{Answer, Manners};
use crate::one_shot::{OneShot, Output, succeeded};
use crate::plain::Utf8;
use crate::prompt::{Images, Input, Limit};
use crate::stderr::Tail;
use crate::{Action, Dialect, Exit, Settings};

#[derive(Default)]
struct Llm {
    utf8: Utf8,
    /// A line feed at the end may be llm's own.
    line_feed: bool,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input = Input { system: settings.system, images: Images::Refused, commands: &[], limit: Limit::None };
    OneShot::new(input, settings.tools, Manners::default(), Llm::default())
}

impl Llm {
    fn text(&mut self, mut text: String, answer: &mut Answer, out: &mut Vec<Action>) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.line_feed) {
            text.insert(0, '\n');
        }
        self.line_feed = text.ends_with('\n');
        answer.text(text.strip_suffix('\n').unwrap_or(&text), out);
    }
}

impl Output for Llm {
    fn stdout(&mut self, bytes: &[u8], answer: &mut Answer, out: &mut Vec<Action>) {
        let text = self.utf8.push(bytes);
        self.text(text, answer, out);
    }

    fn end(&mut self, exit: Option<&Exit>, stderr: &Tail, answer: &mut Answer, out: &mut Vec<Action>) {
        let rest = self.utf8.finish();
        self.text(rest, answer, out);
        if let Some(usage) = stderr.text().lines().rev().find_map(usage) {
            answer.set_usage(usage);
        }
        if succeeded(exit) {
            answer.finish(None);
        }
    }
}

/// `Token usage: 1,024 input, 7 output`, perhaps followed by details.
fn usage(line: &str) -> Option<RunUsage> {
    let (_, counts) = line.split_once("Token usage: ")?;
    let count = |unit: &str| {
        let (before, _) = counts.split_once(unit)?;
        before.rsplit(", ").next()?.replace(',', "").parse().ok()
    };
    Some(RunUsage { input_tokens: count(" input"), output_tokens: count(" output"), ..RunUsage::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_with_its_commas() {
        let counts = |input, output| {
            Some(RunUsage { input_tokens: Some(input), output_tokens: Some(output), ..RunUsage::default() })
        };
        assert_eq!(usage("Token usage: 11 input, 7 output"), counts(11, 7));
        assert_eq!(usage("Token usage: 1,234,567 input, 1,000 output, {\"a\": 1}"), counts(1_234_567, 1000));
        assert_eq!(usage("Warning"), None);
        assert_eq!(usage("Token usage: many"), Some(RunUsage::default()));
    }
}
