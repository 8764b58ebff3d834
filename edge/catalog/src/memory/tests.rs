use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::testing::{SeedStore as _, by, stored};
use crate::{
    Action, AnswerStore as _, ApiKeyLimits, AuditStore as _, Provider, SealedSecret, StatusStore as _,
    UsageCounts, UsageStore as _,
};

/// The answer of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the store in memory never waits"),
    }
}

fn is_full<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Refused { reason }) if reason.contains("memory"))
}

fn key(models: Option<Vec<String>>) -> ApiKeyRecord {
    ApiKeyRecord {
        id: ApiKeyId::parse("0123456789ab").expect("twelve digits and letters"),
        hash: [7; 32],
        label: "a key".to_owned(),
        created_at_ms: 1,
        expires_at_ms: None,
        revoked_at_ms: None,
        owner: String::new(),
        previous: None,
        allowed_models: models,
        limits: ApiKeyLimits::default(),
    }
}

/// It is refused, and not shortened: a log that loses its beginning is none.
#[test]
fn the_audit_log_has_an_end() {
    let store = MemoryStore::default();
    let large = key(Some(vec!["m".repeat(150); 1_000]));
    let mut expected = None;
    let refused = loop {
        match now(store.seed_key(&large, expected)) {
            Ok(version) => expected = Some(version),
            Err(error) => break Err::<(), _>(error),
        }
        assert!(expected < Some(1_000), "no end");
    };
    assert!(is_full(&refused), "{refused:?}");
    assert_eq!(
        now(store.find_key(&large.id)).unwrap().map(|key| key.version),
        expected,
        "nothing was changed"
    );
    assert_eq!(Some(now(store.audit_head()).unwrap().seq), expected);
}

#[test]
fn answers_make_room_for_others() {
    let store = MemoryStore::default();
    let body = SealedSecret::parse(&format!("sealed:1:k:{}:{}", "A".repeat(96), "A".repeat(64))).unwrap();
    let id = |index: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&index.to_be_bytes());
        id
    };
    for index in 0..=MAX_ANSWERS {
        // The second is the first to end.
        let until_ms = by(Action::Create).at_ms + if index == 1 { 1 } else { 2 };
        let kept = KeptAnswer { id: id(index), request: [2; 32], status: 201, body: body.clone(), until_ms };
        let by = By { answer: Some(kept), ..by(Action::Create) };
        now(store.put_key(&key(None), (index > 0).then_some(index as u64), &by)).unwrap();
    }
    let is_kept = |index| now(store.kept_answer(id(index), 0)).unwrap().is_some();
    assert_eq!([0, 1, 2, MAX_ANSWERS].map(is_kept), [true, false, true, true]);
}

#[test]
fn usage_and_states_have_an_end() {
    let store = MemoryStore::default();
    let row = |day: u32, model: usize| UsageRow {
        of: UsageKey {
            day: Day(day),
            key: key(None).id,
            provider: ProviderSlug::parse("a").unwrap(),
            model: format!("m{model}"),
        },
        counts: UsageCounts { requests: 1, ..UsageCounts::default() },
        last_at_ms: 1,
    };
    for model in 0..MAX_ROWS {
        now(store.add_usage(&row(1_000, model))).unwrap();
    }
    assert!(is_full(&now(store.add_usage(&row(1_000, MAX_ROWS)))));
    now(store.add_usage(&row(1_000, 0))).unwrap();
    assert_eq!(now(store.usage(Day(1_000))).unwrap()[0].counts.requests, 2, "known rows are added to");
    // What is long over makes room.
    now(store.add_usage(&row(1_001 + Day::KEPT, 0))).unwrap();
    assert_eq!(now(store.usage(Day(1_000))).unwrap(), []);

    for index in 0..MAX_ROWS {
        let mut bytes = [0; 16];
        for (place, digit) in bytes.iter_mut().zip([1, 36, 1_296, 46_656]) {
            *place = u8::try_from(index / digit % 36).unwrap();
        }
        now(store.put_status(&ProviderId::from_random(&bytes), &ProviderStatus::default())).unwrap();
    }
    let raw = serde_json::json!({"name": "one more", "type": "local", "base_url": "http://localhost"});
    let one_more = stored(&Provider::check(&raw.into()).unwrap()).id;
    assert!(is_full(&now(store.put_status(&one_more, &ProviderStatus::default()))));
    let known = ProviderId::from_random(&[0; 16]);
    now(store.put_status(&known, &ProviderStatus::default())).unwrap();
}
