//! The audit log and kept answers, on every engine; and what becomes of a log that somebody tampers with.

use catalog::testing::{SeedStore as _, by, stored};
use catalog::{
    Action, AdminStore, ApiKeyRecord, AuditEntry, AuditError, AuditHead, AuditQuery, BrokenChain, By,
    CredentialRef, KeptAnswer, KeySecretCheck, Provider, Secret, StoreError, verify_audit,
};
use dynoxide::Database;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::backend::{Backend, delete_raw, get_raw, put_raw};
use crate::contract::on_every_engine;
use crate::records::{fat_key, key, provider, sealed};

on_every_engine! {
    every_change_has_its_entry
    what_fails_leaves_no_entry
    fifty_writers_make_one_chain
    entries_are_found_by_what_they_say
    pages_of_the_log_follow_each_other
    large_changes_are_logged
    a_noted_head_is_found_again
    an_answer_is_kept_with_its_change
    an_answer_is_given_once
}

const EVERYTHING: AuditQuery = AuditQuery {
    from_ms: None,
    until_ms: None,
    actor: None,
    object: None,
    action: None,
    before_seq: None,
    limit: AuditQuery::MAX_LIMIT,
};

/// The whole log, the latest first, which is whole.
async fn log(store: &dyn AdminStore) -> Vec<AuditEntry> {
    let page = store.audit(&EVERYTHING).await.unwrap();
    assert_eq!((page.next, &*page.left_out), (None, &[][..]));
    let head = page.entries.first().map_or_else(AuditHead::default, AuditEntry::head);
    assert_eq!(verify_audit(store, None).await.unwrap(), head);
    page.entries
}

fn json_of(side: Option<&String>) -> Value {
    side.map_or(Value::Null, |side| serde_json::from_str(side).unwrap())
}

async fn every_change_has_its_entry(backend: Backend) {
    let store = &*backend.store;
    assert_eq!(log(store).await, []);
    let (mut a, k) = (provider("a"), key(1));
    let admin = |action| By {
        actor: "ü@example.com".to_owned(),
        request_id: "req-1".to_owned(),
        at_ms: 7,
        ..by(action)
    };
    store.put_provider(&stored(&a), None, &admin(Action::Create)).await.unwrap();
    a.rank = 7;
    store.put_provider(&stored(&a), Some(1), &admin(Action::Update)).await.unwrap();
    store.put_key(&k, None, &by(Action::Create)).await.unwrap();
    let revoked = ApiKeyRecord { revoked_at_ms: Some(5), ..k.clone() };
    store.put_key(&revoked, Some(1), &by(Action::Revoke)).await.unwrap();
    store.delete_provider(&a.slug, 2, &by(Action::Delete)).await.unwrap();
    store.put_key_secret(KeySecretCheck([7; 32]), None, &by(Action::Create)).await.unwrap();

    let mut entries = log(store).await;
    entries.reverse();
    let key_name = format!("key/{}", k.id);
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.seq, entry.action, &*entry.object, entry.before.is_some(), entry.after.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (1, Action::Create, "provider/a", false, true),
            (2, Action::Update, "provider/a", true, true),
            (3, Action::Create, &*key_name, false, true),
            (4, Action::Revoke, &*key_name, true, true),
            (5, Action::Delete, "provider/a", true, false),
            (6, Action::Create, "key-secret", false, true),
        ]
    );
    let update = &entries[1];
    assert_eq!((&*update.actor, &*update.request_id, update.at_ms), ("ü@example.com", "req-1", 7));
    let (before, after) = (json_of(update.before.as_ref()), json_of(update.after.as_ref()));
    assert_eq!((&before["rank"], &after["rank"]), (&json!(100), &json!(7)));
    assert_eq!((&update.before, &entries[4].before), (&entries[0].after, &update.after));
    let (before, after) = (json_of(entries[3].before.as_ref()), json_of(entries[3].after.as_ref()));
    assert_eq!((&before["revoked_at_ms"], &after["revoked_at_ms"]), (&Value::Null, &json!(5)));
}

async fn what_fails_leaves_no_entry(backend: Backend) {
    let store = &*backend.store;
    store.seed_provider(&provider("a"), None).await.unwrap();
    store.seed_key(&key(1), None).await.unwrap();
    let before = (log(store).await, store.config_version().await.unwrap());
    for stale in [None, Some(2)] {
        store.seed_provider(&provider("a"), stale).await.unwrap_err();
        store.seed_key(&key(1), stale).await.unwrap_err();
    }
    store.remove_provider(&provider("a").slug, 2).await.unwrap_err();
    store.seed_key_secret(KeySecretCheck([7; 32]), Some(1)).await.unwrap_err();
    let inline = Provider { credential: CredentialRef::Inline(Secret::new("x")), ..provider("a") };
    store.seed_provider(&inline, Some(1)).await.unwrap_err();
    for nobody in [
        By { actor: String::new(), ..by(Action::Update) },
        By { request_id: "a\nb".to_owned(), ..by(Action::Update) },
    ] {
        let refused = store.put_key(&key(1), Some(1), &nobody).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }
    assert_eq!((log(store).await, store.config_version().await.unwrap()), before);
}

async fn fifty_writers_make_one_chain(backend: Backend) {
    const WRITERS: u64 = 50;
    const EACH: u64 = 4;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = backend.store.clone();
        writers.spawn(async move {
            let key = key(writer);
            for version in 0..EACH {
                let expected = (version > 0).then_some(version);
                assert_eq!(store.seed_key(&key, expected).await.unwrap(), version + 1);
            }
        });
    }
    writers.join_all().await;
    let entries = log(&*backend.store).await;
    assert_eq!(entries.len() as u64, WRITERS * EACH);
    assert_eq!(backend.store.config_version().await.unwrap().keys.iter().sum::<u64>(), WRITERS * EACH);
    for writer in 0..WRITERS {
        let name = format!("key/{}", key(writer).id);
        assert_eq!(entries.iter().filter(|entry| entry.object == name).count() as u64, EACH);
    }
}

async fn entries_are_found_by_what_they_say(backend: Backend) {
    let store = &*backend.store;
    for index in 1..=9 {
        let by = By {
            actor: ["a", "b", "c"][usize::try_from(index % 3).unwrap()].to_owned(),
            at_ms: index * 10,
            ..by(Action::Create)
        };
        store.put_key(&key(index % 2), (index > 2).then(|| (index - 1) / 2), &by).await.unwrap();
    }
    store.seed_provider(&provider("p"), None).await.unwrap();
    let found = async |query: AuditQuery| {
        let page = store.audit(&query).await.unwrap();
        page.entries.into_iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(found(EVERYTHING).await, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(found(AuditQuery { actor: Some("b".to_owned()), ..EVERYTHING }).await, [7, 4, 1]);
    assert_eq!(
        found(AuditQuery { object: Some(format!("key/{}", key(0).id)), ..EVERYTHING }).await,
        [8, 6, 4, 2]
    );
    assert_eq!(found(AuditQuery { object: Some("provider/p".to_owned()), ..EVERYTHING }).await, [10]);
    assert_eq!(found(AuditQuery { from_ms: Some(30), until_ms: Some(60), ..EVERYTHING }).await, [5, 4, 3]);
    assert_eq!(found(AuditQuery { action: Some(Action::Update), ..EVERYTHING }).await, [] as [u64; 0]);
    let both = AuditQuery { actor: Some("b".to_owned()), before_seq: Some(7), ..EVERYTHING };
    assert_eq!(found(both).await, [4, 1]);
}

async fn pages_of_the_log_follow_each_other(backend: Backend) {
    let store = &*backend.store;
    for seed in 0..7 {
        store.seed_key(&key(seed), None).await.unwrap();
    }
    let object = format!("key/{}", key(0).id);
    for (query, expected) in [
        (AuditQuery { limit: 3, ..EVERYTHING }, vec![7, 6, 5, 4, 3, 2, 1]),
        (AuditQuery { limit: 7, ..EVERYTHING }, vec![7, 6, 5, 4, 3, 2, 1]),
        (AuditQuery { limit: 0, ..EVERYTHING }, vec![7, 6, 5, 4, 3, 2, 1]),
        (AuditQuery { limit: 1, object: Some(object), ..EVERYTHING }, vec![1]),
    ] {
        let (mut found, mut query) = (Vec::new(), query);
        loop {
            let page = store.audit(&query).await.unwrap();
            assert!(page.entries.len() <= query.limit.max(1));
            found.extend(page.entries.into_iter().map(|entry| entry.seq));
            let Some(next) = page.next else { break };
            assert!(query.before_seq.is_none_or(|before| next < before) && next > 1, "{next}");
            query.before_seq = Some(next);
        }
        assert_eq!(found, expected);
    }
    for before in [0, 1] {
        let page = store.audit(&AuditQuery { before_seq: Some(before), ..EVERYTHING }).await.unwrap();
        assert_eq!((page.entries, page.next), (vec![], None));
    }
    let page: Vec<_> = store.audit_from(3, 2).await.unwrap().into_iter().map(|entry| entry.seq).collect();
    assert_eq!(page, [3, 4]);
    assert_eq!(store.audit_from(8, 2).await.unwrap(), []);
}

/// Records nearly as large as an item can be: what they were and what they are do not fit into one entry.
async fn large_changes_are_logged(backend: Backend) {
    let store = &*backend.store;
    for seed in 0..6 {
        store.seed_key(&fat_key(seed), None).await.unwrap();
        let other = ApiKeyRecord { allowed_models: Some(vec!["\"n\"".repeat(80); 1_000]), ..fat_key(seed) };
        store.seed_key(&other, Some(1)).await.unwrap();
        store
            .seed_key(&ApiKeyRecord { allowed_models: Some(vec!["\"".repeat(150); 500]), ..other }, Some(2))
            .await
            .unwrap();
    }
    let page = store.audit_from(1, 3).await.unwrap();
    let update = json_of(page[1].before.as_ref());
    assert_eq!(update["label"], "key 0");
    assert!(update["allowed_models"]["left_out"]["bytes"].as_u64().unwrap() > 250_000, "{update}");
    let (mut found, mut query) = (0, EVERYTHING);
    loop {
        let page = store.audit(&query).await.unwrap();
        found += page.entries.len();
        let Some(next) = page.next else { break };
        query.before_seq = Some(next);
    }
    assert_eq!(found, 18);
    assert_eq!(verify_audit(store, None).await.unwrap().seq, 18);
}

async fn a_noted_head_is_found_again(backend: Backend) {
    let store = &*backend.store;
    let nothing = AuditHead::default();
    assert_eq!(verify_audit(store, Some(nothing)).await.unwrap(), nothing);
    store.seed_key(&key(1), None).await.unwrap();
    let noted = store.audit_head().await.unwrap();
    store.seed_key(&key(2), None).await.unwrap();
    let head = store.audit_head().await.unwrap();
    for anchor in [nothing, noted, head] {
        assert_eq!(verify_audit(store, Some(anchor)).await.unwrap(), head);
    }
    for (anchor, seq) in [
        (AuditHead { seq: 0, hash: [1; 32] }, 0),
        (AuditHead { seq: 1, ..head }, 1),
        (AuditHead { seq: 2, ..noted }, 2),
        (AuditHead { seq: 3, ..head }, 3),
    ] {
        assert_eq!(broken(verify_audit(store, Some(anchor)).await).seq, seq);
    }
}

fn broken(result: Result<AuditHead, AuditError>) -> BrokenChain {
    match result {
        Err(AuditError::Broken(broken)) => broken,
        other => panic!("{other:?}"),
    }
}

/// As an attacker with the table in their hands would: each has its own log of five entries, and is found out.
#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_found() {
    type Tamper = fn(&Database);
    fn sk(seq: u64) -> String {
        format!("{seq:020}")
    }
    fn change(engine: &Database, seq: u64, name: &str, value: &str) {
        let mut item = get_raw(engine, "AUDIT", &sk(seq));
        item[name] = json!({ "S": value });
        put_raw(engine, &item);
    }
    fn moved(engine: &Database, from: u64, to: u64) -> Value {
        let mut item = get_raw(engine, "AUDIT", &sk(from));
        item["sk"] = json!({ "S": sk(to) });
        item
    }
    let cases: [(&str, u64, Tamper); 11] = [
        ("removed", 3, |engine| delete_raw(engine, "AUDIT", &sk(3))),
        ("the first removed", 1, |engine| delete_raw(engine, "AUDIT", &sk(1))),
        ("the last removed", 5, |engine| delete_raw(engine, "AUDIT", &sk(5))),
        ("altered", 2, |engine| change(engine, 2, "actor", "somebody else")),
        ("altered, the last", 5, |engine| change(engine, 5, "after", "{}")),
        ("unreadable", 4, |engine| change(engine, 4, "at_ms", "soon")),
        ("reordered", 2, |engine| {
            let (two, three) = (moved(engine, 3, 2), moved(engine, 2, 3));
            put_raw(engine, &two);
            put_raw(engine, &three);
        }),
        ("one more", 6, |engine| put_raw(engine, &moved(engine, 5, 6))),
        ("all removed", 1, |engine| (1..=5).for_each(|seq| delete_raw(engine, "AUDIT", &sk(seq)))),
        ("the head removed", 5, |engine| delete_raw(engine, "AUDIT", "HEAD")),
        ("the head damaged", 5, |engine| {
            let head =
                json!({ "pk": { "S": "AUDIT" }, "sk": { "S": "HEAD" }, "schema_version": { "N": "1" } });
            put_raw(engine, &head);
        }),
    ];
    for (case, seq, tamper) in cases {
        let backend = Backend::embedded().await;
        for seed in 0..5 {
            backend.store.seed_key(&key(seed), None).await.unwrap();
        }
        assert_eq!(verify_audit(&*backend.store, None).await.unwrap().seq, 5);
        tamper(backend.engine.as_ref().unwrap());
        let broken = broken(verify_audit(&*backend.store, None).await);
        assert_eq!(broken.seq, seq, "{case}: {broken}");
    }
}

/// Cut off together with its head, it is a whole log: only who noted the head can tell.
#[tokio::test(flavor = "multi_thread")]
async fn truncation_is_found_by_who_noted_the_head() {
    let backend = Backend::embedded().await;
    let (store, engine) = (&*backend.store, backend.engine.unwrap());
    store.seed_key(&key(0), None).await.unwrap();
    let earlier = get_raw(&engine, "AUDIT", "HEAD");
    store.seed_key(&key(1), None).await.unwrap();
    let noted = store.audit_head().await.unwrap();
    delete_raw(&engine, "AUDIT", &format!("{:020}", 2));
    put_raw(&engine, &earlier);
    assert_eq!(verify_audit(store, None).await.unwrap().seq, 1);
    assert_eq!(broken(verify_audit(store, Some(noted)).await).seq, 2);
    store.seed_key(&key(2), None).await.unwrap();
    assert_eq!(broken(verify_audit(store, Some(noted)).await).seq, 2, "written anew");
}

/// Nothing is written over what is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_head_takes_no_more() {
    let backend = Backend::embedded().await;
    let (store, engine) = (&*backend.store, backend.engine.unwrap());
    store.seed_key(&key(0), None).await.unwrap();
    delete_raw(&engine, "AUDIT", "HEAD");
    let error = store.seed_key(&key(1), None).await.unwrap_err();
    assert!(matches!(&error, StoreError::Broken { reason } if reason.contains("beyond its head")), "{error}");
    assert_eq!(store.find_key(&key(1).id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_entry_is_named_and_hides_no_other() {
    let backend = Backend::embedded().await;
    let (store, engine) = (&*backend.store, backend.engine.unwrap());
    for seed in 0..3 {
        store.seed_key(&key(seed), None).await.unwrap();
    }
    let mut item = get_raw(&engine, "AUDIT", &format!("{:020}", 2));
    item["schema_version"] = json!({ "N": "2" });
    put_raw(&engine, &item);
    let page = store.audit(&EVERYTHING).await.unwrap();
    let seqs: Vec<_> = page.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!((&seqs[..], page.next), (&[3, 1][..], None));
    assert_eq!(page.left_out[0].name, format!("AUDIT/{:020}", 2));
    assert_eq!(store.audit_from(1, 9).await.unwrap().len(), 1);
    assert!(matches!(store.audit_from(2, 9).await, Err(StoreError::Unreadable(_))));
}

fn answer(id: u8, status: u16, until_ms: u64) -> KeptAnswer {
    KeptAnswer { id: [id; 32], request: [9; 32], status, body: sealed('A'), until_ms }
}

/// A change at this time, whose answer is kept.
fn answering(at_ms: u64, answer: KeptAnswer) -> By {
    By { at_ms, answer: Some(answer), ..by(Action::Create) }
}

async fn an_answer_is_kept_with_its_change(backend: Backend) {
    let store = &*backend.store;
    let kept = answer(1, 201, 2_000);
    assert_eq!(store.kept_answer(kept.id, 0).await.unwrap(), None);
    store.put_key(&key(1), None, &answering(1_000, kept.clone())).await.unwrap();
    assert_eq!(store.kept_answer(kept.id, 1_999).await.unwrap(), Some(kept.clone()));
    assert_eq!(store.kept_answer(kept.id, 2_000).await.unwrap(), None, "it has ended");
    assert_eq!(store.kept_answer([2; 32], 0).await.unwrap(), None);

    let stale = store.put_key(&key(1), None, &answering(1_000, answer(2, 201, 9_000))).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    assert_eq!(store.kept_answer([2; 32], 0).await.unwrap(), None, "what fails keeps none");
    let provider = stored(&provider("a"));
    store.put_provider(&provider, None, &answering(1_000, answer(3, 201, 9_000))).await.unwrap();
    assert_eq!(store.kept_answer([3; 32], 0).await.unwrap().unwrap().status, 201);
}

async fn an_answer_is_given_once(backend: Backend) {
    let store = &*backend.store;
    store.put_key(&key(1), None, &answering(1_000, answer(1, 201, 2_000))).await.unwrap();
    let before = (log(store).await, store.config_version().await.unwrap());
    let again = answering(1_999, answer(1, 202, 9_000));
    let conflict = store.put_key(&key(2), None, &again).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "{conflict:?}");
    let conflict = store.put_key_secret(KeySecretCheck([7; 32]), None, &again).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "{conflict:?}");
    assert_eq!((log(store).await, store.config_version().await.unwrap()), before);
    assert_eq!(store.find_key(&key(2).id).await.unwrap(), None);
    assert_eq!(store.kept_answer([1; 32], 1_999).await.unwrap().unwrap().status, 201, "the first one");

    // One that has ended, and that nobody has swept away, is in nobody's way.
    store.put_key(&key(2), None, &answering(2_000, answer(1, 203, 9_000))).await.unwrap();
    assert_eq!(store.kept_answer([1; 32], 2_000).await.unwrap().unwrap().status, 203);

    // Of many who send one request, one has its way.
    let mut senders = JoinSet::new();
    for sender in 0..16 {
        let store = backend.store.clone();
        let by = answering(3_000, answer(4, sender, 9_000));
        senders.spawn(async move {
            match store.put_key(&key(100 + u64::from(sender)), None, &by).await {
                Ok(_) => Some(sender),
                Err(StoreError::Conflict { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let winners: Vec<_> = senders.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners, [store.kept_answer([4; 32], 3_000).await.unwrap().unwrap().status]);
    assert_eq!(store.keys().await.unwrap().keys.len(), 3);
}
