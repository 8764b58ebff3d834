//! Which tokens are accepted, and that no route is open to any other.

use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use http::{Method, Request};
use jwt_simple::claims::JWTClaims;
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike as _, ES256KeyPair, Ed25519KeyPair, EdDSAKeyPairLike as _, HS256Key, MACLike as _,
    RS256KeyPair, RSAKeyPairLike as _,
};
use serde_json::{Value, json};

use super::*;
use crate::testing::{NOW_MS, TOKEN_SECRET, TestApp, request, with_header};

/// What signs a token in these tests.
#[expect(clippy::large_enum_variant, reason = "there are four of them")]
pub(super) enum Signer {
    Hs256(HS256Key),
    Es256(ES256KeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RS256KeyPair),
}

impl Signer {
    /// The claims as they are, whatever that is.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let claims: JWTClaims<Map<String, Value>> = serde_json::from_value(claims.clone()).unwrap();
        match self {
            Self::Hs256(key) => key.authenticate(claims),
            Self::Es256(key) => key.sign(claims),
            Self::EdDsa(key) => key.sign(claims),
            Self::Rs256(key) => key.sign(claims),
        }
        .unwrap()
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::Hs256,
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
            Self::Rs256(_) => Algorithm::Rs256,
        }
    }

    fn public_key(&self) -> [String; 2] {
        match self {
            Self::Hs256(_) => panic!("it has none"),
            Self::Es256(key) => [key.public_key().to_pem().unwrap(), key.public_key().to_jwk()],
            Self::EdDsa(key) => [key.public_key().to_pem(), key.public_key().to_jwk()],
            Self::Rs256(key) => [key.public_key().to_pem().unwrap(), key.public_key().to_jwk()],
        }
    }
}

/// Generated once: it takes long without optimisation.
fn rsa() -> RS256KeyPair {
    static PEM: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| RS256KeyPair::generate(2048).unwrap().to_pem().unwrap());
    RS256KeyPair::from_pem(&PEM).unwrap()
}

fn hs256() -> Signer {
    Signer::Hs256(HS256Key::from_bytes(TOKEN_SECRET.as_bytes()))
}

const NOW_S: u64 = NOW_MS / 1_000;

pub(super) fn claims() -> Value {
    json!({"sub": "ada", "exp": NOW_S + 600, "role": "admin"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    claims
}

/// `Ok` with actor and role, or the status and code.
async fn whoami(app: &TestApp, token: &str) -> Result<(String, String), (u16, String)> {
    let request = with_header(
        request(Method::GET, "/admin/whoami", Value::Null),
        "authorization",
        &format!("Bearer {token}"),
    );
    let reply = app.send(request).await;
    if reply.status != 200 {
        return Err((reply.status.as_u16(), reply.code().to_owned()));
    }
    let text = |name: &str| reply.body[name].as_str().unwrap().to_owned();
    Ok((text("actor"), text("role")))
}

fn app(rules: TokenRules) -> TestApp {
    TestApp::with_authenticator(Authenticator::hs256(&Secret::new(TOKEN_SECRET), rules).unwrap())
}

const INVALID: Result<(), u16> = Err(401);
const NO_ROLE: Result<(), u16> = Err(403);

#[tokio::test]
async fn claims_decide() {
    let rules = TokenRules {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("gateway".to_owned()),
        ..TokenRules::default()
    };
    let full = |name: &str, value: Value| {
        let mut full = with(name, value);
        for (name, value) in [("iss", "https://id.example"), ("aud", "gateway")] {
            full.as_object_mut().unwrap().entry(name).or_insert(value.into());
        }
        full
    };
    let app = app(rules);
    for (name, value, wanted) in [
        ("exp", json!(NOW_S + 600), Ok(())),
        ("exp", json!(NOW_S - 59), Ok(())),
        ("exp", json!(NOW_S - 61), INVALID),
        ("exp", Value::Null, INVALID),
        ("exp", json!(0), INVALID),
        ("nbf", json!(NOW_S + 59), Ok(())),
        ("nbf", json!(NOW_S + 61), INVALID),
        ("iat", json!(NOW_S + 61), INVALID),
        ("iss", json!("https://id.example/"), INVALID),
        ("aud", json!("gateways"), INVALID),
        ("aud", json!(["other"]), INVALID),
        ("aud", json!([]), INVALID),
        ("aud", json!(["other", "gateway"]), Ok(())),
        ("sub", Value::Null, INVALID),
        ("sub", json!(""), INVALID),
        ("sub", json!("a\u{1b}[31m"), INVALID),
        ("sub", json!("é".repeat(128)), Ok(())),
        ("sub", json!("é".repeat(129)), INVALID),
        ("sub", json!("program:dyad-gateway"), INVALID),
        ("role", Value::Null, NO_ROLE),
        ("role", json!("Admin"), NO_ROLE),
        ("role", json!("root"), NO_ROLE),
        ("role", json!(1), NO_ROLE),
        ("role", json!([]), NO_ROLE),
        ("role", json!({"admin": true}), NO_ROLE),
        ("role", json!(["x", 1, "viewer", "admin"]), Ok(())),
    ] {
        let token = hs256().sign(&full(name, value.clone()));
        let got = whoami(&app, &token).await.map(|_| ()).map_err(|(status, _)| status);
        assert_eq!(got, wanted, "{name}: {value}");
    }
    let missing = whoami(&app, &hs256().sign(&claims())).await;
    assert_eq!(missing, Err((401, "invalid_token".to_owned())), "neither iss nor aud");
}

#[tokio::test]
async fn the_role_may_be_elsewhere() {
    let token = |claim: Value| {
        let mut claims = with("role", json!("admin"));
        claims.as_object_mut().unwrap().extend(claim.as_object().unwrap().clone());
        hs256().sign(&claims)
    };
    for (role_claim, claim, role) in [
        ("groups", json!({"groups": ["viewer", "x"]}), Some("viewer")),
        ("realm_access.roles", json!({"realm_access": {"roles": ["admin"]}}), Some("admin")),
        ("https://x.example/role", json!({"https://x.example/role": "viewer"}), Some("viewer")),
        ("groups", json!({}), None),
        ("a.b.c", json!({"a": {"b": "admin"}}), None),
    ] {
        let app = app(TokenRules { role_claim: role_claim.to_owned(), ..TokenRules::default() });
        let got = whoami(&app, &token(claim)).await.ok().map(|(_, role)| role);
        assert_eq!(got.as_deref(), role, "{role_claim}");
    }
}

#[tokio::test]
async fn every_algorithm_takes_its_own_tokens_and_no_others() {
    let signers = || {
        [
            hs256(),
            Signer::Es256(ES256KeyPair::generate()),
            Signer::EdDsa(Ed25519KeyPair::generate()),
            Signer::Rs256(rsa()),
        ]
    };
    for signer in signers().into_iter().skip(1) {
        for key in signer.public_key() {
            let public_key = Authenticator::public_key(signer.algorithm(), &key, TokenRules::default());
            let app = TestApp::with_authenticator(public_key.unwrap());
            assert_eq!(
                whoami(&app, &signer.sign(&claims())).await,
                Ok(("ada".to_owned(), "admin".to_owned()))
            );
            // The public key, which everybody may have, as the secret of HMAC.
            for secret in [key.as_bytes(), key.trim().as_bytes()] {
                let confused = Signer::Hs256(HS256Key::from_bytes(secret)).sign(&claims());
                assert_eq!(whoami(&app, &confused).await, Err((401, "invalid_token".to_owned())));
            }
            for other in signers() {
                let is_same_key = matches!((&signer, &other), (Signer::Rs256(_), Signer::Rs256(_)));
                let got = whoami(&app, &other.sign(&claims())).await.is_ok();
                assert_eq!(got, is_same_key, "{:?} under {:?}", other.algorithm(), signer.algorithm());
            }
            // A key is for its algorithm.
            for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| *algorithm != signer.algorithm()) {
                assert!(Authenticator::public_key(algorithm, &key, TokenRules::default()).is_err());
            }
        }
    }
}

#[test]
fn weak_keys_are_refused() {
    let rules = TokenRules::default;
    let short = Authenticator::hs256(&Secret::new("x".repeat(31)), rules()).err();
    assert_eq!(short, Some(AuthError::ShortSecret(31)));
    let pem = rsa().public_key().to_pem().unwrap();
    assert_eq!(Authenticator::hs256(&Secret::new(pem), rules()).err(), Some(AuthError::KeyAsSecret));
    // RSA of 1,024 bits.
    let weak = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdlatRjRjogo3WojgGHFHYLugdUWAY9iR3fy4arWNA1KoS8kVw33cJibXr8bvwUAUparCwlvdbH6dvEOfou0/gCFQsHUfQrSDv+MuSUMAe8jzKE4qW+jK+xQU9a03GUnKHkkle+Q0pX/g6jXZ7r1/xAK5Do2kQ+X5xK9cipRgEKwIDAQAB\n-----END PUBLIC KEY-----";
    assert!(matches!(Authenticator::public_key(Algorithm::Rs256, weak, rules()), Err(AuthError::Key { .. })));
    assert!(Authenticator::public_key(Algorithm::Es256, "", rules()).is_err());
}

/// Tokens that must be accepted nowhere.
fn bad_tokens() -> Vec<(&'static str, String)> {
    use base64_url as encode;
    let good = hs256().sign(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let none =
        |alg: &str| format!("{}.{}.", encode(&json!({"alg": alg, "typ": "JWT"}).to_string()), parts[1]);
    let other_alg = |alg: &str| {
        format!("{}.{}.{}", encode(&json!({"alg": alg, "typ": "JWT"}).to_string()), parts[1], parts[2])
    };
    let admin = encode(&with("sub", json!("eve")).to_string());
    vec![
        ("expired", hs256().sign(&with("exp", json!(NOW_S - 3_600)))),
        ("not yet", hs256().sign(&with("nbf", json!(NOW_S + 3_600)))),
        ("none", none("none")),
        ("None", none("None")),
        ("none, signed", other_alg("none")),
        ("other algorithm", other_alg("RS256")),
        ("empty algorithm", other_alg("")),
        ("other secret", Signer::Hs256(HS256Key::from_bytes(&[7; 64])).sign(&claims())),
        ("other claims", format!("{}.{admin}.{}", parts[0], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.x")),
        ("cut off", good[..good.len() - 1].to_owned()),
        ("no JWT", "dgw_4fGh8kLm2pQr_secret".to_owned()),
        ("unicode", format!("{good}é")),
        ("long", "x".repeat(9 * 1024)),
        ("long header", format!("{}.{}.{}", "A".repeat(7 * 1024), parts[1], parts[2])),
    ]
}

fn base64_url(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        encoded.extend((0..=chunk.len()).map(|place| char::from(DIGITS[bits >> (18 - 6 * place) & 63])));
    }
    encoded
}

/// Every route of the document, with something in the place of its parameters.
async fn routes(app: &TestApp) -> Vec<(Method, String, Value)> {
    let document = app.get("/openapi.json").await.body;
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.starts_with("/admin") {
            let path = path.replace("{id}", "4fGh8kLm2pQr");
            for (method, operation) in item.as_object().unwrap() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                routes.push((method, path.clone(), operation["x-role"].clone()));
            }
        }
    }
    assert!(routes.len() >= 9, "{routes:?}");
    routes
}

#[tokio::test]
async fn no_route_is_open_to_a_bad_token() {
    let app = app(TokenRules::default());
    let mut paths = routes(&app).await;
    paths.push((Method::GET, "/admin".to_owned(), Value::Null));
    paths.push((Method::GET, "/admin/".to_owned(), Value::Null));
    paths.push((Method::POST, "/admin/nothing/here".to_owned(), Value::Null));
    paths.push((Method::DELETE, "/admin/whoami".to_owned(), Value::Null));
    paths.push((Method::OPTIONS, "/admin/keys".to_owned(), Value::Null));
    let good = hs256().sign(&claims());
    for (method, path, _) in paths {
        let send = async |headers: &[&[u8]]| {
            let mut request = Request::builder().method(&method).uri(&path);
            for header in headers {
                request = request.header(AUTHORIZATION, *header);
            }
            // The body would be refused, if anybody read it.
            app.send(request.body("{".into()).unwrap()).await
        };
        for none in [
            &[] as &[&[u8]],
            &[b"Basic YTpi"],
            &[b"Bearer"],
            &[b"Bearer "],
            &[good.as_bytes()],
            &[b"\xff\xfe"],
        ] {
            let refused = send(none).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (401, "missing_token"), "{method} {path}");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
            assert!(refused.header("x-request-id").starts_with("req_"));
        }
        let bearer = format!("Bearer {good}");
        let mut bad = vec![("two headers", send(&[bearer.as_bytes(), bearer.as_bytes()]).await)];
        for (name, token) in bad_tokens() {
            bad.push((name, send(&[format!("Bearer {token}").as_bytes()]).await));
        }
        for (name, refused) in bad {
            let is_unicode = name == "unicode";
            let code = if is_unicode { "missing_token" } else { "invalid_token" };
            assert_eq!((refused.status.as_u16(), refused.code()), (401, code), "{name}: {method} {path}");
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
            assert_eq!(refused.header("cache-control"), "no-store");
        }
    }
}

#[tokio::test]
async fn a_viewer_changes_nothing() {
    let app = app(TokenRules::default());
    let viewer = format!("Bearer {}", hs256().sign(&with("role", json!("viewer"))));
    let nobody = format!("Bearer {}", hs256().sign(&with("role", Value::Null)));
    for (method, path, role) in routes(&app).await {
        let send = async |token: &str| {
            app.send(with_header(request(method.clone(), &path, Value::Null), "authorization", token)).await
        };
        assert_eq!(send(&nobody).await.code(), "insufficient_role", "{method} {path}");
        let reads = method == Method::GET || path == "/admin/explain";
        assert_eq!(role, if reads { "viewer" } else { "admin" }, "{method} {path}");
        let is_refused = send(&viewer).await.code() == "insufficient_role";
        assert_eq!(is_refused, !reads, "{method} {path}");
    }
}

#[tokio::test]
async fn minted_tokens_are_accepted_until_they_end() {
    let app = app(TokenRules::default());
    let secret = Secret::new(TOKEN_SECRET);
    let token = mint(&secret, "ada", Role::Viewer, NOW_MS, Duration::from_secs(3_600)).unwrap();
    assert_eq!(whoami(&app, token.expose()).await, Ok(("ada".to_owned(), "viewer".to_owned())));
    app.engine.advance(Duration::from_secs(3_600 + 61));
    assert!(whoami(&app, token.expose()).await.is_err());
}

#[tokio::test]
async fn a_local_router_needs_no_token() {
    let app = TestApp::local(Actor::local_admin("cli:ada"));
    let reply = app.get("/admin/whoami").await;
    assert_eq!(reply.body, json!({"actor": "cli:ada", "role": "admin", "expiresAt": null}));
}
