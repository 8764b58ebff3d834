use super::*;

fn code(text: &str) -> Result<Value, &'static str> {
    parse(text.as_bytes()).map_err(|error| error.code())
}

#[test]
fn json_is_read_as_serde_json_reads_it() {
    for text in [
        "null",
        "true",
        r#"{"a":[1,-2,3.5,18446744073709551615,"x\u0000é",{"b":{}},[]],"__proto__":{"c":null}}"#,
        "  [ ]  ",
    ] {
        assert_eq!(parse(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()), "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let deep = "[".repeat(100_000);
    for text in
        ["", "{", "nul", r#"{"a":1} x"#, r#"{"a":1,}"#, "[1e999]", "\u{feff}{}", r#""\ud800""#, deep.as_str()]
    {
        assert_eq!(code(text), Err("invalid_json"), "{}", &text[..text.len().min(20)]);
    }
    assert_eq!(parse(b"\"\xff\"").unwrap_err().code(), "invalid_json");
}

#[test]
fn a_member_is_there_once() {
    for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"b":{"a":null,"a":null}}]"#] {
        assert_eq!(code(text), Err("invalid_json"), "{text}");
    }
    assert_eq!(code(r#"{"a":{"a":1},"A":2}"#), Ok(serde_json::json!({"a": {"a": 1}, "A": 2})));
}
