//! The CLI of these tests: does what its stdin says. Compiled by the tests with rustc, static, no crates.
//!
//! `actor NAME`: NAME makes its processes recognizable on the host.

use std::io::{self, BufRead, Write};
use std::process::Command;
use std::time::Duration;

// The standard library has no word for ignoring a signal.
unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn setsid() -> i32;
}

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const IGNORE: usize = 1;

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn stubborn() {
    for number in [SIGHUP, SIGINT, SIGTERM] {
        unsafe { signal(number, IGNORE) };
    }
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    if std::env::args().nth(2).as_deref() == Some("daemon") {
        stubborn();
        unsafe { setsid() };
        hang();
    }
    let mut order = String::new();
    io::stdin().lock().read_line(&mut order).unwrap();
    let (word, rest) = order.trim_end().split_once(' ').unwrap_or((order.trim_end(), ""));
    let say = |text: &str| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    };
    match word {
        "say" => say(rest).unwrap(),
        // When its input came, on the host's clock.
        "when" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            say(&now.as_nanos().to_string()).unwrap();
        }
        "hang" => {
            say("hanging").unwrap();
            hang();
        }
        "stubborn" => {
            stubborn();
            for _ in 0..3 {
                Command::new("/actor").args([&name, "daemon"]).spawn().unwrap();
            }
            say("stubborn").unwrap();
            hang();
        }
        "flood" => {
            let line = "y".repeat(1000);
            while say(&line).is_ok() {}
        }
        "exit" => std::process::exit(rest.parse().unwrap()),
        other => panic!("{other}"),
    }
}
