use proptest::prelude::*;

use super::*;

/// Issued keys must stay valid for as long as their holders keep them. The values were made by another program.
#[test]
fn the_format_stays_as_it_is() {
    let key = ApiKey::from_random(&[7; 32]);
    assert_eq!(key.expose(), "dgw_nTDxPcI6XcRx_XjYMyuXCvLy2NYYexMuFXOuQDOoAPiCa14uTkj");
    assert_eq!(key.id().as_str(), &key.expose()[4..16]);
    let hash = ApiKeyHasher::new(&Secret::new("pepper")).hash(&key);
    assert_eq!(
        hash.map(|byte| format!("{byte:02x}")).concat(),
        "bc48e5b85e1245cedd7fd59530c9b1da848bce801eaba8c3ef7d90db1af2cfb9"
    );
}

/// CRC-32's check value (the CRC catalogue, CRC-32/ISO-HDLC): 0xCBF43926 for these digits.
#[test]
fn the_checksum_is_crc32_in_base62() {
    let value = checksum("123456789")
        .iter()
        .map(|digit| BASE62.iter().position(|known| known == digit).unwrap() as u64)
        .fold(0, |sum, digit| sum * 62 + digit);
    assert_eq!(value, 0xCBF4_3926);
}

#[test]
fn foreign_keys_and_typos_are_told_apart() {
    for (text, error) in [
        ("", ApiKeyError::NotOurs),
        ("sk-abcdef", ApiKeyError::NotOurs),
        ("DGW_x", ApiKeyError::NotOurs),
        ("dgw_", ApiKeyError::Mistyped),
        ("dgw_012345678901_short", ApiKeyError::Mistyped),
    ] {
        assert_eq!(ApiKey::parse(text).unwrap_err(), error, "{text}");
    }
    let huge = format!("dgw_{}", "x".repeat(10_000_000));
    assert_eq!(ApiKey::parse(&huge).unwrap_err(), ApiKeyError::Mistyped);
}

/// A right checksum does not make up for a wrong form.
#[test]
fn the_form_is_checked_besides_the_checksum() {
    for body in [
        "dgw_0123456789-1_01234567890123456789012345678901",
        "dgw_01234567890_101234567890123456789012345678901",
        "dgw_012345678901_0123456789012345678901234567890_",
        "dgw_0123456789012012345678901234567890123456789a1",
    ] {
        let sum: String = checksum(body).map(char::from).iter().collect();
        assert_eq!(body.len() + sum.len(), KEY_CHARS);
        assert_eq!(ApiKey::parse(&format!("{body}{sum}")).unwrap_err(), ApiKeyError::Mistyped, "{body}");
    }
}

#[test]
fn a_hash_verifies_its_key_under_its_secret_only() {
    let (key, other) = (ApiKey::from_random(&[1; 32]), ApiKey::from_random(&[2; 32]));
    let hasher = ApiKeyHasher::new(&Secret::new("pepper"));
    let hash = hasher.hash(&key);
    assert!(hasher.verify(&key, &hash));
    assert!(!hasher.verify(&other, &hash));
    assert!(!ApiKeyHasher::new(&Secret::new("salt")).verify(&key, &hash));
    assert!(!hasher.verify(&key, &[0; 32]));
}

#[test]
fn secrets_are_told_apart_by_their_checks() {
    let check = |secret: &str| ApiKeyHasher::new(&Secret::new(secret)).check();
    assert_eq!(check("pepper"), check("pepper"));
    assert_ne!(check("pepper"), check("salt"));
    // It is stored: another text would make every store's secret another one.
    assert_eq!(
        check("pepper").0.map(|byte| format!("{byte:02x}")).concat(),
        "d111bb84389d479b68e3464dce3701e789b9a843a6709433c3525d3662074279"
    );
}

#[test]
fn debug_output_shows_no_secret() {
    let key = ApiKey::from_random(&[3; 32]);
    let printed = format!("{key:?} {:?}", ApiKeyHasher::new(&Secret::new("pepper")));
    assert!(!printed.contains(&key.expose()[17..]) && !printed.contains("pepper"), "{printed}");
}

#[test]
fn a_record_tells_all_its_violations() {
    let mut record = ApiKeyRecord {
        id: ApiKeyId::parse("0123456789ab").unwrap(),
        hash: [0; 32],
        label: "laptop".to_owned(),
        created_at_ms: 1_000,
        expires_at_ms: Some(1_001),
        revoked_at_ms: None,
        owner: String::new(),
        previous: None,
        allowed_models: Some(Vec::new()),
        limits: ApiKeyLimits::default(),
    };
    assert_eq!(record.check(), Ok(()));
    record.label = String::new();
    record.expires_at_ms = Some(1_000);
    record.limits.concurrent_requests = Some(0);
    record.limits.tokens_per_minute = Some(ApiKeyLimits::MAX_TOKENS);
    record.limits.tokens_per_day = Some(0);
    record.limits.tokens_per_month = Some(ApiKeyLimits::MAX_TOKENS + 1);
    record.allowed_models = Some(vec!["ok".to_owned(), " no".to_owned()]);
    let paths: Vec<_> = record.check().unwrap_err().0.into_iter().map(|violation| violation.path).collect();
    assert_eq!(
        paths,
        [
            "label",
            "expires_at_ms",
            "limits.concurrent_requests",
            "limits.tokens_per_day",
            "limits.tokens_per_month",
            "allowed_models[1]"
        ]
    );
}

#[test]
fn an_id_from_outside_is_checked() {
    assert!(serde_json::from_str::<ApiKeyId>(r#""0123456789ab""#).is_ok());
    for wrong in [r#""""#, r#""0123456789a""#, r#""0123456789a/""#, r#""0123456789abc""#, "1"] {
        assert!(serde_json::from_str::<ApiKeyId>(wrong).is_err(), "{wrong}");
    }
}

/// Lists are put together group by group.
#[test]
fn groups_are_in_the_order_of_ids() {
    let groups = ApiKeyId::FIRST_CHARACTERS.map(|first| {
        let id = format!("{}00000000000", char::from(first));
        ApiKeyId::parse(&id).unwrap().group()
    });
    assert!(groups.into_iter().eq(0..ApiKeyId::GROUPS));
    assert!(ApiKeyId::FIRST_CHARACTERS.is_sorted());
}

proptest! {
    #[test]
    fn every_key_parses(bytes: [u8; 32]) {
        let key = ApiKey::from_random(&bytes);
        let parsed = ApiKey::parse(key.expose()).unwrap();
        prop_assert_eq!(parsed.id(), key.id());
        prop_assert_eq!(parsed.expose(), key.expose());
    }

    #[test]
    fn every_typo_of_one_character_is_caught(
        bytes: [u8; 32], at in 0..KEY_CHARS, typed in proptest::char::range(' ', '~'),
    ) {
        let key = ApiKey::from_random(&bytes);
        let mut text = key.expose().as_bytes().to_vec();
        prop_assume!(text[at] != typed as u8);
        text[at] = typed as u8;
        prop_assert!(ApiKey::parse(std::str::from_utf8(&text).unwrap()).is_err());
    }

    #[test]
    fn every_cut_or_added_character_is_caught(bytes: [u8; 32], at in 0..KEY_CHARS, added in "[ -~é]") {
        let whole = ApiKey::from_random(&bytes).expose().to_owned();
        let mut shorter = whole.clone();
        shorter.remove(at);
        let mut longer = whole;
        longer.insert_str(at, &added);
        prop_assert!(ApiKey::parse(&shorter).is_err());
        prop_assert!(ApiKey::parse(&longer).is_err());
    }

    #[test]
    fn garbage_is_refused(text in "(dgw_)?\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 55)) {
        prop_assert!(ApiKey::parse(&text).is_err());
        prop_assert!(ApiKey::parse(&String::from_utf8_lossy(&bytes)).is_err());
    }
}
