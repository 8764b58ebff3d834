//! `claude -p --output-format stream-json --include-partial-messages`: see [`crate::stream_json`].

use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::one_shot::{JsonLines, Objects, OneShot};
use crate::prompt::{Images, Input, Limit};
use crate::stream_json::{Flavour, StreamJson};
use crate::{Action, Dialect, Exit, Settings};

struct Claude(StreamJson);

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input =
        Input { system: settings.system, images: Images::Refused, commands: &['/'], limit: Limit::None };
    let claude = Claude(StreamJson::new(Flavour::Claude));
    OneShot::new(input, settings.tools, Manners::default(), JsonLines::new(claude))
}

impl Objects for Claude {
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
