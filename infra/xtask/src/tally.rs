//! How many checks passed and failed, read from what the test runners print.

use std::{iter::Sum, ops::Add};

use crate::process::Finished;

/// Checks of a suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One check.
    pub(crate) fn one(passed: bool) -> Self {
        if passed { Self { passed: 1, failed: 0 } } else { Self { passed: 0, failed: 1 } }
    }

    /// From nextest's `Summary` line: `Summary [ 0.1s] 3/5 tests run: 2 passed (1 slow), 1 failed, 0 skipped`.
    /// Tests that did not come to run count as failed, and so does a run without a summary (it did not build).
    pub(crate) fn of_nextest(finished: &Finished) -> Self {
        let counts = finished.stderr.lines().rev().find_map(nextest_summary);
        counts.unwrap_or_default().or_failed(finished)
    }

    /// From the `test result:` lines of `cargo test`.
    pub(crate) fn of_cargo_test(finished: &Finished) -> Self {
        let counts: Self = finished.stdout.lines().filter_map(cargo_test_result).sum();
        counts.or_failed(finished)
    }

    /// From the last lines of `node --test` with the reporter `spec`: `ℹ pass 5`, `ℹ fail 1`, `ℹ cancelled 0`.
    pub(crate) fn of_node_test(finished: &Finished) -> Self {
        let count = |name| finished.stdout.lines().rev().find_map(|line| node_count(line, name));
        let counts = count("pass").zip(count("fail").zip(count("cancelled")));
        let counts = counts.map(|(passed, (failed, cancelled))| Self { passed, failed: failed + cancelled });
        counts.unwrap_or_else(|| Self::one(false)).or_failed(finished)
    }

    /// Never lets a failed run count as passed only because no failure was recognised in its output.
    fn or_failed(self, finished: &Finished) -> Self {
        if !finished.status.success() && self.failed == 0 { self + Self::one(false) } else { self }
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

fn nextest_summary(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once("] ")?;
    let (run, outcomes) = counts.split_once(" run: ")?;
    // `5 tests`, or `3/5 tests` when the run was cut short.
    let wanted: u64 = run.split_once(' ')?.0.rsplit('/').next()?.parse().ok()?;
    let passed = number_before(outcomes, " passed")?;
    Some(Tally { passed, failed: wanted.saturating_sub(passed) })
}

fn cargo_test_result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?;
    Some(Tally { passed: number_before(counts, " passed")?, failed: number_before(counts, " failed")? })
}

fn node_count(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix("ℹ ")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()
}

fn number_before(text: &str, word: &str) -> Option<u64> {
    text.split_once(word)?.0.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;

    fn finished(code: i32, stdout: &str, stderr: &str) -> Finished {
        let status = ExitStatus::from_raw(code << 8);
        Finished { status, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn nextest_summaries() {
        let cases = [
            ("     Summary [   0.005s] 3 tests run: 3 passed, 0 skipped", 0, (3, 0)),
            ("     Summary [   1.2s] 1 test run: 1 passed (1 slow), 4 skipped", 0, (1, 0)),
            (
                "     Summary [  12.0s] 9 tests run: 6 passed (1 leaky), 2 failed, 1 timed out, 0 skipped",
                100,
                (6, 3),
            ),
            ("     Summary [   2.0s] 3/5 tests run: 2 passed, 1 failed, 0 skipped", 100, (2, 3)),
            ("error: could not compile `gateway`", 101, (0, 1)),
            ("     Summary [   2.0s] 5 tests run: 5 passed, 0 skipped", 105, (5, 1)),
        ];
        for (stderr, code, (passed, failed)) in cases {
            let tally = Tally::of_nextest(&finished(code, "", stderr));
            assert_eq!(tally, Tally { passed, failed }, "{stderr}");
        }
    }

    #[test]
    fn cargo_test_results_add_up() {
        let stdout = "test result: ok. 3 passed; 0 failed; 0 ignored\n\
                      x\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored";
        assert_eq!(Tally::of_cargo_test(&finished(101, stdout, "")), Tally { passed: 4, failed: 2 });
        assert_eq!(Tally::of_cargo_test(&finished(101, "", "error")), Tally { passed: 0, failed: 1 });
    }

    #[test]
    fn node_test_counts() {
        let stdout = "✔ one (1ms)\nℹ tests 9\nℹ suites 0\nℹ pass 5\nℹ fail 2\nℹ cancelled 1\nℹ skipped 0";
        assert_eq!(Tally::of_node_test(&finished(1, stdout, "")), Tally { passed: 5, failed: 3 });
        assert_eq!(Tally::of_node_test(&finished(1, "Could not find 'tests'", "")), Tally::one(false));
        assert_eq!(Tally::of_node_test(&finished(0, "", "")), Tally { passed: 0, failed: 1 });
    }
}
