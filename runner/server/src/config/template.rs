//! Texts with `{name}` in them.

use super::model::{Piece, Template};

impl Template {
    /// `{{` and `}}` stand for themselves. The error says what is wrong with the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            rest = &from[1..];
            let brace = &from[..1];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = (brace == "{").then(|| rest.split_once('}')).flatten().ok_or_else(|| {
                format!("has a '{brace}' without its partner; '{brace}{brace}' stands for the character")
            })?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece(name)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// The names of the parameters in it.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Parameter(name) => Some(name.as_str()),
            Piece::Literal(_) | Piece::EgressToken | Piece::EgressUrl(_) => None,
        })
    }
}

fn piece(name: &str) -> Result<Piece, String> {
    match name.split_once('.') {
        Some(("egress", "token")) => Ok(Piece::EgressToken),
        Some(("egress", upstream)) => Ok(Piece::EgressUrl(upstream.to_owned())),
        None if is_parameter_name(name) => Ok(Piece::Parameter(name.to_owned())),
        _ => Err(format!(
            "has {{{}}}, which is neither a parameter's name nor {{egress.token}} nor {{egress.NAME}}; '{{{{' stands for a brace",
            name.escape_debug()
        )),
    }
}

/// What a parameter may be called: `a-z`, `0-9` and `_`, a letter first, at most 32 of them.
pub(super) fn is_parameter_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn braces_stand_for_names_and_doubled_for_themselves() {
        let parsed = |text| Template::parse(text).unwrap().0;
        assert_eq!(parsed("--verbose"), [literal("--verbose")]);
        assert_eq!(
            parsed("--model={model}!"),
            [literal("--model="), Piece::Parameter("model".to_owned()), literal("!")]
        );
        assert_eq!(
            parsed("{egress.token}{egress.openai}"),
            [Piece::EgressToken, Piece::EgressUrl("openai".to_owned())]
        );
        assert_eq!(
            parsed(r#"x={{a="{a}"}}"#),
            [literal(r#"x={a=""#), Piece::Parameter("a".to_owned()), literal(r#""}"#)]
        );
        assert_eq!(parsed(""), []);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in
            ["{", "}", "{model", "model}", "a{}b", "{Model}", "{a b}", "{other.x}", "{{a}", "{a.b.c}", "{1}"]
        {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_with_its_braces_doubled_is_a_literal(text in "[{}a-c.\\PC]{1,40}") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(Template::parse(&doubled).unwrap().0, [literal(&text)]);
        }

        #[test]
        fn no_text_is_too_odd(text in "[{}a-c.\\PC]{0,40}") {
            if let Ok(Template(pieces)) = Template::parse(&text) {
                let neighbours = |two: &[Piece]| matches!(two, [Piece::Literal(_), Piece::Literal(_)]);
                prop_assert!(!pieces.windows(2).any(neighbours), "{:?}", pieces);
            }
        }
    }
}
