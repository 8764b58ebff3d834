//! What must never be shown. Everything the harness receives is searched for every secret it
//! handed out, so that each test is a test for leaks as well.

use std::sync::Mutex;

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Declares `secret` as one that no answer and no log line may carry.
pub fn register(secret: &str) {
    assert!(secret.len() >= 8, "too short to be told from ordinary text");
    let mut secrets = SECRETS.lock().expect("no holder of this lock panics");
    if !secrets.iter().any(|known| known == secret) {
        secrets.push(secret.to_owned());
    }
}

/// Panics when `bytes` carry a registered secret.
pub fn assert_none_in(what: &str, bytes: &[u8]) {
    let secrets = SECRETS.lock().expect("no holder of this lock panics").clone();
    for secret in secrets {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(
            !found,
            "{what} carries a secret: {}",
            String::from_utf8_lossy(bytes).replace(&secret, "<SECRET>")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "carries a secret")]
    fn a_registered_secret_is_found() {
        register("opensesame-1234");
        assert_none_in("this text", b"the word is opensesame-1234.");
    }
}
