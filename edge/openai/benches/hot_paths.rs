//! Times what runs for every frame and every request body: `cargo bench -p openai-wire`.
//!
//! Prints the best of several rounds, which is the figure that other load on the machine disturbs least.

#![expect(clippy::print_stdout, reason = "the report of a benchmark is its output")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use openai_wire::json::{Cursor, quote};
use openai_wire::sse::{SseDecoder, encode_data};
use openai_wire::{
    request::{ChatScan, Rewrite},
    response::{ChunkScan, ChunkScanner},
};

/// As OpenAI sends it.
const FRAME: &str = r#"{"id":"chatcmpl-BzFkS5b1wqy7hG8Rk2mX9","object":"chat.completion.chunk","created":1753781234,"model":"gpt-4.1-mini-2025-04-14","service_tier":"default","system_fingerprint":"fp_658b958c37","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x9Zk"}"#;

/// The members that all upstreams send.
const SHORT_FRAME: &str = r#"{"id":"chatcmpl-BzFkS5b1wqy7hG8Rk2mX9","object":"chat.completion.chunk","created":1753781234,"model":"gpt-4.1-mini-2025-04-14","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}]}"#;

/// Nanoseconds per call of `work`, which does `per_call` things; best of 20 rounds of at least 10 ms.
fn time(name: &str, per_call: u32, mut work: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let (start, mut calls) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(10) {
            (0..16).for_each(|_| work());
            calls += 16;
        }
        best = best.min(start.elapsed() / calls);
    }
    println!("{name:<44} {:>10.1} ns", best.as_secs_f64() * 1e9 / f64::from(per_call));
}

fn main() {
    sse();
    json();
    request();
    response();
}

fn request() {
    let message =
        quote(&"    if (left.kind === \"arrow\") {\n        return left.node\n    }\n".repeat(3000));
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{message}}}],"stream":true}}"#);
    let kilobytes = u32::try_from(body.len() / 1000).expect("short");
    let body = Bytes::from(body);
    let rewrite = Rewrite { model: Some("upstream"), include_usage: true, ..Rewrite::default() };
    time("request: scan and rewrite code, per KB", kilobytes, || {
        black_box(ChatScan::scan(black_box(&body)).expect("valid").rewrite(&rewrite));
    });
    let body = Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi!"}],"stream":true,"temperature":0.7}"#,
    );
    time("request: scan and rewrite a short body", 1, || {
        black_box(ChatScan::scan(black_box(&body)).expect("valid").rewrite(&rewrite));
    });
}

fn response() {
    for (name, frame) in [("plain", SHORT_FRAME), ("with extras", FRAME)] {
        time(&format!("response: scan a chunk, {name}"), 1, || {
            black_box(ChunkScan::scan(black_box(frame.as_bytes())).expect("JSON"));
        });
        let mut scanner = ChunkScanner::new();
        time(&format!("response: scan the same start again, {name}"), 1, || {
            black_box(scanner.scan(black_box(frame.as_bytes())).expect("JSON"));
        });
    }
    let other = SHORT_FRAME.replace("Rk2mX9", "Rk2mX8");
    let mut scanner = ChunkScanner::new();
    time("response: scan chunks whose starts differ", 2, || {
        black_box(scanner.scan(black_box(SHORT_FRAME.as_bytes())).expect("JSON"));
        black_box(scanner.scan(black_box(other.as_bytes())).expect("JSON"));
    });
}

fn json() {
    let skip = |text: &[u8]| {
        let mut cursor = Cursor::new(text)?;
        cursor.skip_value()?;
        cursor.end()
    };
    let plain = format!("\"{}\"", "The quick brown fox jumps over the lazy dog. ".repeat(25_000));
    let code = quote(&"    if (left.kind === \"arrow\") {\n        return left.node\n    }\n".repeat(16_000));
    let kilobytes = |text: &str| u32::try_from(text.len() / 1000).expect("short");
    time("json: skip a long string, per KB", kilobytes(&plain), || {
        skip(black_box(plain.as_bytes())).expect("JSON");
    });
    time("json: skip a long string of code, per KB", kilobytes(&code), || {
        skip(black_box(code.as_bytes())).expect("JSON");
    });
    time("json: skip a chunk", 1, || skip(black_box(FRAME.as_bytes())).expect("JSON"));
    time("json: the same with serde_json", 1, || {
        black_box(serde_json::from_str::<serde::de::IgnoredAny>(black_box(FRAME))).expect("JSON");
    });
}

fn sse() {
    let mut burst = BytesMut::new();
    (0..100).for_each(|_| encode_data(&mut burst, FRAME.as_bytes()));
    let burst = burst.freeze();
    time("sse: decode, per frame of a burst of 100", 100, || {
        let mut decoder = SseDecoder::new(1 << 20);
        decoder.push(burst.clone());
        while let Some(event) = decoder.next_event() {
            black_box(event).expect("within the limit");
        }
    });
    let frame = burst.slice(..burst.len() / 100);
    let mut decoder = SseDecoder::new(1 << 20);
    time("sse: decode, one frame per push", 1, || {
        decoder.push(frame.clone());
        while let Some(event) = decoder.next_event() {
            black_box(event).expect("within the limit");
        }
    });
    let halves = [frame.slice(..100), frame.slice(100..)];
    time("sse: decode, a frame in two pushes", 1, || {
        for half in &halves {
            decoder.push(half.clone());
            while let Some(event) = decoder.next_event() {
                black_box(event).expect("within the limit");
            }
        }
    });
    let mut out = BytesMut::with_capacity(1024);
    time("sse: encode", 1, || {
        out.clear();
        encode_data(&mut out, black_box(FRAME.as_bytes()));
    });
    let bytewise: Vec<Bytes> = frame.chunks(1).map(Bytes::copy_from_slice).collect();
    time("sse: decode, per byte pushed alone", u32::try_from(frame.len()).expect("short"), || {
        for byte in &bytewise {
            decoder.push(byte.clone());
            while let Some(event) = decoder.next_event() {
                black_box(event).expect("within the limit");
            }
        }
    });
}
