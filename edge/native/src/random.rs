//! The system's randomness as text.

use std::fmt::Write as _;
use std::io;

/// `BYTES` random bytes in hexadecimal digits.
pub(crate) fn hex<const BYTES: usize>() -> io::Result<String> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(hex_digits(&random))
}

pub(crate) fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
