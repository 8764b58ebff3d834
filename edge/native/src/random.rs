//! The system's randomness as text.

use std::fmt::Write as _;
use std::io;

/// `BYTES` random bytes in hexadecimal digits.
pub(crate) fn hex<const BYTES: usize>() -> io::Result<String> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut text = String::with_capacity(2 * BYTES);
    for byte in random {
        write!(text, "{byte:02x}").map_err(io::Error::other)?;
    }
    Ok(text)
}
