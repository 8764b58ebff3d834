//! What all session protocols share: the process is up before its request comes, and lives on after its answer.

use runner_api::RunRequest;
use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::lines::{Line, Lines, MAX_LINE_BYTES, parse_object};
use crate::stderr::Tail;
use crate::{Action, Dialect, Exit, Observed, PromptError, Settings, WorkspaceFile};

/// What one CLI and its client say to each other: JSON objects, one a line, both ways.
pub(crate) trait Protocol: Send {
    /// What can be done before the request comes. Ends, now or at a later message, with [`Action::Ready`].
    fn boot(&mut self, out: &mut Vec<Action>);

    /// As [`Dialect::begin`].
    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError>;

    /// The CLI said something.
    fn message(&mut self, message: Value, answer: &mut Answer, out: &mut Vec<Action>);

    /// Whether the answer can do without a message that is too long to be read and begins so.
    fn can_lose(&self, head: &[u8]) -> bool;

    /// Asks the CLI to stop. Where nothing was asked of it yet, the answer fails at once.
    fn cancel(&mut self, answer: &mut Answer, out: &mut Vec<Action>);

    /// The CLI says no more.
    fn end(&mut self, _answer: &mut Answer) {}
}

pub(crate) struct Session<P> {
    protocol: P,
    lines: Lines,
    answer: Answer,
    stderr: Tail,
}

impl<P: Protocol> Session<P> {
    pub(crate) fn new(settings: &Settings, manners: Manners, protocol: P) -> Self {
        let answer = Answer::new(settings.tools, manners);
        Self { protocol, lines: Lines::default(), answer, stderr: Tail::default() }
    }

    /// What is no JSON object is none of the protocol's, and passed over.
    fn read(&mut self, line: Line<'_>, out: &mut Vec<Action>) {
        match line {
            Line::Whole(line) => {
                if let Some(message) = parse_object(line) {
                    self.protocol.message(message, &mut self.answer, out);
                }
            }
            Line::TooLong(head) if self.protocol.can_lose(head) => {}
            Line::TooLong(_) => {
                let message = format!("the CLI wrote a message of more than {MAX_LINE_BYTES} bytes");
                self.answer.fail(Failure::of_cli(message));
            }
        }
    }
}

impl<P: Protocol> Dialect for Session<P> {
    /// Everything goes through the protocol.
    fn files(&self, _request: &RunRequest) -> Result<Vec<WorkspaceFile>, PromptError> {
        Ok(Vec::new())
    }

    fn boot(&mut self, out: &mut Vec<Action>) {
        self.protocol.boot(out);
    }

    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError> {
        self.protocol.begin(request, out)?;
        self.answer.begin();
        Ok(())
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.push(bytes, |line| self.read(line, out));
        self.lines = lines;
    }

    fn stderr(&mut self, bytes: &[u8], _out: &mut Vec<Action>) {
        self.stderr.push(bytes);
    }

    fn cancel(&mut self, out: &mut Vec<Action>) {
        self.answer.cancel();
        self.protocol.cancel(&mut self.answer, out);
    }

    fn end(&mut self, exit: Option<&Exit>, observed: &Observed, out: &mut Vec<Action>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.finish(|line| self.read(line, out));
        self.protocol.end(&mut self.answer);
        self.answer.end(exit, observed, &self.stderr, out);
    }

    fn is_complete(&self) -> bool {
        self.answer.is_complete()
    }
}

/// Of a run that was cancelled before its CLI was asked anything.
pub(crate) fn not_begun() -> Failure {
    Failure::of_class(runner_api::ErrorClass::Cancelled, "cancelled before it began")
}
