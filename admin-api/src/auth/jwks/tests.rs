//! Sets of keys that come, change, go and are wrong.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jwt_simple::prelude::{ES256KeyPair, Ed25519KeyPair};
use serde_json::json;

use super::super::tests::{Signer, claims};
use super::super::{Authenticator, TokenRules};
use super::*;
use crate::engine::FetchError;
use crate::testing::{TestApp, request, with_header};

fn jwk(key: &Ed25519KeyPair) -> Value {
    serde_json::from_str(&key.public_key().to_jwk()).unwrap()
}

fn key(id: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::generate().with_key_id(id)
}

fn app() -> TestApp {
    let source = JwksSource::Url("https://id.example/jwks".to_owned());
    let jwks = Authenticator::jwks(Algorithm::EdDsa, source, TokenRules::default());
    TestApp::with_authenticator(jwks.unwrap())
}

fn publish(app: &TestApp, keys: &[Value]) {
    let set = json!({"keys": keys}).to_string();
    app.engine.set(|answers| answers.fetched = Ok(set.into()));
}

fn answer(app: &TestApp, bytes: impl Into<Bytes>) {
    app.engine.set(|answers| answers.fetched = Ok(bytes.into()));
}

fn fail(app: &TestApp) {
    app.engine.set(|answers| answers.fetched = Err(FetchError("connection refused".to_owned())));
}

fn fetches(app: &TestApp) -> usize {
    app.engine.set(|answers| answers.fetches)
}

/// The status of a request with a token of this key that ends in ten days.
async fn status(app: &TestApp, key: &Ed25519KeyPair) -> u16 {
    let mut claims = claims();
    claims["exp"] = json!(claims["exp"].as_u64().unwrap() + 864_000);
    let token = Signer::EdDsa(key.clone()).sign(&claims);
    let request = request(Method::GET, "/admin/whoami", Value::Null);
    app.send(with_header(request, "authorization", &format!("Bearer {token}"))).await.status.as_u16()
}

#[tokio::test]
async fn a_set_is_kept_and_read_again() {
    let (app, old, new) = (app(), key("old"), key("new"));
    publish(&app, &[jwk(&old)]);
    for _ in 0..3 {
        assert_eq!(status(&app, &old).await, 200);
    }
    assert_eq!(fetches(&app), 1);

    // Rotation: an unknown key id is asked for at once, but not more often than every 30 seconds.
    publish(&app, &[jwk(&old), jwk(&new)]);
    assert_eq!(status(&app, &new).await, 401);
    app.engine.advance(Duration::from_secs(30));
    assert_eq!((status(&app, &new).await, fetches(&app)), (200, 2));
    for _ in 0..5 {
        assert_eq!(status(&app, &key("never")).await, 401);
    }
    assert_eq!(fetches(&app), 2);

    // A key that is gone is refused once the set is ten minutes old.
    publish(&app, &[jwk(&new)]);
    assert_eq!(status(&app, &old).await, 200);
    app.engine.advance(Duration::from_secs(601));
    assert_eq!((status(&app, &old).await, fetches(&app)), (401, 3));
    assert_eq!(status(&app, &new).await, 200);
}

#[tokio::test]
async fn an_old_set_serves_while_there_is_no_other() {
    let (app, known) = (app(), key("a"));
    publish(&app, &[jwk(&known)]);
    assert_eq!(status(&app, &known).await, 200);
    let far_too_long = json!({"keys": [jwk(&known)], "x": "y".repeat(MAX_BYTES)}).to_string();
    let too_many = json!({"keys": vec![jwk(&known); MAX_KEYS + 1]}).to_string();
    for (index, garbage) in
        ["", "{", "[]", "{\"keys\":{}}", "null", &far_too_long, &too_many].into_iter().enumerate()
    {
        app.engine.advance(Duration::from_secs(601));
        answer(&app, garbage.to_owned());
        assert_eq!((status(&app, &known).await, fetches(&app)), (200, index + 2));
    }
    fail(&app);
    app.engine.advance(Duration::from_secs(601));
    assert_eq!(status(&app, &known).await, 200);
    let tried = fetches(&app);
    assert_eq!((status(&app, &known).await, fetches(&app)), (200, tried), "not asked for with each request");
    app.engine.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(status(&app, &known).await, 503);
    publish(&app, &[jwk(&known)]);
    app.engine.advance(Duration::from_secs(5));
    assert_eq!(status(&app, &known).await, 200);
}

#[tokio::test]
async fn without_a_set_nobody_is_known() {
    let (app, known) = (app(), key("a"));
    assert_eq!((status(&app, &known).await, fetches(&app)), (503, 1));
    assert_eq!((status(&app, &known).await, fetches(&app)), (503, 1));
    // A set that says that there are no keys is believed.
    app.engine.advance(Duration::from_secs(5));
    publish(&app, &[]);
    assert_eq!(status(&app, &known).await, 401);
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_passed_over() {
    let known = key("a");
    let mut with_certificates = jwk(&known);
    with_certificates["x5c"] = json!(["A".repeat(20_000)]);
    let changed = |name: &str, value: &str| {
        let mut jwk = jwk(&known);
        jwk[name] = value.into();
        jwk
    };
    let es256: Value =
        serde_json::from_str(&ES256KeyPair::generate().with_key_id("a").public_key().to_jwk()).unwrap();
    for (unusable, usable, wanted) in [
        (vec![json!(1), json!({}), json!({"kty": "oct", "k": "AAAA", "kid": "a"}), es256], jwk(&known), 200),
        (vec![], with_certificates, 200),
        (vec![], changed("use", "enc"), 401),
        (vec![], changed("alg", "RS256"), 401),
        (vec![], changed("x", "AAAA"), 401),
        (vec![], changed("kid", "b"), 401),
        (vec![jwk(&key("b"))], jwk(&known), 200),
    ] {
        let app = app();
        let mut keys = unusable;
        keys.push(usable);
        publish(&app, &keys);
        assert_eq!(status(&app, &known).await, wanted, "{keys:?}");
    }
}

#[tokio::test]
async fn a_set_of_one_key_needs_no_ids() {
    let (app, nameless) = (app(), Ed25519KeyPair::generate());
    publish(&app, &[jwk(&nameless)]);
    assert_eq!(status(&app, &nameless).await, 200);
    assert_eq!(status(&app, &nameless.clone().with_key_id("x")).await, 200);
    let two = self::app();
    publish(&two, &[jwk(&nameless), jwk(&key("b"))]);
    assert_eq!(status(&two, &nameless).await, 401);
}

#[tokio::test]
async fn a_file_is_read_again_too() {
    let path = std::env::temp_dir().join(format!("dyad-jwks-{}", std::process::id()));
    let (old, new) = (key("old"), key("new"));
    std::fs::write(&path, json!({"keys": [jwk(&old)]}).to_string()).unwrap();
    let source = JwksSource::File(path.clone());
    let jwks = Authenticator::jwks(Algorithm::EdDsa, source, TokenRules::default());
    let app = TestApp::with_authenticator(jwks.unwrap());
    assert_eq!((status(&app, &old).await, status(&app, &new).await), (200, 401));
    std::fs::write(&path, json!({"keys": [jwk(&new)]}).to_string()).unwrap();
    app.engine.advance(Duration::from_secs(31));
    assert_eq!((status(&app, &new).await, status(&app, &old).await), (200, 401));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_set_comes_over_tls() {
    let of = |url: &str| KeySet::new(Algorithm::Rs256, JwksSource::Url(url.to_owned())).err();
    for good in ["https://id.example/jwks", "http://localhost:8080/x", "http://127.0.0.1/x", "http://[::1]/x"]
    {
        assert_eq!(of(good), None, "{good}");
    }
    for bad in ["http://id.example/", "ftp://127.0.0.1/", "id.example", "", "http://localhost.example/"] {
        assert_eq!(of(bad), Some(AuthError::JwksUrl), "{bad}");
    }
    let file = JwksSource::File(PathBuf::from("x"));
    assert_eq!(KeySet::new(Algorithm::Hs256, file).err(), Some(AuthError::SecretAlgorithm));
}
