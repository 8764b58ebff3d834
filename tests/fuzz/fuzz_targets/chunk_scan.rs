//! Scans of responses accept JSON objects and nothing else, the scanner that remembers agrees with the plain scan, and
//! spans are where they say. The input is a stream's chunks, one per line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use openai_wire::response::{ChunkScan, ChunkScanner, CompletionScan, Shape::Conformant};
use serde::de::IgnoredAny;
use serde_json::Value;

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fuzz_target!(|input: &[u8]| {
    let mut scanner = ChunkScanner::new();
    for data in input.split(|byte| *byte == b'\n') {
        let plain = ChunkScan::scan(data);
        assert_eq!(scanner.scan(data), plain);
        assert_eq!(CompletionScan::scan(data).is_ok(), plain.is_ok());
        let Ok(scan) = plain else { continue };
        let text = std::str::from_utf8(data).expect("checked by the scan");
        assert!(is_json(text));
        assert_eq!(text.as_bytes()[scan.close], b'}');
        let spans = [&scan.model, &scan.usage_null, &scan.usage.as_ref().map(|(span, _)| span.clone())];
        assert!(spans.into_iter().flatten().all(|span| is_json(&text[span.clone()])));
        if scan.shape == Conformant {
            assert!(is_json(&format!("{},\"usage\":null}}", &text[..scan.close])));
            // Numbers out of range and lone surrogates are JSON, but no values to serde_json.
            if let Ok(value) = serde_json::from_str::<Value>(text) {
                assert_eq!(value["object"], "chat.completion.chunk");
                assert_eq!(
                    text[scan.model.expect("conformant")].parse::<Value>().ok().as_ref(),
                    value.get("model")
                );
                let choices = value["choices"].as_array().expect("conformant");
                assert_eq!(choices.is_empty(), scan.choices_empty);
                assert_eq!(choices.iter().any(|choice| !choice["finish_reason"].is_null()), scan.finished);
            }
        }
    }
});
