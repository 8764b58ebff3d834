//! `text`: a program that reads stdin and prints its answer, nothing else. What it prints is the answer, byte for byte
//! but for terminal sequences; whether it succeeded, its exit code says.

use crate::answer::{Answer, Manners};
use crate::one_shot::{OneShot, Output, succeeded};
use crate::plain::Utf8;
use crate::prompt::{Images, Input, Limit};
use crate::stderr::Tail;
use crate::{Action, Dialect, Exit, Settings};

#[derive(Default)]
struct Text {
    utf8: Utf8,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input = Input { system: settings.system, images: Images::Refused, commands: &[], limit: Limit::None };
    // aider, for one, prints what the vendor refused and exits with 0.
    let manners = Manners { hides_failures: true, ..Manners::default() };
    OneShot::new(input, settings.tools, manners, Text::default())
}

impl Output for Text {
    fn stdout(&mut self, bytes: &[u8], answer: &mut Answer, out: &mut Vec<Action>) {
        answer.text(&self.utf8.push(bytes), out);
    }

    fn end(&mut self, exit: Option<&Exit>, _stderr: &Tail, answer: &mut Answer, out: &mut Vec<Action>) {
        answer.text(&self.utf8.finish(), out);
        if succeeded(exit) {
            answer.finish(None);
        }
    }
}
