//! A CLI that answers with the time at which it had the first line of its input, in nanoseconds of the host's clock.
//! Compiled by rustc alone and static, for an image with nothing else.

use std::io::{Write as _, stdin, stdout};
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    stdin().read_line(&mut String::new()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    stdout().write_all(now.as_nanos().to_string().as_bytes()).unwrap();
}
