use proptest::prelude::*;

use super::*;

/// What came out of a stream: events, then perhaps an error.
type Decoded = (Vec<SseEvent>, Option<SseError>);

fn decode(pieces: &[&[u8]], max_frame_bytes: usize) -> Decoded {
    let mut decoder = SseDecoder::new(max_frame_bytes);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(event) = decoder.next_event() {
            match event {
                Ok(event) => events.push(event),
                Err(error) => {
                    assert_eq!(decoder.next_event(), None, "fused");
                    decoder.push(Bytes::from_static(b"data: x\n\n"));
                    assert_eq!(decoder.finish(), None, "fused");
                    return (events, Some(error));
                }
            }
        }
        assert!(decoder.input.is_empty(), "read input is let go");
    }
    while let Some(event) = decoder.finish() {
        match event {
            Ok(event) => events.push(event),
            Err(error) => return (events, Some(error)),
        }
    }
    assert_eq!(decoder.next_event(), None);
    (events, None)
}

fn whole(text: &str) -> Vec<SseEvent> {
    let (events, error) = decode(&[text.as_bytes()], 1 << 20);
    assert_eq!(error, None);
    events
}

fn datas(text: &str) -> Vec<String> {
    whole(text).into_iter().map(|event| String::from_utf8(event.data.to_vec()).unwrap()).collect()
}

#[test]
fn fields_follow_the_event_stream_rules() {
    let cases: &[(&str, &[&str])] = &[
        ("data: a\n\n", &["a"]),
        ("data:a\r\rdata:  b\r\n\r\n", &["a", " b"]),
        ("\u{feff}data: a\n\n", &["a"]),
        ("\u{feff}\ndata: a\n\n", &["a"]),
        ("\n\u{feff}data: a\n\n", &[]),
        ("data: a\ndata: b\n\n", &["a\nb"]),
        ("data\n\n", &[""]),
        ("data\ndata\n\n", &["\n"]),
        ("data:\n\n", &[""]),
        ("event: ping\n\n", &[]),
        (": comment\n\n:\n\n", &[]),
        ("id: 7\nretry: 10\ndata: a\nfoo: b\n data: no\n\n", &["a"]),
        ("data: a\r\n\n", &["a"]),
        ("data: a\n\rdata: b\n\n", &["a", "b"]),
        ("database: a\n\n", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(datas(text), *expected, "{text:?}");
    }
}

#[test]
fn an_event_cut_off_by_the_end_is_delivered_if_it_has_data() {
    assert_eq!(datas("data: a\n\ndata: b"), ["a", "b"]);
    assert_eq!(datas("data: a\n"), ["a"]);
    assert_eq!(datas("event: x\nda"), Vec::<String>::new());
}

#[test]
fn the_last_event_field_names_its_event_only() {
    let events = whole(
        "event: a\nevent: b\ndata: 1\n\ndata: 2\n\nevent: c\nevent\ndata: 3\n\nevent: d\n\ndata: 4\n\n",
    );
    let names: Vec<_> = events.iter().map(|event| event.event.as_deref()).collect();
    assert_eq!(names, [Some(&b"b"[..]), None, None, None]);
}

#[test]
fn whole_events_are_slices_of_the_input() {
    let input = Bytes::from_static(b": c\n\nevent: e\ndata: one\n\ndata: two\r\n\r\n");
    let mut decoder = SseDecoder::new(100);
    decoder.push(input.clone());
    let within = |part: &Bytes| input.as_ptr_range().contains(&part.as_ptr());
    let first = decoder.next_event().unwrap().unwrap();
    assert!(within(&first.data) && within(first.event.as_ref().unwrap()));
    assert!(within(&decoder.next_event().unwrap().unwrap().data));
}

#[test]
fn nothing_is_held_between_events_and_input_is_not_pinned() {
    let mut decoder = SseDecoder::new(100);
    decoder.push(Bytes::from_static(b"da"));
    assert_eq!(decoder.next_event(), None);
    decoder.push(Bytes::from_static(b"ta: a\n\n"));
    assert!(decoder.next_event().is_some());
    assert_eq!(decoder.next_event(), None);
    assert_eq!((decoder.line.capacity(), decoder.held(), decoder.input.len()), (0, 0, 0));

    let input = Bytes::from(b"event: e\ndata: a\n".to_vec());
    decoder.push(input.clone());
    assert_eq!(decoder.next_event(), None);
    assert!(input.is_unique(), "an unfinished event does not keep the read buffer alive");
}

#[test]
fn pushing_before_all_events_were_pulled_loses_nothing() {
    let mut decoder = SseDecoder::new(100);
    for piece in ["data: a\n\ndata: b\n\nda", "ta: c\n\n"] {
        decoder.push(Bytes::from(piece));
    }
    let mut got = Vec::new();
    while let Some(event) = decoder.finish() {
        got.push(event.unwrap().data);
    }
    assert_eq!(got, ["a", "b", "c"]);
}

#[test]
fn frames_beyond_the_limit_end_the_stream() {
    let limit = 16;
    for (text, delivered, fails) in [
        ("data: 0123456789\n\n", 1, false),
        ("data: 01234567890\n\n", 0, true),
        ("data: ok\n\n: a comment of more than 16", 1, true),
        ("data: 0123456\ndata: 0123456\n\n", 0, true),
        // Comments are not held, so any number of them may precede an event.
        (": 0123456789\n: 0123456789\n: 0123456789\ndata: a\n\n", 1, false),
    ] {
        let (events, error) = decode(&[text.as_bytes()], limit);
        assert_eq!((events.len(), error.is_some()), (delivered, fails), "{text:?}");
    }
}

#[test]
fn done_is_recognised() {
    assert!(whole("data: [DONE]\n\n")[0].is_done());
    assert!(whole("data:  [DONE] \r\n\r\n")[0].is_done());
    assert!(!whole("data: \"[DONE]\"\n\n")[0].is_done());
}

#[test]
fn encoders_write_the_documented_bytes() {
    let mut out = BytesMut::new();
    encode_data(&mut out, b"{}");
    encode_comment(&mut out, "keep-alive");
    encode_comment(&mut out, "two\nlines");
    encode_data(&mut out, b"a\r\nb\rc\n");
    encode_data_parts(&mut out, &[b"{", b"}"]);
    encode_data_parts(&mut out, &[b"a\r", b"\nb"]);
    encode_done(&mut out);
    let expected = [
        "data: {}\n\n: keep-alive\n\n: two\n: lines\n\ndata: a\ndata: b\ndata: c\ndata: \n\n",
        "data: {}\n\ndata: a\ndata: b\n\ndata: [DONE]\n\n",
    ];
    assert_eq!(str::from_utf8(&out).unwrap(), expected.concat());
}

/// Bytes in which everything that means something to the format is frequent.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"data:".to_vec()),
        Just(b"data: ".to_vec()),
        Just(b"event: e".to_vec()),
        Just(b": c".to_vec()),
        Just(BOM.to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in at.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[start..end]);
        start = end;
    }
    pieces
}

/// The rules once more, on the whole input at once and as plainly as they can be written.
fn reference(bytes: &[u8]) -> Vec<SseEvent> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    let mut lines = vec![Vec::new()];
    let mut previous = 0;
    for &byte in bytes {
        match byte {
            b'\n' if previous == b'\r' => {}
            b'\n' | b'\r' => lines.push(Vec::new()),
            _ => lines.last_mut().unwrap().push(byte),
        }
        previous = byte;
    }
    lines.push(Vec::new()); // The lenient end.
    let (mut events, mut data, mut name) = (Vec::new(), Vec::<Vec<u8>>::new(), Vec::new());
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                let event = Some(Bytes::from(name)).filter(|name| !name.is_empty());
                events.push(SseEvent { event, data: data.join(&b'\n').into() });
            }
            (data, name) = (Vec::new(), Vec::new());
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let field = &line[..colon.unwrap_or(line.len())];
        let value = colon.map_or(&[][..], |colon| &line[colon + 1..]);
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match field {
            b"data" => data.push(value),
            b"event" => name = value,
            _ => {}
        }
    }
    events
}

proptest! {
    #[test]
    fn events_are_those_of_the_rules(bytes in stream()) {
        prop_assert_eq!(decode(&[&bytes], 1 << 20), (reference(&bytes), None));
    }

    #[test]
    fn cuts_change_nothing(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        limit in 0usize..40,
    ) {
        for limit in [limit, 1 << 20] {
            let expected = decode(&[&bytes], limit);
            prop_assert_eq!(&decode(&cut(&bytes, &cuts), limit), &expected);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&decode(&single, limit), &expected);
        }
    }

    #[test]
    fn encoded_data_decodes_to_itself(texts in prop::collection::vec("[^\r]{0,20}", 0..8)) {
        let mut out = BytesMut::new();
        for text in &texts {
            encode_data(&mut out, text.as_bytes());
            encode_comment(&mut out, text);
        }
        let decoded: Vec<Bytes> = decode(&[&out], 1 << 20).0.into_iter().map(|event| event.data).collect();
        prop_assert_eq!(decoded, texts);
    }
}
