use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn tokens(text: &str) -> u64 {
    let mut counter = TokenCounter::default();
    counter.add_text(text);
    counter.tokens()
}

/// Name and text of each sample. Public domain: Austen, Kafka, Tolstoy, Lu Xun and Natsume; the rest was written for it.
fn samples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/estimate");
    let mut samples: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    samples.sort();
    samples
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn percent_off(estimate: u64, real: usize) -> f64 {
    100.0 * (estimate as f64 / real as f64 - 1.0)
}

#[test]
fn samples_are_met_within_the_documented_bounds() {
    let tokenizer = tiktoken_rs::o200k_base().unwrap();
    let samples = samples();
    assert_eq!(samples.len(), 14);
    for (name, text) in samples {
        let real = tokenizer.encode_ordinary(&text).len();
        let off = percent_off(tokens(&text), real);
        println!("{name:20} {real:5} tokens, estimated {off:+.1} % off");
        let bound = if name.starts_with("code-") || name == "prose-english" { 10.0 } else { 15.0 };
        assert!(off.abs() <= bound, "{name} is {off:+.1} % off");
    }
}

#[test]
fn short_parts_of_samples_are_of_the_right_size() {
    let tokenizer = tiktoken_rs::o200k_base().unwrap();
    for (name, text) in samples() {
        let characters: Vec<char> = text.chars().collect();
        for (index, part) in characters.chunks_exact(200).enumerate() {
            let part: String = part.iter().collect();
            let off = percent_off(tokens(&part), tokenizer.encode_ordinary(&part).len());
            assert!(off.abs() <= 35.0, "part {index} of {name} is {off:+.1} % off: {part}");
        }
    }
}

#[test]
fn a_request_counts_its_texts_and_a_flat_amount_per_file() {
    let text = samples().into_iter().find(|(name, _)| name == "prose-english").unwrap().1;
    let body = |content: serde_json::Value| {
        let messages = serde_json::json!([{"role": "user", "content": content}]);
        prompt_tokens(serde_json::json!({"model": "m", "messages": messages}).to_string().as_bytes())
    };
    let around = body("".into());
    assert!((5..30).contains(&around), "{around}");
    let whole = body(text.as_str().into());
    assert!(whole.abs_diff(around + tokens(&text)) <= 3, "{whole}");

    let image = |uri: String| body(serde_json::json!([{"type": "image_url", "image_url": {"url": uri}}]));
    let plain = image(String::new());
    let data = image(format!("data:image/png;base64,{}", "A0z+".repeat(100_000)));
    assert!(data.abs_diff(plain + TOKENS_PER_DATA_URI) <= 1, "{data}");
    // One that is cut off counts as well.
    assert!(prompt_tokens(b"{\"url\":\"data:image/png;base64,AAAA") >= TOKENS_PER_DATA_URI);
    assert_eq!(prompt_tokens(b""), 0);
}

/// As JSON, with everything escaped that is not ASCII, as Python does.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'\n') => escaped.push_str("\\n"),
            Ok(byte @ (b'"' | b'\\')) => escaped.extend(['\\', byte.into()]),
            Ok(byte @ 0x20..0x7F) => escaped.push(byte.into()),
            _ => write!(escaped, "\\u{unit:04X}").unwrap(),
        }
    }
    escaped
}

proptest! {
    #[test]
    fn neither_cuts_nor_escapes_matter(
        text in "\\PC{0,80}|[a-zA-Zäß0-9 \\n\\t\"\\\\.,(){}жб你🦀—]{0,80}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = tokens(&text);
        for json in [serde_json::to_string(&text).unwrap(), format!("\"{}\"", escaped(&text))] {
            let inside = &json.as_bytes()[1..json.len() - 1];
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(inside.len() + 1)).collect();
            cuts.extend([0, inside.len()]);
            cuts.sort_unstable();
            let mut counter = TokenCounter::default();
            for cut in cuts.windows(2) {
                counter.add_json(&inside[cut[0]..cut[1]]);
            }
            prop_assert_eq!(counter.tokens(), whole, "{}", json);
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // At most three tokens for a byte, whatever it is.
        prop_assert!(prompt_tokens(&bytes) <= 3 * bytes.len() as u64 + TOKENS_PER_DATA_URI);
    }
}
