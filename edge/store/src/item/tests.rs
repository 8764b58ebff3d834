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
    let _ = (to_config_version(item), node::to_clis(item));
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
    fn damaged_items_are_read_or_left_out(item in prop_oneof![damaged(provider()), damaged(key()), damaged(node())]) {
        check(&item)?;
    }
}
