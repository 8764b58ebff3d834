//! The one-shot dialects against what real CLIs printed.
//!
//! `testdata/one-shot/CLI/CASE.FORMAT[.VARIANT]` has a process's stdout, stderr and how it ended; see its README. The
//! golden file `….events` beside them has the run events, once as the CLI alone tells, and once with what its vendor's
//! calls looked like from outside. `UPDATE_TRANSCRIPTS=1` writes the golden files anew.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod facts;
mod properties;
mod recording;

use std::fmt::Write as _;
use std::fs;

use cli_dialect::{Action, Kind, Observed};
use recording::{begin, dialect, events, is_plain, merged, recordings};
use runner_api::RunEvent;

/// Up to so many bytes of stdout are cut at every offset.
const EVERY_OFFSET_BYTES: usize = 1000;

fn lines(events: &[RunEvent]) -> String {
    let mut lines = String::new();
    for event in events {
        writeln!(lines, "{}", serde_json::to_string(event).unwrap()).unwrap();
    }
    lines
}

/// What a plain CLI's text comes in depends on how its output is cut; all else does not.
fn comparable(kind: Kind, events: Vec<RunEvent>) -> Vec<RunEvent> {
    if is_plain(kind) { merged(events) } else { events }
}

#[test]
fn recordings_become_the_events_of_their_golden_files() {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for recording in recordings() {
        for kind in recording.kinds() {
            let alone = comparable(kind, recording.run(kind, &Observed::default()));
            let watched = comparable(kind, recording.run(kind, &recording.observed()));
            let golden =
                format!("# the CLI alone\n{}# its vendor watched\n{}", lines(&alone), lines(&watched));
            let path = recording.golden(kind);
            if update {
                fs::write(&path, golden).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != golden {
                wrong.push(path.display().to_string());
            }
            seen += 1;
        }
    }
    assert!(seen > 150, "only {seen} recordings");
    assert!(wrong.is_empty(), "not as their golden files (UPDATE_TRANSCRIPTS=1 writes them): {wrong:#?}");
}

#[test]
fn events_do_not_depend_on_how_output_is_cut() {
    for recording in recordings() {
        for kind in recording.kinds() {
            let observed = recording.observed();
            let whole = comparable(kind, recording.run(kind, &observed));
            let bytes = recording.run_cut(kind, &observed, |stdout| stdout.chunks(1).collect());
            assert_eq!(comparable(kind, bytes), whole, "{} by single bytes", recording.name);
        }
    }
}

#[test]
fn short_recordings_may_be_cut_anywhere() {
    let mut seen = 0;
    for mut recording in recordings().filter(|recording| recording.stdout.len() <= EVERY_OFFSET_BYTES) {
        recording.stderr.clear();
        for kind in recording.kinds() {
            let whole = comparable(kind, recording.run(kind, &Observed::default()));
            for at in 0..=recording.stdout.len() {
                let cut = recording.run_cut(kind, &Observed::default(), |stdout| {
                    let (left, right) = stdout.split_at(at.min(stdout.len()));
                    vec![left, right]
                });
                assert_eq!(comparable(kind, cut), whole, "{} cut at {at}", recording.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} short recordings");
}

/// A run may be ended as soon as its dialect calls it complete; what the CLI does after that changes nothing.
#[test]
fn a_complete_answer_is_not_waited_for() {
    let mut seen = 0;
    for recording in recordings() {
        for kind in recording.kinds() {
            let observed = recording.observed();
            let mut dialect = dialect(kind);
            let mut out = begin(dialect.as_mut());
            for line in recording.stdout.split_inclusive(|&byte| byte == b'\n') {
                dialect.stdout(line, &mut out);
                if dialect.is_complete() {
                    dialect.end(None, &observed, &mut out);
                    seen += 1;
                    assert_eq!(events(&out), recording.run(kind, &observed), "{}", recording.name);
                    break;
                }
            }
        }
    }
    assert!(seen > 40, "only {seen} complete answers");
}

#[test]
fn a_prompt_is_written_once_and_stdin_closed() {
    for kind in recording::KINDS {
        let mut dialect = dialect(kind);
        let mut out = Vec::new();
        dialect.boot(&mut out);
        dialect.begin(&recording::request("say hi"), &mut out).unwrap();
        assert_eq!(out, [Action::Ready, Action::Write(b"say hi".to_vec()), Action::CloseStdin]);
    }
}
