use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn check(text: &[u8]) -> Result<Range<usize>> {
    let mut cursor = Cursor::new(text)?;
    let span = cursor.skip_value()?;
    cursor.end()?;
    Ok(span)
}

/// As [`check`], but entering arrays and objects as a caller does that looks at everything.
fn walk(cursor: &mut Cursor<'_>) -> Result<serde_json::Value> {
    Ok(match cursor.peek()? {
        Kind::Null => cursor.null().map(|()| serde_json::Value::Null)?,
        Kind::Boolean => cursor.boolean()?.into(),
        Kind::Number => {
            let number = cursor.number()?;
            // Out of range for serde_json, not for the grammar.
            serde_json::from_str(&cursor.text[number]).unwrap_or_default()
        }
        Kind::String => {
            let string = cursor.string()?;
            cursor.unescape(string).into_owned().into()
        }
        Kind::Array => {
            cursor.enter_array()?;
            let mut array = Vec::new();
            while cursor.next_element()? {
                array.push(walk(cursor)?);
            }
            array.into()
        }
        Kind::Object => {
            cursor.enter_object()?;
            let mut object = serde_json::Map::new();
            while let Some(key) = cursor.next_key()? {
                let key = cursor.unescape(key).into_owned();
                object.insert(key, walk(cursor)?);
            }
            object.into()
        }
    })
}

#[test]
fn what_is_not_json_is_refused_where_it_goes_wrong() {
    for (text, message, offset) in [
        ("", "the text ends where a value is expected", 0),
        (" ", "the text ends where a value is expected", 1),
        ("NaN", "expected a JSON value", 0),
        ("Infinity", "expected a JSON value", 0),
        ("-Infinity", "expected a number", 1),
        ("nul", "expected `null`", 0),
        ("truth", "expected `true` or `false`", 0),
        ("01", "the text goes on after the JSON value", 1),
        ("+1", "expected a JSON value", 0),
        (".5", "expected a JSON value", 0),
        ("1.", "expected a digit", 2),
        ("1e+", "expected a digit", 3),
        ("{} {}", "the text goes on after the JSON value", 3),
        ("[1,]", "expected a JSON value", 3),
        ("[,1]", "expected a JSON value", 1),
        ("[1 2]", "expected `,` or `]`", 3),
        ("[1", "the text ends inside an array or object", 2),
        ("{\"a\":1,}", "expected a string as member name", 7),
        ("{a:1}", "expected a string as member name", 1),
        ("{\"a\" 1}", "expected `:`", 5),
        ("{\"a\":1 \"b\":2}", "expected `,` or `}`", 7),
        ("{\"a\":1]", "expected `,` or `}`", 6),
        ("\"abc", "the text ends inside a string", 4),
        ("\"a\nb\"", "control character in a string", 2),
        ("\"a\\x\"", "invalid escape in a string", 2),
        ("\"\\u12g4\"", "invalid escape in a string", 1),
        ("\"\\u123", "invalid escape in a string", 1),
        ("'a'", "expected a JSON value", 0),
        ("// c\n1", "expected a JSON value", 0),
        ("\u{feff}1", "expected a JSON value", 0),
    ] {
        assert_eq!(check(text.as_bytes()), Err(JsonError { message, offset }), "{text:?}");
    }
    assert_eq!(check(b"\"a\xff\""), Err(JsonError { message: "invalid UTF-8", offset: 2 }));
}

#[test]
fn errors_name_line_and_column() {
    let text = b"{\n  \"a\": 1\n  \"b\": 2\n}";
    let error = check(text).unwrap_err();
    assert_eq!(error.line_and_column(text), (3, 3));
    assert_eq!(error.to_string(), "expected `,` or `}` at byte 13");
}

#[test]
fn nesting_is_bounded_and_needs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let max = MAX_DEPTH as usize;
        assert!(check(nested(max).as_bytes()).is_ok());
        assert_eq!(check(nested(max + 1).as_bytes()).unwrap_err().message, "nested too deeply");
        assert_eq!(check(open.repeat(1_000_000).as_bytes()).unwrap_err().message, "nested too deeply");
    }
    // What was entered by hand counts as well.
    let text = "[".repeat(200);
    let mut cursor = Cursor::new(text.as_bytes()).unwrap();
    (0..100).for_each(|_| {
        cursor.enter_array().unwrap();
        cursor.next_element().unwrap();
    });
    assert_eq!(cursor.skip_value().unwrap_err(), JsonError { message: "nested too deeply", offset: 129 });
}

#[test]
fn strings_tell_their_span_and_escapes() {
    let mut cursor = Cursor::new(br#" [ "plain" , "\u00e4\ud83d\ude00\"\/\n" ]"#).unwrap();
    cursor.enter_array().unwrap();
    assert!(cursor.next_element().unwrap());
    let plain = cursor.string().unwrap();
    assert_eq!((plain.span(), plain.inner(), plain.has_escapes()), (3..10, 4..9, false));
    assert!(matches!(cursor.unescape(plain), Cow::Borrowed("plain")));
    assert!(cursor.next_element().unwrap());
    let escaped = cursor.string().unwrap();
    assert_eq!((cursor.unescape(escaped).as_ref(), escaped.has_escapes()), ("ä😀\"/\n", true));
    assert!(!cursor.next_element().unwrap());
    cursor.end().unwrap();
}

#[test]
fn lone_surrogates_become_replacement_characters() {
    for (text, meant) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
    ] {
        let mut cursor = Cursor::new(text.as_bytes()).unwrap();
        let string = cursor.string().unwrap();
        assert_eq!(cursor.unescape(string), meant, "{text}");
    }
}

#[test]
fn quoted_text_reads_back() {
    let text = "a\"\\\u{1}\n\u{7f}\u{2028}😀";
    let quoted = quote(text);
    let mut cursor = Cursor::new(quoted.as_bytes()).unwrap();
    let string = cursor.string().unwrap();
    assert_eq!(cursor.unescape(string), text);
}

/// Tokens of JSON in any order: some are valid texts, most are nearly so.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\u0041\"",
        "\"\\ud800\"",
        "\"",
        "\\",
        "1",
        "-0.5e3",
        "0",
        "-",
        ".",
        "e",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\"é\"",
        "\u{0}",
        "[1,2]",
        "{\"a\":{}}",
    ]);
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

/// Valid values, also deep ones.
pub(crate) fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        // Quarters are exact in serde_json, whose default parser may be off by one in the last place.
        any::<i32>().prop_map(|quarters| (f64::from(quarters) / 4.0).into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_same_texts_are_accepted_as_by_serde_json(text in nearly_json()) {
        let reference = serde_json::from_str::<IgnoredAny>(&text);
        prop_assert_eq!(check(text.as_bytes()).is_ok(), reference.is_ok());
        let walked = Cursor::new(text.as_bytes()).and_then(|mut cursor| walk(&mut cursor).and_then(|_| cursor.end()));
        prop_assert_eq!(walked.is_ok(), reference.is_ok());
    }

    #[test]
    fn any_bytes_are_judged_as_by_serde_json(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
        prop_assert_eq!(check(&bytes).is_ok(), serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
    }

    #[test]
    fn long_strings_are_judged_as_by_serde_json(
        lead in 0usize..200,
        pieces in prop::collection::vec(
            prop_oneof![
                20 => "[a-z ]{1,40}", 8 => r#"\\["\\/bfnrt]"#, 2 => r"\\u[0-9a-fA-F]{4}", 2 => "[äß世🦀]{1,9}",
                // What must be refused, or ends the string early.
                1 => r"\\[a-z0-9 ]", 1 => r"\\u[0-9a-g]{0,4}", 1 => "[\\x00-\\x1f]", 1 => "\"",
            ],
            0..30,
        ),
        closed in prop::bool::weighted(0.9),
    ) {
        let text = format!("\"{}{}{}", "x".repeat(lead), pieces.concat(), if closed { "\"" } else { "" });
        let reference = serde_json::from_str::<IgnoredAny>(&text);
        prop_assert_eq!(check(text.as_bytes()).is_ok(), reference.is_ok(), "{}", text);
        if let Ok(read) = serde_json::from_str::<String>(&text) {
            let mut cursor = Cursor::new(text.as_bytes()).unwrap();
            let string = cursor.string().unwrap();
            prop_assert_eq!((string.span(), string.has_escapes()), (0..text.trim_end().len(), text.contains('\\')));
            prop_assert_eq!(cursor.unescape(string), read);
        }
    }

    #[test]
    fn values_read_as_written(value in json_value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        prop_assert_eq!(check(text.as_bytes()), Ok(0..text.len()));
        prop_assert_eq!(walk(&mut Cursor::new(text.as_bytes()).unwrap()), Ok(value));
    }

    #[test]
    fn special_bytes_are_found_where_they_are(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1eu8..0x23, 0x5bu8..0x5e], 0..40)) {
        let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len());
        prop_assert_eq!(plain_string_bytes(&bytes), expected);
    }
}
