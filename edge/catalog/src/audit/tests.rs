use super::*;

fn by(actor: &str) -> By {
    By { actor: actor.to_owned(), ..By::program("test", Action::Create, 1) }
}

#[test]
fn writers_have_names_that_can_be_shown() {
    for actor in ["a", "program:up", &"ü".repeat(128)] {
        by(actor).check().unwrap();
    }
    for actor in ["", "a\nb", " a", &"a".repeat(129)] {
        assert!(matches!(by(actor).check(), Err(StoreError::Refused { .. })), "{actor:?}");
    }
    let long = By { request_id: "r".repeat(257), ..by("a") };
    assert!(matches!(long.check(), Err(StoreError::Refused { .. })));
}

#[test]
fn long_members_are_left_out_of_a_long_object() {
    let models: Vec<String> = (0..1_000).map(|index| format!("{index:0>250}")).collect();
    let text = audited_text(json!({ "label": "a key", "allowed_models": models }));
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["label"], "a key");
    let hash = hex32::text(&Sha256::digest(json!(models).to_string()).into());
    let left_out = json!({ "left_out": { "bytes": 1_000 * 253 + 1, "sha256": hash } });
    assert_eq!(shown["allowed_models"], left_out);

    let short = json!({ "allowed_models": models[..600] });
    assert_eq!(audited_text(short.clone()), short.to_string(), "what is not too long is whole");
}

/// None of the members can be changed, nor moved into another.
#[test]
fn the_hash_binds_every_member() {
    let change = AuditedChange {
        object: "key/a".to_owned(),
        before: Some("{}".to_owned()),
        after: Some("{\"a\":1}".to_owned()),
    };
    let entry = AuditHead::default().next(&by("a"), change);
    assert_eq!(AuditHead::default().follow(&entry), Ok(entry.head()));
    let changes: [fn(&mut AuditEntry); 10] = [
        |entry| entry.at_ms += 1,
        |entry| entry.actor.push('b'),
        |entry| entry.request_id.push('r'),
        |entry| (entry.actor, entry.request_id) = (String::new(), entry.actor.clone()),
        |entry| entry.action = Action::Update,
        |entry| entry.object.push('b'),
        |entry| entry.before = None,
        |entry| std::mem::swap(&mut entry.before, &mut entry.after),
        |entry| (entry.before, entry.after) = (None, Some("{}{\"a\":1}".to_owned())),
        |entry| entry.hash[31] ^= 1,
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut changed = entry.clone();
        change(&mut changed);
        assert_ne!(changed, entry, "change {place}");
        let broken = AuditHead::default().follow(&changed).unwrap_err();
        assert_eq!(broken, BrokenChain { seq: 1, reason: "it was changed after it was written" });
    }
    let elsewhere = AuditEntry { seq: 2, ..entry.clone() };
    assert_eq!(AuditHead::default().follow(&elsewhere).unwrap_err().reason, "the entry is missing");
    let other = AuditHead { seq: 0, hash: [1; 32] };
    assert_eq!(other.follow(&entry).unwrap_err().reason, "it does not follow the entry before");
}
