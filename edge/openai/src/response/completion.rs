//! A whole chat completion.

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

/// What a completion says, and where. Offsets are into the scanned bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionScan<'a> {
    /// Conformant: non-empty string `id`, `object` `"chat.completion"`, `created` an unsigned integer, string `model`,
    /// `usage` absent, null or with its three integers, and `choices`, at least one, with integer `index`, one of
    /// OpenAI's five finish reasons and a `message`: `role` `"assistant"`, `content` a string or null,
    /// `reasoning_content` a string or null, `tool_calls` complete function calls or null, `annotations` an array or
    /// null, all others null. Each of these at most once. Any other members are welcome at the top and in choices.
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
    /// The highest index of a choice.
    pub max_index: u64,
    /// The text and the names and arguments of tool calls, in the order of the completion, as written between the
    /// quotes: escapes are not resolved.
    pub text: SmallVec<[&'a str; 2]>,
    /// Offset of the `}` that ends the completion: a further member can be inserted here.
    pub close: usize,
}

// Members of a completion.
const ID: u8 = 1;
const OBJECT: u8 = 2;
const CREATED: u8 = 4;
const MODEL: u8 = 8;
const CHOICES: u8 = 16;
const USAGE: u8 = 32;
const ERROR: u8 = 64;

// Members of a choice.
const INDEX: u8 = 1;
const MESSAGE: u8 = 2;
const FINISH_REASON: u8 = 4;

// Members of a message.
const ROLE: u8 = 1;
const CONTENT: u8 = 2;
const REASONING_CONTENT: u8 = 4;
const TOOL_CALLS: u8 = 8;
const ANNOTATIONS: u8 = 16;

// Members of a tool call.
const CALL_ID: u8 = 1;
const TYPE: u8 = 2;
const FUNCTION: u8 = 4;

// Members of a function.
const NAME: u8 = 1;
const ARGUMENTS: u8 = 2;

impl<'a> CompletionScan<'a> {
    /// Fails if `data` is not a JSON object.
    pub fn scan(data: &'a [u8]) -> Result<Self, JsonError> {
        let mut cursor = Cursor::new(data)?;
        let mut scan = Self {
            shape: Shape::Conformant,
            model: None,
            usage: None,
            usage_null: None,
            error: false,
            choices_empty: false,
            finished: false,
            output: false,
            max_index: 0,
            text: SmallVec::new(),
            close: 0,
        };
        let mut seen = Seen::default();
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            // A name spelt with escapes matches none of these. `&` and not `&&`: values are read in any case.
            let is_regular = match cursor.raw(key) {
                "id" => seen.add(ID) & string(&mut cursor)?.is_some_and(|id| !id.raw.is_empty()),
                "object" => seen.add(OBJECT) & is_string(&mut cursor, "chat.completion")?,
                "created" => seen.add(CREATED) & unsigned(&mut cursor)?.is_some(),
                "model" => {
                    scan.model = string(&mut cursor)?.map(|model| model.span);
                    seen.add(MODEL) & scan.model.is_some()
                }
                "choices" => seen.add(CHOICES) & scan.choices(&mut cursor)?,
                "usage" => {
                    let mut usage = UsageMember::default();
                    let is_regular = usage.read(&mut cursor, CHAT_COUNTS)?;
                    (scan.usage, scan.usage_null) = (usage.value, usage.null);
                    seen.add(USAGE) & is_regular
                }
                "error" => {
                    scan.error |= !is_null(&mut cursor)?;
                    seen.add(ERROR) && !scan.error
                }
                _ => {
                    cursor.skip_value()?;
                    !key.has_escapes()
                }
            };
            scan.require(is_regular);
        }
        scan.require(seen.has_all(ID | OBJECT | CREATED | MODEL | CHOICES));
        scan.close = cursor.offset() - 1;
        cursor.end()?;
        Ok(scan)
    }

    /// Tells whether it is a non-empty array of objects.
    fn choices(&mut self, cursor: &mut Cursor<'a>) -> Result<bool, JsonError> {
        if cursor.peek()? != Kind::Array {
            cursor.skip_value()?;
            return Ok(false);
        }
        let mut is_regular = true;
        cursor.enter_array()?;
        self.choices_empty = true;
        while cursor.next_element()? {
            self.choices_empty = false;
            if cursor.peek()? == Kind::Object {
                self.choice(cursor)?;
            } else {
                cursor.skip_value()?;
                is_regular = false;
            }
        }
        Ok(is_regular && !self.choices_empty)
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
                "message" if cursor.peek()? == Kind::Object => {
                    self.message(cursor)?;
                    seen.add(MESSAGE)
                }
                "finish_reason" => {
                    let reason = finish_reason(cursor)?;
                    self.finished |= !matches!(reason, FinishReason::Null);
                    seen.add(FINISH_REASON) & matches!(reason, FinishReason::Known)
                }
                name => {
                    cursor.skip_value()?;
                    name != "message" && !key.has_escapes()
                }
            };
            self.require(is_regular);
        }
        self.require(seen.has_all(INDEX | MESSAGE | FINISH_REASON));
        Ok(())
    }

    fn message(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        let mut seen = Seen::default();
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            let is_null = cursor.peek()? == Kind::Null;
            let is_regular = match cursor.raw(key) {
                "role" => seen.add(ROLE) & is_string(cursor, "assistant")?,
                "content" => seen.add(CONTENT) & self.text(cursor)?,
                "reasoning_content" => seen.add(REASONING_CONTENT) & self.text(cursor)?,
                "tool_calls" if !is_null => seen.add(TOOL_CALLS) & self.tool_calls(cursor)?,
                "annotations" if !is_null => {
                    let is_array = cursor.peek()? == Kind::Array;
                    cursor.skip_value()?;
                    seen.add(ANNOTATIONS) & is_array
                }
                "reasoning" | "refusal" if !is_null => {
                    self.text(cursor)?;
                    false
                }
                name => {
                    cursor.skip_value()?;
                    self.output |= name == "function_call" && !is_null;
                    is_null && !key.has_escapes()
                }
            };
            self.require(is_regular);
        }
        self.require(seen.has_all(ROLE | CONTENT));
        Ok(())
    }

    /// Tells whether it is an array of complete function calls.
    fn tool_calls(&mut self, cursor: &mut Cursor<'a>) -> Result<bool, JsonError> {
        if cursor.peek()? != Kind::Array {
            cursor.skip_value()?;
            return Ok(false);
        }
        let mut is_regular = true;
        cursor.enter_array()?;
        while cursor.next_element()? {
            self.output = true;
            if cursor.peek()? != Kind::Object {
                cursor.skip_value()?;
                is_regular = false;
                continue;
            }
            let mut seen = Seen::default();
            cursor.enter_object()?;
            while let Some(key) = cursor.next_key()? {
                is_regular &= match cursor.raw(key) {
                    "id" => seen.add(CALL_ID) & string(cursor)?.is_some_and(|id| !id.raw.is_empty()),
                    "type" => seen.add(TYPE) & is_string(cursor, "function")?,
                    "function" if cursor.peek()? == Kind::Object => {
                        seen.add(FUNCTION) & self.function(cursor)?
                    }
                    name => {
                        cursor.skip_value()?;
                        name != "function" && !key.has_escapes()
                    }
                };
            }
            is_regular &= seen.has_all(CALL_ID | TYPE | FUNCTION);
        }
        Ok(is_regular)
    }

    /// Tells whether name and arguments are strings.
    fn function(&mut self, cursor: &mut Cursor<'a>) -> Result<bool, JsonError> {
        let mut seen = Seen::default();
        let mut is_regular = true;
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            let member = match cursor.raw(key) {
                "name" => NAME,
                "arguments" => ARGUMENTS,
                _ => {
                    cursor.skip_value()?;
                    is_regular &= !key.has_escapes();
                    continue;
                }
            };
            let text = string(cursor)?;
            is_regular &= seen.add(member) & text.is_some();
            self.text.extend(text.map(|text| text.raw));
        }
        Ok(is_regular && seen.has_all(NAME | ARGUMENTS))
    }

    /// Reads a value that is text; tells whether it is a string or null.
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
                self.output = true;
                cursor.skip_value()?;
                Ok(false)
            }
        }
    }

    fn require(&mut self, is_regular: bool) {
        if !is_regular {
            self.shape = Shape::Irregular;
        }
    }
}
