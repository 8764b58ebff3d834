//! Times, and how they are shown.

use std::borrow::Borrow;
use std::time::Duration;

/// Of one run, from the request on, in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    stdin: f64,
    first_byte: f64,
    end: f64,
}

impl Times {
    /// `answer` is when the CLI had its input, in nanoseconds of the same clock as `at`.
    pub(crate) fn new(at: u128, answer: &str, first_byte: Duration, end: Duration) -> Self {
        let had: u128 = answer.trim().parse().unwrap();
        let stdin = Duration::from_nanos(u64::try_from(had.saturating_sub(at)).unwrap());
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self { stdin: ms(stdin), first_byte: ms(first_byte), end: ms(end) }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Figures(Vec<Times>);

impl Figures {
    pub(crate) fn extend(&mut self, times: impl IntoIterator<Item = Times>) {
        self.0.extend(times);
    }

    /// `p50 / p99`
    fn shown(&self, value: impl Fn(&Times) -> f64) -> String {
        let mut values: Vec<f64> = self.0.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| values[(values.len() - 1) * percent / 100];
        format!("{:.1} / {:.1}", at(50), at(99))
    }
}

pub(crate) fn table(names: &[&str], figures: &[impl Borrow<Figures>]) {
    println!("| | stdin | first byte | end |\n|---|---|---|---|");
    for (name, figures) in names.iter().zip(figures) {
        let figures = figures.borrow();
        let [stdin, first_byte, end] =
            [figures.shown(|t| t.stdin), figures.shown(|t| t.first_byte), figures.shown(|t| t.end)];
        println!("| {name} | {stdin} | {first_byte} | {end} |");
    }
}

pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64()
}
