//! One answer: what of it was told, and how it ended.

use runner_api::{ErrorClass, FinishReason, RunEvent, RunUsage};

use crate::failure::{Failure, refusal, shown};
use crate::hold::{Held, Hold, Suspects};
use crate::lines::MAX_LINE_BYTES;
use crate::plain::{Plain, plain};
use crate::stderr::Tail;
use crate::{Action, Exit, Limit, Observed, ToolsAs};

/// The longest text of one event. Longer ones are told in pieces, so that no event comes near the limit of a frame.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Longer names and ids of tools are cut, longer arguments left out.
const MAX_NAME_CHARS: usize = 256;

/// What is known of a CLI's manners.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) suspects: Suspects,
    /// It ends as if all were well where the vendor refused.
    pub(crate) hides_failures: bool,
}

/// One answer. Before [`Answer::begin`], after the CLI's word on how it ended, and after [`Answer::end`] nothing is
/// told.
#[derive(Debug)]
pub(crate) struct Answer {
    tools: ToolsAs,
    manners: Manners,
    under_way: bool,
    text: Channel,
    reasoning: Channel,
    hold: Hold,
    tool_called: bool,
    usage: Option<RunUsage>,
    cancelled: bool,
    outcome: Option<Outcome>,
}

/// How the CLI said that it ended.
#[derive(Debug)]
enum Outcome {
    /// None: for a reason that the CLI does not tell.
    Finished(Option<FinishReason>),
    Failed(Failure),
}

impl Answer {
    pub(crate) fn new(tools: ToolsAs, manners: Manners) -> Self {
        Self {
            tools,
            manners,
            under_way: false,
            text: Channel::default(),
            reasoning: Channel::default(),
            hold: Hold::new(manners.suspects),
            tool_called: false,
            usage: None,
            cancelled: false,
            outcome: None,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.under_way = true;
    }

    /// Whether the CLI has said how it ended.
    pub(crate) fn is_complete(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether it said that it ended well.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Finished(_)))
    }

    fn is_open(&self) -> bool {
        self.under_way && self.outcome.is_none()
    }

    fn tell(&self, event: RunEvent, out: &mut Vec<Action>) {
        if self.is_open() {
            out.push(Action::Event(event));
        }
    }

    pub(crate) fn text(&mut self, piece: &str, out: &mut Vec<Action>) {
        if self.is_open() {
            self.text.record(piece);
            let piece = self.hold.push(piece);
            self.text.say(&piece, |text| RunEvent::Text { text }, out);
        }
    }

    /// The whole of what came in pieces since the last whole, or did not.
    pub(crate) fn whole_text(&mut self, message: &str, out: &mut Vec<Action>) {
        match self.text.missing(message) {
            Some(rest) => self.text(rest, out),
            None => self.notice("the CLI's final text is not what it streamed", out),
        }
        self.text.mark();
    }

    /// The CLI has asked again for the present message, after a part of it was told.
    pub(crate) fn begin_anew(&mut self) {
        self.text.anew = 0;
    }

    /// A piece of the message that was begun anew. What was told cannot be taken back: if it is not the beginning of
    /// this one, the answer is lost.
    pub(crate) fn text_anew(&mut self, piece: &str, out: &mut Vec<Action>) {
        match self.text.missing_anew(piece) {
            Some(rest) => {
                self.text(rest, out);
                self.text.anew += piece.len();
            }
            None => self.fail(Failure::of_class(
                ErrorClass::Unavailable,
                "the vendor's answer was cut off, and began differently when the CLI asked again",
            )),
        }
    }

    /// Whether any of the present message was told.
    pub(crate) fn has_text(&self) -> bool {
        !self.text.told.is_empty()
    }

    /// Whether any text was told.
    pub(crate) fn has_said(&self) -> bool {
        self.text.said || !self.hold.is_empty()
    }

    /// What follows is another message: a blank line sets it apart.
    pub(crate) fn next_text(&mut self, out: &mut Vec<Action>) {
        let rest = self.hold.boundary();
        self.text.say(&rest, |text| RunEvent::Text { text }, out);
        self.text.next();
    }

    pub(crate) fn reasoning(&mut self, piece: &str, out: &mut Vec<Action>) {
        if self.is_open() {
            self.reasoning.record(piece);
            self.reasoning.say(piece, |text| RunEvent::Reasoning { text }, out);
        }
    }

    pub(crate) fn whole_reasoning(&mut self, message: &str, out: &mut Vec<Action>) {
        if let Some(rest) = self.reasoning.missing(message) {
            self.reasoning(rest, out);
        }
        self.reasoning.mark();
    }

    pub(crate) fn next_reasoning(&mut self) {
        self.reasoning.next();
    }

    /// A tool that the CLI runs itself. `arguments` is a JSON text or empty.
    pub(crate) fn tool(&mut self, id: &str, name: &str, arguments: String, out: &mut Vec<Action>) {
        self.tool_called = true;
        self.next_text(out);
        let short = |text: &str| plain(text).chars().take(MAX_NAME_CHARS).collect::<String>();
        let name = short(name);
        let arguments = if arguments.len() > MAX_TEXT_BYTES { String::new() } else { arguments };
        let line = format!("{name} {arguments}");
        self.tell(RunEvent::ToolCall { id: short(id), name: name.clone(), arguments }, out);
        match self.tools {
            // Of a tool's arguments a log must say nothing: they are content.
            ToolsAs::Notice => self.notice(&format!("the CLI runs a tool: {name}"), out),
            ToolsAs::Reasoning => {
                self.next_reasoning();
                self.reasoning(line.trim_end(), out);
                self.next_reasoning();
            }
        }
    }

    /// That tool failed, or was not allowed.
    pub(crate) fn tool_failed(&mut self, out: &mut Vec<Action>) {
        let message = "a tool of the CLI failed";
        match self.tools {
            ToolsAs::Notice => self.notice(message, out),
            ToolsAs::Reasoning => {
                self.next_reasoning();
                self.reasoning(message, out);
                self.next_reasoning();
            }
        }
    }

    pub(crate) fn notice(&self, message: &str, out: &mut Vec<Action>) {
        self.tell(RunEvent::Notice { message: shown(message) }, out);
    }

    /// Replaces what was known before.
    pub(crate) fn set_usage(&mut self, usage: RunUsage) {
        if self.is_open() {
            self.usage = Some(usage);
        }
    }

    pub(crate) fn usage(&self) -> RunUsage {
        self.usage.unwrap_or_default()
    }

    /// The first word on how it ended counts.
    pub(crate) fn finish(&mut self, reason: Option<FinishReason>) {
        self.outcome.get_or_insert(Outcome::Finished(reason));
    }

    pub(crate) fn fail(&mut self, failure: Failure) {
        self.outcome.get_or_insert(Outcome::Failed(failure));
    }

    pub(crate) fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// Tells what was kept back, the usage and the last event, once. `stderr` explains a failure.
    ///
    /// A CLI that said how it ended is believed whatever its exit code is: its owner may end it after that word.
    pub(crate) fn end(
        &mut self,
        exit: Option<&Exit>,
        observed: &Observed,
        stderr: &Tail,
        out: &mut Vec<Action>,
    ) {
        let outcome = match self.outcome.take() {
            Some(Outcome::Finished(reason)) => Ok(reason),
            Some(Outcome::Failed(failure)) => Err(failure),
            None => Err(gone(exit, observed, &stderr.text())),
        };
        let outcome = self.settle(outcome, observed, out);
        if let Some(usage) = merged(self.usage, observed.usage) {
            out.push(Action::Event(RunEvent::Usage(usage)));
        }
        let last = match outcome {
            Ok(reason) => RunEvent::Finished { reason },
            Err(_) if self.cancelled => RunEvent::error(ErrorClass::Cancelled, "cancelled"),
            Err(failure) => {
                let stderr = stderr.text();
                let known = stderr.strip_prefix("Error: ") == Some(failure.message());
                if !stderr.is_empty() && !known {
                    let message = format!("stderr: {stderr}");
                    out.push(Action::Event(RunEvent::Notice { message }));
                }
                failure.into_event(observed)
            }
        };
        out.push(Action::Event(last));
        self.under_way = false;
    }

    /// The CLI's word, corrected by what was seen of the vendor.
    fn settle(
        &mut self,
        outcome: Result<Option<FinishReason>, Failure>,
        observed: &Observed,
        out: &mut Vec<Action>,
    ) -> Result<FinishReason, Failure> {
        let held = self.hold.take();
        let outcome = outcome.and_then(|reason| self.settle_held(held, reason, observed, out));
        let answered = refusal(observed).is_none() && !observed.broken && observed.message.is_none();
        match (outcome, observed.finish) {
            // Some CLIs call it an error that the model was cut short.
            (Err(failure), Some(reason @ (FinishReason::Length | FinishReason::ContentFilter)))
                if answered && failure.is_vendors() =>
            {
                Ok(reason)
            }
            (Err(failure), _) => Err(failure),
            // Some call an answer complete that never was one, or that was cut off.
            (Ok(_), finish) if !answered && self.is_doubtful(observed) && finish.is_none() => {
                Err(Failure::of_vendor("the vendor refused, or its answer was cut off", None))
            }
            (Ok(Some(reason)), _) if reason != FinishReason::Stop => Ok(reason),
            (Ok(reason), finish) => Ok(finish.or(reason).unwrap_or(FinishReason::Stop)),
        }
    }

    /// Whether a refusal or a break of the last call means that there is no answer. A CLI that is honest may have made
    /// another call beside the answer's.
    fn is_doubtful(&self, observed: &Observed) -> bool {
        let silent = !self.text.said && !self.reasoning.said && !self.tool_called;
        observed.broken || silent || self.manners.hides_failures
    }

    fn settle_held(
        &mut self,
        held: Held,
        reason: Option<FinishReason>,
        observed: &Observed,
        out: &mut Vec<Action>,
    ) -> Result<Option<FinishReason>, Failure> {
        let interrupted = observed.interrupted;
        let began_again = || {
            let message = "the vendor's answer was cut off; the CLI asked again and printed both answers";
            Err(Failure::of_class(ErrorClass::Unavailable, message))
        };
        let rest = match held {
            Held::Nothing => {
                let repeats = self.manners.suspects.repetition;
                return if repeats && interrupted > 0 && self.text.said { began_again() } else { Ok(reason) };
            }
            // Asked to go on after the limit of tokens, the model said the same again.
            Held::Repetition { .. }
                if observed.calls > 1 && observed.finish == Some(FinishReason::Length) =>
            {
                return Ok(Some(FinishReason::Length));
            }
            Held::Repetition { text, .. } if interrupted == 0 => text,
            Held::Repetition { said, text } => match text.strip_prefix(&said) {
                Some(rest) if interrupted == 1 => rest.to_owned(),
                _ => return began_again(),
            },
            Held::Error(text) => {
                let seen_whole = observed.finish.is_some() && refusal(observed).is_none() && !observed.broken;
                match self.manners.suspects.error.and_then(|begin| text.strip_prefix(begin)) {
                    // With text before it, and the vendor's answer seen to its end, the model itself said so.
                    Some(error) if !(seen_whole && self.text.said) => {
                        if let Some(error) = error.trim_end().strip_suffix(']') {
                            let status = leading_status(error);
                            return Err(Failure::of_vendor(error, status));
                        }
                        text
                    }
                    _ => text,
                }
            }
        };
        self.text.say(&rest, |text| RunEvent::Text { text }, out);
        Ok(reason)
    }
}

/// The vendor's own count, where it was seen, comes before the CLI's.
fn merged(told: Option<RunUsage>, seen: Option<RunUsage>) -> Option<RunUsage> {
    let Some(seen) = seen else { return told };
    let told = told.unwrap_or_default();
    Some(RunUsage {
        input_tokens: seen.input_tokens.or(told.input_tokens),
        output_tokens: seen.output_tokens.or(told.output_tokens),
        cached_input_tokens: seen.cached_input_tokens.or(told.cached_input_tokens),
        reasoning_tokens: seen.reasoning_tokens.or(told.reasoning_tokens),
    })
}

/// The process ended before the answer did.
fn gone(exit: Option<&Exit>, observed: &Observed, stderr: &str) -> Failure {
    let (class, message) = match exit.and_then(|exit| exit.limit) {
        Some(Limit::WallTime) => (ErrorClass::Timeout, "the run took longer than its CLI may"),
        Some(Limit::IdleTime) => (ErrorClass::Timeout, "the CLI said nothing for longer than it may"),
        Some(Limit::Memory) => return Failure::of_limit("the CLI used more memory than it may"),
        Some(Limit::Output) => return Failure::of_limit("the CLI wrote more than it may"),
        None => {
            // So do most CLIs tell why they give up.
            if let Some(error) = stderr.lines().rev().find_map(|line| line.strip_prefix("Error: ")) {
                return Failure::of_cli(error);
            }
            let class = if observed.broken { ErrorClass::Unavailable } else { ErrorClass::Internal };
            let code = exit.and_then(|exit| exit.code);
            let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            return Failure::of_class(
                class,
                format!("the CLI ended with exit code {code} before its answer did"),
            );
        }
    };
    Failure::of_class(class, message)
}

/// The HTTP status with which a message begins.
pub(crate) fn leading_status(text: &str) -> Option<u16> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok().filter(|status| (400..600).contains(status))
}

/// Text that comes in pieces and, from some CLIs, once more as a whole.
#[derive(Debug, Default)]
struct Channel {
    plain: Plain,
    /// What came of the present message, as the CLI wrote it.
    told: String,
    /// How much of `told` came as a whole.
    whole: usize,
    /// How much of `told` has come anew.
    anew: usize,
    /// There was more of it than a line can hold.
    overflow: bool,
    /// Whether any text was told, of this message or an earlier one.
    said: bool,
    /// Whether a blank line is due.
    apart: bool,
}

impl Channel {
    fn record(&mut self, piece: &str) {
        self.overflow |= self.told.len() + piece.len() > MAX_LINE_BYTES;
        if !self.overflow {
            self.told.push_str(piece);
        }
    }

    /// What of a whole has not come; None if what came since the last whole is not its beginning.
    fn missing<'a>(&self, whole: &'a str) -> Option<&'a str> {
        let pieces = &self.told[self.whole..];
        if self.overflow || pieces.starts_with(whole) { Some("") } else { whole.strip_prefix(pieces) }
    }

    /// As `missing`, of the next piece of a message that comes anew.
    fn missing_anew<'a>(&self, piece: &'a str) -> Option<&'a str> {
        let told = self.told.get(self.anew..).unwrap_or_default();
        if self.overflow || told.starts_with(piece) { Some("") } else { piece.strip_prefix(told) }
    }

    fn mark(&mut self) {
        self.whole = self.told.len();
    }

    fn say(&mut self, piece: &str, event: impl Fn(String) -> RunEvent, out: &mut Vec<Action>) {
        let text = self.plain.push(piece);
        if text.is_empty() {
            return;
        }
        let text = if std::mem::take(&mut self.apart) { format!("\n\n{text}") } else { text };
        self.said = true;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = (0..=MAX_TEXT_BYTES.min(rest.len())).rev().find(|&at| rest.is_char_boundary(at));
            let (now, later) = rest.split_at(end.unwrap_or(rest.len()));
            out.push(Action::Event(event(now.to_owned())));
            rest = later;
        }
    }

    fn next(&mut self) {
        *self = Self { said: self.said, apart: self.said, ..Self::default() };
    }
}
