//! Whatever a CLI prints.

use cli_dialect::{Action, Exit, Kind, Limit, Observed};
use proptest::prelude::*;
use runner_api::{FinishReason, RunEvent, RunUsage};

use crate::recording::{KINDS, dialect, events, is_plain, merged, recordings, request};

fn exits() -> impl Strategy<Value = Option<Exit>> {
    let limits = prop_oneof![
        Just(None),
        Just(Some(Limit::Memory)),
        Just(Some(Limit::Output)),
        Just(Some(Limit::WallTime)),
        Just(Some(Limit::IdleTime)),
    ];
    let codes = prop_oneof![Just(None), Just(Some(0)), (0..256).prop_map(Some)];
    prop_oneof![Just(None), (codes, limits).prop_map(|(code, limit)| Some(Exit { code, limit }))]
}

prop_compose! {
    fn observations()(
        calls in 0u32..4,
        interrupted in 0u32..4,
        status in prop_oneof![Just(None), Just(Some(200)), (100u16..600).prop_map(Some)],
        message in prop::option::of(".{0,20}"),
        retry_after_ms in any::<Option<u64>>(),
        tokens in any::<Option<u64>>(),
        finish in prop_oneof![
            Just(None), Just(Some(FinishReason::Stop)), Just(Some(FinishReason::Length)),
            Just(Some(FinishReason::ContentFilter)), Just(Some(FinishReason::Other)),
        ],
        broken in any::<bool>(),
    ) -> Observed {
        let usage = tokens.map(|tokens| RunUsage { input_tokens: Some(tokens), ..RunUsage::default() });
        Observed { calls, interrupted, status, message, retry_after_ms, usage, finish, broken }
    }
}

/// Lines that CLIs print, with pieces of them exchanged for others.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<Vec<u8>> = recordings()
        .filter(|recording| recording.stdout.len() < 10_000)
        .flat_map(|recording| {
            recording.stdout.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    let line = prop::sample::select(lines);
    let damage = (any::<prop::sample::Index>(), any::<u8>(), 0..4);
    prop::collection::vec((line, damage), 0..12).prop_map(|lines| {
        let damaged = lines.into_iter().map(|(mut line, (at, byte, how))| {
            if !line.is_empty() {
                let at = at.index(line.len());
                match how {
                    0 => line[at] = byte,
                    1 => line.truncate(at),
                    _ => {}
                }
            }
            line
        });
        damaged.collect::<Vec<_>>().join(&b'\n')
    })
}

fn run(
    kind: Kind,
    pieces: &[&[u8]],
    stderr: &[u8],
    exit: Option<&Exit>,
    observed: &Observed,
) -> Vec<RunEvent> {
    let mut dialect = dialect(kind);
    let mut out: Vec<Action> = Vec::new();
    dialect.boot(&mut out);
    dialect.begin(&request("say hi"), &mut out).unwrap();
    for piece in pieces {
        dialect.stdout(piece, &mut out);
    }
    dialect.stderr(stderr, &mut out);
    dialect.end(exit, observed, &mut out);
    events(&out)
}

fn check(kind: Kind, stdout: &[u8], at: usize, stderr: &[u8], exit: Option<&Exit>, observed: &Observed) {
    let whole = run(kind, &[stdout], stderr, exit, observed);
    assert_eq!(whole.iter().filter(|event| event.is_last()).count(), 1);
    assert!(whole.last().unwrap().is_last());
    let (left, right) = stdout.split_at(at.min(stdout.len()));
    let cut = run(kind, &[left, right], stderr, exit, observed);
    let bytes: Vec<&[u8]> = stdout.chunks(1).collect();
    let bytes = run(kind, &bytes, stderr, exit, observed);
    if is_plain(kind) {
        assert_eq!(merged(cut), merged(whole.clone()));
        assert_eq!(merged(bytes), merged(whole));
    } else {
        assert_eq!(cut, whole);
        assert_eq!(bytes, whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_of_any_kind_end_in_one_last_event(
        stdout in prop::collection::vec(any::<u8>(), 0..200),
        stderr in prop::collection::vec(any::<u8>(), 0..60),
        at in 0usize..200,
        exit in exits(),
        observed in observations(),
    ) {
        for kind in KINDS {
            check(kind, &stdout, at, &stderr, exit.as_ref(), &observed);
        }
    }

    #[test]
    fn plausible_lines_end_in_one_last_event(
        stdout in plausible(),
        at in any::<prop::sample::Index>(),
        exit in exits(),
        observed in observations(),
    ) {
        for kind in KINDS {
            check(kind, &stdout, at.index(stdout.len() + 1), b"", exit.as_ref(), &observed);
        }
    }
}
