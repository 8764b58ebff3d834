//! What upstreams say and what clients get for it, byte by byte: the transcripts in `testdata/streams`.
//!
//! A transcript is a comment, the request's members, the upstream's answer and the client's:
//!
//! ```text
//! # why
//! {"stream":true}
//! === upstream text/event-stream
//! …
//! === client 200 text/event-stream
//! …
//! ```
//!
//! With `UPDATE_TRANSCRIPTS=1` the client's part is written anew; read the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Feed, Reply, TestGateway, setup};

struct Transcript {
    path: PathBuf,
    request: Value,
    content_type: String,
    upstream: Bytes,
    /// Everything from `=== upstream` to `=== client`.
    head: String,
    client: String,
}

fn transcripts() -> Vec<Transcript> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/streams");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Transcript {
    let text = fs::read_to_string(&path).unwrap();
    let (head, client) = text.split_once("=== client").unwrap();
    let (preface, upstream) = head.split_once("=== upstream ").unwrap();
    let (content_type, upstream) = upstream.split_once('\n').unwrap();
    let request = serde_json::from_str(preface.lines().nth(1).unwrap()).unwrap();
    Transcript {
        request,
        content_type: content_type.to_owned(),
        upstream: Bytes::from(upstream.to_owned()),
        head: head.to_owned(),
        client: client.trim_start_matches(' ').to_owned(),
        path,
    }
}

impl Transcript {
    fn name(&self) -> String {
        self.path.file_stem().unwrap().to_string_lossy().into_owned()
    }

    fn gateway() -> TestGateway {
        setup().provider("alpha", &json!({})).build()
    }

    /// The client's part if the upstream's bytes come cut in this way.
    fn replay(&self, test: &TestGateway, pieces: impl IntoIterator<Item = Bytes>) -> String {
        let feed = Feed::default();
        pieces.into_iter().for_each(|piece| feed.push(piece));
        feed.end();
        let reply = Reply::feed(&feed).with_header("content-type", &self.content_type);
        test.host.reply("alpha", reply);
        let answer = test.chat(&self.request);
        let mut line = format!("{} {}", answer.status.as_u16(), answer.header("content-type").unwrap());
        for name in ["retry-after", "x-usage-estimated"] {
            if let Some(value) = answer.header(name) {
                line = format!("{line} {name}:{value}");
            }
        }
        format!("{line}\n{}\n", with_plain_seed(&answer.text()))
    }
}

/// Ids that the gateway makes begin alike on the test's host, and count on behind that: `…00000001` → `…SEED`.
fn with_plain_seed(text: &str) -> String {
    const RANDOM: &str = "0707070707070707";
    let mut parts = text.split(RANDOM);
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain += "SEED";
        plain += &part[8..];
    }
    plain
}

#[test]
fn clients_get_what_the_transcripts_say() {
    let transcripts = transcripts();
    assert!(transcripts.len() > 50, "the transcripts were not found");
    let mut wrong = Vec::new();
    for transcript in transcripts {
        let client = transcript.replay(&Transcript::gateway(), [transcript.upstream.clone()]);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&transcript.path, format!("{}=== client {client}", transcript.head)).unwrap();
        } else if client != transcript.client {
            wrong.push(format!("{}\n--- now\n{client}--- before\n{}", transcript.name(), transcript.client));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// There are many ways to cut, so all processors help.
fn for_each_transcript(check: impl Fn(&Transcript) + Sync) {
    let left = Mutex::new(transcripts());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                let next = || left.lock().unwrap().pop();
                while let Some(transcript) = next() {
                    check(&transcript);
                }
            });
        }
    });
}

#[test]
fn every_cut_gives_the_same() {
    for_each_transcript(|transcript| {
        let (test, bytes) = (Transcript::gateway(), &transcript.upstream);
        for at in 1..bytes.len() {
            let client = transcript.replay(&test, [bytes.slice(..at), bytes.slice(at..)]);
            assert_eq!(client, transcript.client, "{}, cut at {at}", transcript.name());
        }
    });
}

#[test]
fn every_size_of_pieces_gives_the_same() {
    for_each_transcript(|transcript| {
        let (test, bytes) = (Transcript::gateway(), &transcript.upstream);
        for size in (1..bytes.len().min(40)).chain((40..bytes.len()).step_by(17)) {
            let pieces =
                (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..(at + size).min(bytes.len())));
            assert_eq!(
                transcript.replay(&test, pieces),
                transcript.client,
                "{}, in pieces of {size}",
                transcript.name()
            );
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn several_cuts_give_the_same(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let transcripts = transcripts();
        let transcript = which.get(&transcripts);
        let bytes = &transcript.upstream;
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| bytes.slice(cut[0]..cut[1]));
        prop_assert_eq!(transcript.replay(&Transcript::gateway(), pieces), transcript.client.as_str(), "{}", transcript.name());
    }
}

/// What every client relies on, whatever the upstream said.
#[test]
fn every_stream_that_begins_ends_as_clients_need_it() {
    for transcript in transcripts() {
        let name = transcript.name();
        let (head, body) = transcript.client.split_once('\n').unwrap();
        if !head.starts_with("200 text/event-stream") {
            let json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(
                json["error"]["message"].is_string() || json["choices"][0]["message"].is_object(),
                "{name}"
            );
            continue;
        }
        let body = body.strip_suffix('\n').unwrap();
        let mut events: Vec<&str> = body.split("\n\n").filter(|event| !event.starts_with(':')).collect();
        assert_eq!(events.pop(), Some(""), "{name} ends with a blank line");
        let last = events.pop().unwrap();
        assert!(last == "data: [DONE]" || last.starts_with("data: {\"error\":"), "{name}: {last}");
        let mut finished = false;
        let mut roles = [false; 2];
        for event in events {
            let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("{name}: {event}"));
            let chunk: Value = serde_json::from_str(&data.replace("\ndata: ", "\n")).unwrap();
            assert!(chunk["id"].as_str().is_some_and(|id| !id.is_empty()), "{name}: {chunk}");
            assert_eq!(
                (&chunk["object"], &chunk["model"]),
                (&json!("chat.completion.chunk"), &json!("m")),
                "{name}"
            );
            assert!(chunk["created"].is_u64(), "{name}: {chunk}");
            for choice in chunk["choices"].as_array().unwrap() {
                let begun = &mut roles[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()];
                let delta = choice["delta"].as_object().unwrap();
                let role = delta.get("role").and_then(Value::as_str);
                assert!(*begun || role == Some("assistant"), "{name}: {chunk}");
                *begun = true;
                finished |= choice["finish_reason"].is_string();
            }
            let usage = &chunk["usage"];
            assert!(usage.is_null() || usage["total_tokens"].is_u64(), "{name}: {usage}");
        }
        assert!(finished || last != "data: [DONE]", "{name} never finishes");
    }
}
