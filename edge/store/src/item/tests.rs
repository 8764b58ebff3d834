use proptest::prelude::*;

use super::*;

/// Any attribute value, some of them large.
fn value() -> impl Strategy<Value = AttributeValue> {
    let leaf = prop_oneof![
        "\\PC{0,20}".prop_map(AttributeValue::S),
        "[0-9a-f]{32}".prop_map(AttributeValue::S),
        "-?[0-9]{1,25}(\\.[0-9]{1,3})?([eE][0-9]{1,3})?".prop_map(AttributeValue::N),
        (0_u64..3).prop_map(number),
        any::<u64>().prop_map(number),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| AttributeValue::B(Blob::new(bytes))),
        any::<[u8; 32]>().prop_map(|bytes| AttributeValue::B(Blob::new(bytes))),
        any::<bool>().prop_map(AttributeValue::Bool),
        Just(AttributeValue::Null(true)),
        proptest::collection::vec("\\PC{0,8}", 0..4).prop_map(AttributeValue::Ss),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
            proptest::collection::hash_map("[a-z_]{1,8}", inner, 0..4).prop_map(AttributeValue::M),
        ]
    })
}

/// An item of ours, of which some attributes are gone, are something else, or are new.
fn damaged(item: Item) -> impl Strategy<Value = Item> {
    let names: Vec<String> = item.keys().cloned().chain(["later".to_owned()]).collect();
    let damage =
        proptest::collection::vec((proptest::sample::select(names), proptest::option::of(value())), 0..4);
    damage.prop_map(move |damage| {
        let mut item = item.clone();
        for (name, value) in damage {
            match value {
                Some(value) => item.insert(name, value),
                None => item.remove(&name),
            };
        }
        item
    })
}

fn provider() -> Item {
    let raw = serde_json::json!({"name": "a", "type": "local", "base_url": "http://localhost"});
    from_provider(&catalog::testing::stored(&Provider::check(&raw.into()).unwrap()), 1).unwrap()
}

fn key() -> Item {
    let record = ApiKeyRecord {
        id: ApiKeyId::parse("0123456789ab").unwrap(),
        hash: [7; 32],
        label: "a key".to_owned(),
        created_at_ms: 1,
        expires_at_ms: Some(2),
        revoked_at_ms: Some(3),
        owner: String::new(),
        previous: None,
        allowed_models: Some(vec!["m".to_owned()]),
        limits: ApiKeyLimits::default(),
    };
    from_key(&record, 1).unwrap()
}

fn node() -> Item {
    let record = runner_api::NodeRecord {
        id: "n".to_owned(),
        url: "https://n.example".to_owned(),
        version: "1".to_owned(),
        capacity: runner_api::Capacity::default(),
        clis: Vec::new(),
        expires_unix_ms: 1,
    };
    node::from_record(&record, &"0".repeat(32), 1)
}

fn audit_entry() -> Item {
    let by = catalog::By { request_id: "r".to_owned(), ..catalog::testing::by(catalog::Action::Update) };
    let change = catalog::AuditedChange {
        object: "key/0123456789ab".to_owned(),
        before: Some("{}".to_owned()),
        after: Some("{}".to_owned()),
    };
    from_audit_entry(&catalog::AuditHead { seq: 1, hash: [1; 32] }.next(&by, change))
}

fn audit_head() -> Item {
    from_audit_head(&catalog::AuditHead { seq: 1, hash: [1; 32] })
}

fn answer() -> Item {
    let body = format!("sealed:1:k:{}:{}", "A".repeat(96), "A".repeat(64));
    from_answer(&catalog::KeptAnswer {
        id: [1; 32],
        request: [2; 32],
        status: 201,
        body: catalog::SealedSecret::parse(&body).unwrap(),
        until_ms: u64::MAX,
    })
}

/// One item with what usage, last uses and states have: they are written attribute by attribute.
fn report() -> Item {
    let of = UsageKey {
        day: catalog::Day(1),
        key: ApiKeyId::parse("0123456789ab").unwrap(),
        provider: ProviderSlug::parse("a").unwrap(),
        model: "m".to_owned(),
    };
    let mut item = Key::usage(&of).to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    item.insert("model".to_owned(), string("m"));
    for name in
        ["requests", "failed", "prompt_tokens", "completion_tokens", "estimated", "last_at_ms", "at_ms"]
    {
        item.insert(name.to_owned(), number(1));
    }
    for name in ["last_test", "health"] {
        item.insert(name.to_owned(), string("{}"));
    }
    item
}

/// Whatever is read obeys the rules, so that writing it gives it again.
fn check(item: &Item) -> Result<(), TestCaseError> {
    if let Ok(ConfigItem::Provider(read)) = to_config_item(item) {
        let written = from_provider(&read.value, read.version).unwrap();
        prop_assert_eq!(to_provider(&written).unwrap(), *read);
    }
    if let Ok(read) = to_key(item) {
        let written = from_key(&read.value, read.version).unwrap();
        prop_assert_eq!(to_key(&written).unwrap(), read);
    }
    if let Ok(read) = node::to_stored(item) {
        prop_assert!(read.url.starts_with("https://") && read.clis.len() == 32 && !read.id.is_empty());
    }
    if let Ok(read) = to_audit_entry(item) {
        prop_assert_eq!(to_audit_entry(&from_audit_entry(&read)).unwrap(), read);
    }
    if let Ok(read) = to_audit_head(item) {
        prop_assert_eq!(to_audit_head(&from_audit_head(&read)).unwrap(), read);
    }
    if let Ok(read) = to_answer(item) {
        prop_assert_eq!(to_answer(&from_answer(&read)).unwrap(), read);
    }
    if let Ok(read) = to_usage(item) {
        prop_assert_eq!(item[SK].as_s().unwrap(), &Key::usage(&read.of).sk);
    }
    let _ = (to_config_version(item), node::to_clis(item), to_used_key(item), to_status(item));
    let named = left_out(item, &ItemError::Unknown);
    prop_assert!(!named.name.chars().any(char::is_control));
    Ok(())
}

proptest! {
    #[test]
    fn any_item_is_read_or_left_out(item in proptest::collection::hash_map("[a-z_]{1,16}", value(), 0..12)) {
        check(&item)?;
    }

    #[test]
    fn damaged_items_are_read_or_left_out(item in prop_oneof![
        damaged(provider()), damaged(key()), damaged(node()), damaged(audit_entry()), damaged(audit_head()),
        damaged(answer()), damaged(report()),
    ]) {
        check(&item)?;
    }
}
