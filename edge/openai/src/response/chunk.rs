//! One chunk of a streamed chat completion.

use std::ops::Range;

use smallvec::SmallVec;

use super::{
    Shape,
    scan::{
        CHAT_COUNTS, FinishReason, Seen, UsageMember, finish_reason, is_null, is_string, string, unsigned,
    },
};
use crate::{
    json::{Cursor, JsonError, Kind},
    usage::Usage,
};

/// What a chunk says, and where. Offsets are into the scanned bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkScan<'a> {
    /// Conformant: non-empty string `id`, `object` `"chat.completion.chunk"`, `created` an unsigned integer, string
    /// `model`, `usage` absent, null or with its three integers, and `choices` objects with integer `index`, a
    /// `finish_reason` that is null or one of OpenAI's five, and a `delta` of text only: `role` `"assistant"`, `content` and
    /// `reasoning_content` strings or null, all others null. Each of these at most once. Any other members are
    /// welcome at the top and in choices.
    pub shape: Shape,
    /// The value of `model`, quotes included, if a string.
    pub model: Option<Range<usize>>,
    /// The value of `usage`, if an object.
    pub usage: Option<(Range<usize>, Usage)>,
    /// The value of `usage`, if null.
    pub usage_null: Option<Range<usize>>,
    /// There is an `error` that is not null.
    pub error: bool,
    /// `choices` is an empty array.
    pub choices_empty: bool,
    /// A choice has a finish reason.
    pub finished: bool,
    /// A choice has text (content, reasoning, refusal) or a tool call.
    pub output: bool,
    /// A delta has the role `"assistant"`.
    pub has_role: bool,
    /// The highest index of a choice.
    pub max_index: u64,
    /// The text in the order of the chunk, as written between the quotes: escapes are not resolved.
    pub text: SmallVec<[&'a str; 2]>,
    /// Offset of the `}` that ends the chunk: a further member can be inserted here.
    pub close: usize,
}

/// Scans the chunks of one stream, which mostly begin alike: what comes before `choices` is read once and compared
/// from then on. Gives exactly what [`ChunkScan::scan`] gives, in half the time.
#[derive(Clone, Debug, Default)]
pub struct ChunkScanner {
    /// Start of the last chunk that was read in full, up to the value of `choices`; empty if none.
    head: Vec<u8>,
    /// What the head says. It contains nothing irregular, no `error` and no `usage`.
    seen: Seen,
    model: Option<Range<usize>>,
}

/// Longest start of a chunk that is kept for comparison.
const MAX_HEAD_BYTES: usize = 1024;

// Members of a chunk.
const ID: u8 = 1;
const OBJECT: u8 = 2;
const CREATED: u8 = 4;
const MODEL: u8 = 8;
const CHOICES: u8 = 16;
const USAGE: u8 = 32;
const ERROR: u8 = 64;
const REQUIRED: u8 = ID | OBJECT | CREATED | MODEL | CHOICES;

// Members of a choice.
const INDEX: u8 = 1;
const DELTA: u8 = 2;
const FINISH_REASON: u8 = 4;

// Members of a delta.
const ROLE: u8 = 1;
const CONTENT: u8 = 2;
const REASONING_CONTENT: u8 = 4;

impl ChunkScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`ChunkScan::scan`].
    pub fn scan<'a>(&mut self, data: &'a [u8]) -> Result<ChunkScan<'a>, JsonError> {
        let mut cursor = Cursor::new(data)?;
        let mut scan = ChunkScan::new();
        if !self.head.is_empty() && data.starts_with(&self.head) {
            cursor.resume_in_object(self.head.len());
            scan.model.clone_from(&self.model);
            scan.choices(&mut cursor)?;
            scan.read_from(&mut cursor, self.seen)?;
            return Ok(scan);
        }
        cursor.enter_object()?;
        let mut seen = Seen::default();
        if scan.read_to_choices(&mut cursor, &mut seen)? {
            self.head.clear();
            if scan.shape == Shape::Conformant
                && !seen.has_any(USAGE | ERROR)
                && cursor.offset() <= MAX_HEAD_BYTES
            {
                self.head.extend_from_slice(&data[..cursor.offset()]);
                self.seen = seen;
                self.model.clone_from(&scan.model);
            }
            scan.choices(&mut cursor)?;
            scan.read_from(&mut cursor, seen)?;
        } else {
            scan.finish(&mut cursor, seen)?;
        }
        Ok(scan)
    }
}

impl<'a> ChunkScan<'a> {
    /// Fails if `data` is not a JSON object.
    pub fn scan(data: &'a [u8]) -> Result<Self, JsonError> {
        let mut cursor = Cursor::new(data)?;
        let mut scan = Self::new();
        cursor.enter_object()?;
        scan.read_from(&mut cursor, Seen::default())?;
        Ok(scan)
    }

    fn new() -> Self {
        Self {
            shape: Shape::Conformant,
            model: None,
            usage: None,
            usage_null: None,
            error: false,
            choices_empty: false,
            finished: false,
            output: false,
            has_role: false,
            max_index: 0,
            text: SmallVec::new(),
            close: 0,
        }
    }

    /// Reads the members that are left, and to the end.
    fn read_from(&mut self, cursor: &mut Cursor<'a>, mut seen: Seen) -> Result<(), JsonError> {
        while self.read_to_choices(cursor, &mut seen)? {
            self.choices(cursor)?;
        }
        self.finish(cursor, seen)
    }

    /// Behind the object's `}`.
    fn finish(&mut self, cursor: &mut Cursor<'a>, seen: Seen) -> Result<(), JsonError> {
        self.require(seen.has_all(REQUIRED));
        self.close = cursor.offset() - 1;
        cursor.end()
    }

    /// Reads members up to the value of `choices` (`true`) or to the end of the object.
    #[inline]
    fn read_to_choices(&mut self, cursor: &mut Cursor<'a>, seen: &mut Seen) -> Result<bool, JsonError> {
        while let Some(key) = cursor.next_key()? {
            // A name spelt with escapes matches none of these. `&` and not `&&`: values are read in any case.
            let is_regular = match cursor.raw(key) {
                "id" => seen.add(ID) & string(cursor)?.is_some_and(|id| !id.raw.is_empty()),
                "object" => seen.add(OBJECT) & is_string(cursor, "chat.completion.chunk")?,
                "created" => seen.add(CREATED) & unsigned(cursor)?.is_some(),
                "model" => {
                    self.model = string(cursor)?.map(|model| model.span);
                    seen.add(MODEL) & self.model.is_some()
                }
                "choices" => {
                    let is_new = seen.add(CHOICES);
                    self.require(is_new);
                    return Ok(true);
                }
                "usage" => {
                    let mut usage = UsageMember::default();
                    let is_regular = usage.read(cursor, CHAT_COUNTS)?;
                    (self.usage, self.usage_null) = (usage.value, usage.null);
                    seen.add(USAGE) & is_regular
                }
                "error" => {
                    self.error |= !is_null(cursor)?;
                    seen.add(ERROR) && !self.error
                }
                _ => {
                    cursor.skip_value()?;
                    !key.has_escapes()
                }
            };
            self.require(is_regular);
        }
        Ok(false)
    }

    fn choices(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        if cursor.peek()? != Kind::Array {
            self.require(false);
            cursor.skip_value()?;
            return Ok(());
        }
        cursor.enter_array()?;
        self.choices_empty = true;
        while cursor.next_element()? {
            self.choices_empty = false;
            if cursor.peek()? == Kind::Object {
                self.choice(cursor)?;
            } else {
                self.require(false);
                cursor.skip_value()?;
            }
        }
        Ok(())
    }

    fn choice(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        let mut seen = Seen::default();
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            let is_regular = match cursor.raw(key) {
                "index" => {
                    let index = unsigned(cursor)?;
                    self.max_index = self.max_index.max(index.unwrap_or_default());
                    seen.add(INDEX) & index.is_some()
                }
                "delta" if cursor.peek()? == Kind::Object => {
                    self.delta(cursor)?;
                    seen.add(DELTA)
                }
                "finish_reason" => {
                    let reason = finish_reason(cursor)?;
                    self.finished |= !matches!(reason, FinishReason::Null);
                    seen.add(FINISH_REASON) & !matches!(reason, FinishReason::Unknown)
                }
                name => {
                    cursor.skip_value()?;
                    name != "delta" && !key.has_escapes()
                }
            };
            self.require(is_regular);
        }
        self.require(seen.has_all(INDEX | DELTA | FINISH_REASON));
        Ok(())
    }

    fn delta(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        let mut seen = Seen::default();
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            let is_regular = match cursor.raw(key) {
                "role" => {
                    let is_assistant = is_string(cursor, "assistant")?;
                    self.has_role |= is_assistant;
                    seen.add(ROLE) & is_assistant
                }
                "content" => seen.add(CONTENT) & self.text(cursor)?,
                "reasoning_content" => seen.add(REASONING_CONTENT) & self.text(cursor)?,
                _ if cursor.peek()? == Kind::Null => {
                    cursor.null()?;
                    !key.has_escapes()
                }
                "reasoning" | "refusal" => {
                    self.text(cursor)?;
                    false
                }
                name => {
                    let value = cursor.skip_value()?;
                    self.output |= match name {
                        "tool_calls" => !is_empty_container(&cursor.text()[value]),
                        "function_call" => true,
                        _ => false,
                    };
                    false
                }
            };
            self.require(is_regular);
        }
        Ok(())
    }

    /// Reads a value that is text; tells whether it is a string or null.
    #[inline]
    fn text(&mut self, cursor: &mut Cursor<'a>) -> Result<bool, JsonError> {
        match cursor.peek()? {
            Kind::String => {
                let text = cursor.string()?;
                if !text.is_empty() {
                    self.text.push(cursor.raw(text));
                    self.output = true;
                }
                Ok(true)
            }
            Kind::Null => cursor.null().map(|()| true),
            // Some upstreams send content parts.
            _ => {
                let value = cursor.skip_value()?;
                self.output |= !is_empty_container(&cursor.text()[value]);
                Ok(false)
            }
        }
    }

    #[inline]
    fn require(&mut self, is_regular: bool) {
        if !is_regular {
            self.shape = Shape::Irregular;
        }
    }
}

/// Whether a value is `[]` or `{}`.
fn is_empty_container(value: &str) -> bool {
    value.strip_prefix(['[', '{']).is_some_and(|rest| rest.trim_start().len() == 1)
}
