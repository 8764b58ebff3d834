use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

/// The answer of a future that waits for nobody.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a key ring waits for nobody"),
    }
}

/// Other bytes at every call.
fn fill(bytes: &mut [u8]) {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    bytes.fill(CALLS.fetch_add(1, Ordering::Relaxed));
}

fn ring(keys: &[(&str, u8)]) -> KeyRing {
    KeyRing(keys.iter().map(|(id, byte)| (KeyId::parse(id).unwrap(), DataKey::new([*byte; 32]))).collect())
}

fn provider(number: u8) -> ProviderId {
    ProviderId::from_random(&[number; 16])
}

fn context() -> SealContext {
    SealContext::credential(&provider(1), "apiKey", 1)
}

fn seal(text: &str, keys: &KeyRing) -> SealedSecret {
    now(SealedSecret::seal(&Secret::new(text), &context(), keys, &fill)).unwrap()
}

fn open(sealed: &SealedSecret, context: &SealContext, keys: &KeyRing) -> Result<Secret, SealError> {
    now(sealed.open(context, keys))
}

#[test]
fn what_is_sealed_opens_again() {
    let keys = ring(&[("k1", 1)]);
    for text in ["", "sk-canary", &"ä".repeat(MAX_SEALED_BYTES / 2)] {
        let sealed = seal(text, &keys);
        let read = SealedSecret::parse(&sealed.to_string()).unwrap();
        assert!(open(&read, &context(), &keys).unwrap() == Secret::new(text));
    }
    let too_long = Secret::new("x".repeat(MAX_SEALED_BYTES + 1));
    let refused = now(SealedSecret::seal(&too_long, &context(), &keys, &fill)).unwrap_err();
    assert_eq!(refused, SealError::TooLong(MAX_SEALED_BYTES + 1));
}

#[test]
fn the_same_value_is_never_sealed_twice_the_same_way() {
    let keys = ring(&[("k1", 1)]);
    let (one, other) = (seal("sk-canary", &keys), seal("sk-canary", &keys));
    assert_ne!(one.value, other.value);
    assert_ne!(one.wrapped, other.wrapped);
}

#[test]
fn it_opens_nowhere_else() {
    let keys = ring(&[("k1", 1)]);
    let sealed = seal("sk-canary", &keys);
    for elsewhere in [
        SealContext::credential(&provider(2), "apiKey", 1),
        SealContext::credential(&provider(1), "secretKey", 1),
        SealContext::credential(&provider(1), "apiKey", 2),
        SealContext::credential(&provider(1), "apiKey", 11),
        SealContext::answer(&[0; 32]),
    ] {
        assert_eq!(open(&sealed, &elsewhere, &keys).unwrap_err(), SealError::DoesNotOpen);
        assert_eq!(
            now(sealed.rewrap(&elsewhere, &ring(&[("k2", 2), ("k1", 1)]), &fill)).unwrap_err(),
            SealError::DoesNotOpen
        );
    }
}

#[test]
fn a_change_of_any_byte_is_seen() {
    let keys = ring(&[("k1", 1)]);
    let sealed = seal("sk-canary", &keys);
    for index in 0..sealed.value.len() {
        let mut changed = sealed.clone();
        changed.value[index] ^= 1;
        assert_eq!(open(&changed, &context(), &keys).unwrap_err(), SealError::DoesNotOpen, "value {index}");
    }
    for index in 0..sealed.wrapped.len() {
        let mut changed = sealed.clone();
        changed.wrapped[index] ^= 1;
        assert_eq!(open(&changed, &context(), &keys).unwrap_err(), SealError::DoesNotOpen, "key {index}");
    }
    for length in 0..sealed.wrapped.len() {
        let mut cut = sealed.clone();
        cut.wrapped.truncate(length);
        assert_eq!(open(&cut, &context(), &keys).unwrap_err(), SealError::Malformed);
    }
    let other = seal("sk-canary", &keys);
    let mixed = SealedSecret { wrapped: other.wrapped, ..sealed };
    assert_eq!(open(&mixed, &context(), &keys).unwrap_err(), SealError::DoesNotOpen);
}

#[test]
fn it_takes_the_key_that_it_was_sealed_under() {
    let sealed = seal("sk-canary", &ring(&[("k1", 1)]));
    let unknown = open(&sealed, &context(), &ring(&[("k2", 1)])).unwrap_err();
    assert_eq!(unknown, SealError::UnknownKey("k1".to_owned()));
    let another = open(&sealed, &context(), &ring(&[("k1", 2)])).unwrap_err();
    assert_eq!(another, SealError::DoesNotOpen);
    assert_eq!(
        now(SealedSecret::seal(&Secret::new("x"), &context(), &KeyRing::default(), &fill)).unwrap_err(),
        SealError::NoKey
    );
}

#[test]
fn rewrapping_changes_the_master_key_and_not_the_value() {
    let old = ring(&[("k1", 1)]);
    let both = ring(&[("k2", 2), ("k1", 1)]);
    let sealed = seal("sk-canary", &old);
    assert_eq!(now(sealed.rewrap(&context(), &old, &fill)).unwrap(), None);

    let rewrapped = now(sealed.rewrap(&context(), &both, &fill)).unwrap().unwrap();
    assert_eq!(rewrapped.value, sealed.value);
    assert_ne!(rewrapped.wrapped, sealed.wrapped);
    assert_eq!(rewrapped.key_id().as_str(), "k2");
    let opened = open(&rewrapped, &context(), &ring(&[("k2", 2)])).unwrap();
    assert!(opened == Secret::new("sk-canary"));
    assert_eq!(now(rewrapped.rewrap(&context(), &both, &fill)).unwrap(), None);

    let without = now(sealed.rewrap(&context(), &ring(&[("k2", 2)]), &fill)).unwrap_err();
    assert_eq!(without, SealError::UnknownKey("k1".to_owned()));
}

#[test]
fn nothing_secret_is_printed() {
    let keys = ring(&[("k1", 1)]);
    let sealed = seal("sk-canary", &keys);
    assert_eq!(format!("{sealed:?} {keys:?}"), "SealedSecret(k1) [KeyId(\"k1\")]");
    assert!(!sealed.to_string().contains("canary"));
}

#[test]
fn a_key_ring_is_read_from_text() {
    // Both alphabets, with and without padding.
    let text = "\n a/1.x:+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s= ,b:-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s\r\n";
    let keys = KeyRing::parse(text).unwrap();
    assert_eq!(keys.ids().map(KeyId::as_str).collect::<Vec<_>>(), ["a/1.x", "b"]);
    assert_eq!(*keys.0[0].1.0, *keys.0[1].1.0);
    assert_eq!(now(keys.active()).unwrap().as_str(), "a/1.x");
    assert!(KeyRing::parse(" \n, ").unwrap().is_empty());
}

#[test]
fn what_is_wrong_with_a_key_ring_is_said_without_the_keys() {
    let good = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
    for (text, reason) in [
        (good.to_owned(), "master key 1: write ID:KEY"),
        (format!("a:{good},{good}"), "master key 2: write ID:KEY"),
        (format!("a b:{good}"), "its id must be"),
        (format!("{}:{good}", "i".repeat(65)), "its id must be"),
        (format!(":{good}"), "its id must be"),
        (format!("a:{}", &good[..40]), "32 bytes"),
        (format!("a:{good}QUJD"), "32 bytes"),
        (format!("a:!{good}"), "32 bytes"),
        ("a:".to_owned(), "32 bytes"),
        (format!("a:{good}\na:{good}"), "master key 2: another one has the same id"),
    ] {
        let error = KeyRing::parse(&text).unwrap_err();
        assert!(error.contains(reason) && !error.contains("QUJD"), "{text}: {error}");
    }
}

#[test]
fn what_is_no_sealed_value_is_refused() {
    let sealed = seal("sk-canary", &ring(&[("k1", 1)])).to_string();
    let (front, value) = sealed.rsplit_once(':').unwrap();
    for text in [
        String::new(),
        "sk-canary".to_owned(),
        sealed.replace("sealed:1:", "sealed:2:"),
        sealed.replace("k1", "k 1"),
        sealed.replace("k1", ""),
        front.to_owned(),
        format!("{sealed}:"),
        format!("{sealed}!"),
        format!("{front}:"),
        format!("{front}:{}", &value[..52]),
        format!("{front}:{}", "A".repeat(90_000)),
        format!("sealed:1:k1::{value}"),
        format!("sealed:1:k1:{}:{value}", "A".repeat(1_368)),
    ] {
        assert_eq!(SealedSecret::parse(&text), Err(SealError::Malformed), "{text}");
    }
}

proptest! {
    #[test]
    fn the_text_of_a_sealed_value_is_read_again(
        id in "[A-Za-z0-9_./-]{1,64}",
        wrapped in prop::collection::vec(any::<u8>(), 1..200),
        value in prop::collection::vec(any::<u8>(), NONCE + TAG..200),
    ) {
        let sealed = SealedSecret { key_id: KeyId::parse(&id).unwrap(), wrapped, value };
        prop_assert_eq!(SealedSecret::parse(&sealed.to_string()).unwrap(), sealed);
    }

    #[test]
    fn reading_any_text_never_fails_badly(text in ".*", tail in "[A-Za-z0-9_:.-]{0,200}") {
        let _ = SealedSecret::parse(&text);
        if let Ok(sealed) = SealedSecret::parse(&format!("sealed:1:{tail}")) {
            prop_assert!(SealedSecret::parse(&sealed.to_string()).unwrap() == sealed);
        }
        let _ = KeyRing::parse(&text);
    }
}
