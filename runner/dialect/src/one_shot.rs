//! What all CLIs share that are started for one request, read their prompt from stdin to its end, and go.

use runner_api::RunRequest;
use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::lines::{Line, Lines, MAX_LINE_BYTES, parse_object};
use crate::prompt::Input;
use crate::stderr::Tail;
use crate::{Action, Dialect, Exit, Observed, PromptError, ToolsAs, WorkspaceFile};

/// How one CLI prints its answer.
pub(crate) trait Output: Send {
    fn stdout(&mut self, bytes: &[u8], answer: &mut Answer, out: &mut Vec<Action>);

    /// The process is gone, or has said how its answer ended.
    fn end(&mut self, exit: Option<&Exit>, stderr: &Tail, answer: &mut Answer, out: &mut Vec<Action>);
}

/// Whether an exit means success, for a CLI that does not say so in words.
pub(crate) fn succeeded(exit: Option<&Exit>) -> bool {
    exit.is_some_and(|exit| exit.code == Some(0) && exit.limit.is_none())
}

pub(crate) struct OneShot<O> {
    input: Input,
    output: O,
    answer: Answer,
    stderr: Tail,
}

impl<O: Output> OneShot<O> {
    pub(crate) fn new(input: Input, tools: ToolsAs, manners: Manners, output: O) -> Self {
        Self { input, output, answer: Answer::new(tools, manners), stderr: Tail::default() }
    }
}

impl<O: Output> Dialect for OneShot<O> {
    fn files(&self, request: &RunRequest) -> Result<Vec<WorkspaceFile>, PromptError> {
        Ok(self.input.render(request)?.files)
    }

    fn boot(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Ready);
    }

    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError> {
        let prompt = self.input.render(request)?;
        self.answer.begin();
        out.push(Action::Write(prompt.into_text().into_bytes()));
        out.push(Action::CloseStdin);
        Ok(())
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        self.output.stdout(bytes, &mut self.answer, out);
    }

    fn stderr(&mut self, bytes: &[u8], _out: &mut Vec<Action>) {
        self.stderr.push(bytes);
    }

    /// There is no word for it: its owner ends the process.
    fn cancel(&mut self, _out: &mut Vec<Action>) {
        self.answer.cancel();
    }

    fn end(&mut self, exit: Option<&Exit>, observed: &Observed, out: &mut Vec<Action>) {
        self.output.end(exit, &self.stderr, &mut self.answer, out);
        self.answer.end(exit, observed, &self.stderr, out);
    }

    /// A CLI that fails is waited for: its exit code and stderr say more.
    fn is_complete(&self) -> bool {
        self.answer.is_finished()
    }
}

/// How one CLI prints its answer as JSON objects, one a line.
pub(crate) trait Objects: Send {
    fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>);

    /// Whether the answer can do without a line that is too long to be read and begins so.
    fn can_lose(&self, head: &[u8]) -> bool;

    /// As [`Output::end`].
    fn end(&mut self, exit: Option<&Exit>, answer: &mut Answer);
}

/// The lines of [`Objects`].
pub(crate) struct JsonLines<T> {
    objects: T,
    lines: Lines,
    /// Whether a line was seen that is no JSON object.
    strange: bool,
}

impl<T: Objects> JsonLines<T> {
    pub(crate) fn new(objects: T) -> Self {
        Self { objects, lines: Lines::default(), strange: false }
    }

    fn read(&mut self, line: Line<'_>, answer: &mut Answer, out: &mut Vec<Action>) {
        match line {
            Line::Whole(line) => match parse_object(line) {
                Some(object) => self.objects.object(&object, answer, out),
                None if !self.strange && !line.trim_ascii().is_empty() => {
                    self.strange = true;
                    answer.notice("the CLI printed what is no JSON object; such lines are passed over", out);
                }
                None => {}
            },
            Line::TooLong(head) if self.objects.can_lose(head) => {}
            Line::TooLong(_) => {
                answer.fail(Failure::of_cli(format!(
                    "the CLI printed a line of more than {MAX_LINE_BYTES} bytes"
                )));
            }
        }
    }
}

impl<T: Objects> Output for JsonLines<T> {
    fn stdout(&mut self, bytes: &[u8], answer: &mut Answer, out: &mut Vec<Action>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.push(bytes, |line| self.read(line, answer, out));
        self.lines = lines;
    }

    fn end(&mut self, exit: Option<&Exit>, _stderr: &Tail, answer: &mut Answer, out: &mut Vec<Action>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.finish(|line| self.read(line, answer, out));
        self.objects.end(exit, answer);
    }
}

/// Whether `head`, the beginning of a JSON object, has `"name":"value"` in it.
pub(crate) fn head_says(head: &[u8], name: &str, value: &str) -> bool {
    let member = format!("\"{name}\":\"{value}\"");
    head.windows(member.len()).any(|window| window == member.as_bytes())
}
