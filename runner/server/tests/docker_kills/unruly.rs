//! A CLI that does what its prompt says: `do:WORD`. Compiled by rustc alone and static, for an image with nothing else.
//!
//! Its first argument means nothing to it: by it, its processes are found on the host.

use std::ffi::c_int;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: c_int, handler: usize) -> usize;
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mark, word) = (arguments.next().unwrap(), arguments.next());
    let word = word.unwrap_or_else(|| {
        let mut prompt = String::new();
        std::io::stdin().read_to_string(&mut prompt).unwrap();
        let word = prompt.split_whitespace().find_map(|word| word.strip_prefix("do:"));
        word.unwrap_or("answer").to_owned()
    });
    if word != "stay" {
        say("begun\n");
    }
    match word.as_str() {
        "answer" => say("done\n"),
        "crash" => std::process::abort(),
        "fail" => std::process::exit(7),
        "hang" => hang(),
        "chatter" => loop {
            say("still there\n");
            std::thread::sleep(Duration::from_millis(50));
        },
        "flood" => loop {
            say(&"x".repeat(64 * 1024));
        },
        // Ends itself, and leaves a process that holds its output open.
        "daemon" => stay_behind(&mark),
        "deaf" => {
            stay_behind(&mark);
            deafen();
            hang()
        }
        "stay" => {
            deafen();
            hang()
        }
        other => panic!("what is {other}?"),
    }
}

fn say(text: &str) {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).unwrap();
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn deafen() {
    for number in [SIGHUP, SIGINT, SIGTERM] {
        unsafe { signal(number, SIG_IGN) };
    }
}

fn stay_behind(mark: &str) {
    Command::new("/proc/self/exe").args([mark, "stay"]).stdin(Stdio::null()).spawn().unwrap();
}
