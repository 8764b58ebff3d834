//! The one type that carries secrets.

use std::fmt;
use std::fmt::Write as _;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A secret text. It cannot be printed, compares in constant time and is zeroised on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// 32 random bytes in hexadecimal digits.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *random)?;
        let mut text = Zeroizing::new(String::with_capacity(2 * random.len()));
        for byte in *random {
            // A String takes everything.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    /// The plain value. Call it where the secret leaves the process, not before.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Takes as long for any `other` of the same length.
    pub(super) fn is(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
