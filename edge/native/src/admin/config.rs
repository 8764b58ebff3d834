//! `[admin]` of the configuration file, and its variables: whether the administration is served, and whose tokens count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use admin_api::{Algorithm, Authenticator, JwksSource, TokenRules};
use catalog::{CredentialRef, Secret, Violation, Violations};
use toml::Value;

use crate::credential;
use crate::store_location::secret_reference;

/// Each also as a variable, which counts before the file: `DYAD_ADMIN_` and the name in capitals.
const KNOWN: [&str; 9] = [
    "enabled",
    "jwt_algorithm",
    "jwt_secret",
    "jwt_public_key",
    "jwks",
    "issuer",
    "audience",
    "leeway_s",
    "role_claim",
];
/// Of one of these the tokens' keys come.
const KEYS: [&str; 3] = ["jwt_secret", "jwt_public_key", "jwks"];
const MAX_LEEWAY_S: u64 = 600;
const MAX_TEXT_CHARS: usize = 512;

/// `[admin]` as far as it is right by itself: its texts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminSection(BTreeMap<&'static str, String>);

/// How the administration is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminConfig {
    is_enabled: bool,
    /// `None` where nothing is said of tokens: a data directory has a secret of its own, a table has none.
    tokens: Option<Tokens>,
}

/// Which tokens count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tokens {
    key: TokenKey,
    rules: TokenRules,
}

/// What the tokens are verified with. The algorithm is said here, and never taken from a token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenKey {
    /// HS256. Called by the name of its giver.
    Secret {
        secret: CredentialRef,
        name: String,
    },
    /// In PEM or as a JWK.
    PublicKey {
        algorithm: Algorithm,
        file: PathBuf,
        name: String,
    },
    Jwks {
        algorithm: Algorithm,
        source: JwksSource,
        name: String,
    },
}

/// Who may administer a gateway.
pub(crate) enum Access {
    /// Nobody: no route is there.
    Off,
    /// Whoever has a token that its data directory's secret signed; nobody on a table, which has no such secret.
    Own,
    Tokens(Box<Authenticator>),
}

/// The checked form of `[admin]`, as far as it is right by itself.
pub(crate) fn check(value: Value, violations: &mut Violations) -> AdminSection {
    let mut note = |path: String, message: String| violations.0.push(Violation { path, message });
    let Value::Table(table) = value else {
        note("admin".to_owned(), "must be a table: write [admin]".to_owned());
        return AdminSection::default();
    };
    let mut section = AdminSection::default();
    for (name, value) in table {
        let path = format!("admin.{name}");
        let Some(name) = KNOWN.into_iter().find(|known| *known == name) else {
            note(path, format!("unknown key; known are {}", KNOWN.join(", ")));
            continue;
        };
        let text = match (name, value) {
            ("enabled", Value::Boolean(is_enabled)) => Ok(is_enabled.to_string()),
            ("enabled", _) => Err("must be true or false"),
            ("leeway_s", Value::Integer(seconds)) => Ok(seconds.to_string()),
            ("leeway_s", _) => Err("must be a number of seconds"),
            ("jwt_secret", Value::String(text)) if secret_reference(&text).is_none() => {
                Err("must be \"env:NAME\" or \"file:PATH\": the secret itself does not belong here")
            }
            (_, Value::String(text)) if !text.is_empty() => Ok(text),
            _ => Err("must be a text that is not empty"),
        };
        match text {
            Ok(text) => {
                section.0.insert(name, text);
            }
            Err(message) => note(path, message.to_owned()),
        }
    }
    section
}

/// A value and what its giver calls it.
struct Named {
    value: String,
    name: String,
    is_variable: bool,
}

/// All of it: variable before file. The error has a line for each thing to mend.
pub(crate) fn settle(
    section: &AdminSection,
    get: impl Fn(&str) -> Option<String>,
) -> Result<AdminConfig, Vec<String>> {
    let named = |name: &'static str| {
        let variable = format!("DYAD_ADMIN_{}", name.to_ascii_uppercase());
        match get(&variable).filter(|value| !value.is_empty()) {
            Some(value) => Some(Named { value, name: variable, is_variable: true }),
            None => section.0.get(name).map(|value| Named {
                value: value.clone(),
                name: format!("[admin] {name}"),
                is_variable: false,
            }),
        }
    };
    let mut problems = Vec::new();
    let is_enabled = match named("enabled") {
        None => true,
        Some(given) => given.value.parse().unwrap_or_else(|_| {
            problems.push(format!("{}: must be true or false", given.name));
            true
        }),
    };
    let mut rules = TokenRules::default();
    let leeway = named("leeway_s").and_then(|given| {
        let seconds = given.value.parse().ok().filter(|seconds| *seconds <= MAX_LEEWAY_S);
        if seconds.is_none() {
            problems.push(format!("{}: must be a number of seconds from 0 to {MAX_LEEWAY_S}", given.name));
        }
        seconds.map(Duration::from_secs)
    });
    let mut text = |name| {
        let given = named(name)?;
        if given.value.chars().count() > MAX_TEXT_CHARS || given.value.chars().any(char::is_control) {
            problems.push(format!(
                "{}: must be at most {MAX_TEXT_CHARS} characters without control characters",
                given.name
            ));
        }
        Some(given.value)
    };
    let (issuer, audience, role_claim) = (text("issuer"), text("audience"), text("role_claim"));
    let key = match token_key(named("jwt_algorithm"), KEYS.map(named), &mut problems) {
        Some(TokenKey::Jwks { .. }) if audience.is_none() => {
            problems.push(
                "DYAD_ADMIN_AUDIENCE or [admin] audience: is required with jwks, whose keys sign tokens for others too"
                    .to_owned(),
            );
            None
        }
        Some(key) => Some(key),
        None => {
            let in_vain: Vec<_> =
                ["issuer", "audience", "role_claim"].into_iter().filter_map(named).collect();
            if problems.is_empty() && !in_vain.is_empty() {
                let names: Vec<_> = in_vain.into_iter().map(|given| given.name).collect();
                problems.push(format!("{}: of tokens that nothing verifies; {ONE_KEY}", names.join(", ")));
            }
            None
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    rules.leeway = leeway.unwrap_or(rules.leeway);
    rules.role_claim = role_claim.unwrap_or(rules.role_claim);
    let rules = TokenRules { issuer, audience, ..rules };
    Ok(AdminConfig { is_enabled, tokens: key.map(|key| Tokens { key, rules }) })
}

impl AdminConfig {
    /// The secret of the tokens that count, and what they must say; `None` where nothing is said of them. `Err` where
    /// they are signed elsewhere.
    pub(crate) fn signing(self) -> Result<Option<(Secret, TokenRules)>, String> {
        match self.tokens {
            None => Ok(None),
            Some(Tokens { key: TokenKey::Secret { secret, name }, rules }) => {
                Ok(Some((read_secret(&secret, &name)?, rules)))
            }
            Some(Tokens { key: TokenKey::PublicKey { name, .. } | TokenKey::Jwks { name, .. }, .. }) => {
                Err(format!("{name} has public keys only: whoever has the private one makes the tokens"))
            }
        }
    }

    /// Reads the keys. `Err` says what is wrong with them.
    pub(crate) fn access(self) -> Result<Access, String> {
        let Self { is_enabled: true, tokens } = self else { return Ok(Access::Off) };
        let Some(Tokens { key, rules }) = tokens else { return Ok(Access::Own) };
        let read = |file: &Path| {
            credential::read_file(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
        };
        let (authenticator, name) = match key {
            TokenKey::Secret { secret, name } => {
                (Authenticator::hs256(&read_secret(&secret, &name)?, rules), name)
            }
            TokenKey::PublicKey { algorithm, file, name } => {
                let key = read(&file).map_err(|reason| format!("{name}: {reason}"))?;
                (Authenticator::public_key(algorithm, &key, rules), name)
            }
            TokenKey::Jwks { algorithm, source, name } => {
                if let JwksSource::File(file) = &source {
                    read(file).map_err(|reason| format!("{name}: {reason}"))?;
                }
                (Authenticator::jwks(algorithm, source, rules), name)
            }
        };
        authenticator
            .map(|authenticator| Access::Tokens(Box::new(authenticator)))
            .map_err(|error| format!("{name}: {error}"))
    }
}

fn read_secret(secret: &CredentialRef, name: &str) -> Result<Secret, String> {
    let read = credential::read(secret).map_err(|reason| format!("{name}: {reason}"))?;
    read.ok_or_else(|| format!("{name}: there is none"))
}

const ONE_KEY: &str =
    "set one of DYAD_ADMIN_JWT_SECRET, DYAD_ADMIN_JWT_PUBLIC_KEY and DYAD_ADMIN_JWKS, or the like in [admin]";

fn token_key(
    algorithm: Option<Named>,
    keys: [Option<Named>; 3],
    problems: &mut Vec<String>,
) -> Option<TokenKey> {
    let given: Vec<&str> = keys.iter().flatten().map(|given| given.name.as_str()).collect();
    if given.len() > 1 {
        problems.push(format!("{}: only one of them can verify the tokens", given.join(" and ")));
        return None;
    }
    let [secret, public_key, jwks] = keys;
    if let Some(secret) = secret {
        if let Some(other) = algorithm.filter(|algorithm| algorithm.value != "HS256") {
            problems.push(format!("{}: with {} it is HS256", other.name, secret.name));
        }
        let reference = if secret.is_variable {
            if secret_reference(&secret.value).is_some() {
                problems.push(format!("{}: holds the secret itself, not where it is", secret.name));
                return None;
            }
            CredentialRef::Env(secret.name.clone())
        } else {
            secret_reference(&secret.value).expect("the section was checked")
        };
        return Some(TokenKey::Secret { secret: reference, name: secret.name });
    }
    let given = public_key.as_ref().or(jwks.as_ref()).map(|given| given.name.clone());
    let Some(given) = given else {
        if let Some(algorithm) = algorithm {
            problems.push(format!("{}: of tokens that nothing verifies; {ONE_KEY}", algorithm.name));
        }
        return None;
    };
    let algorithm = match algorithm {
        None => {
            problems.push(format!(
                "DYAD_ADMIN_JWT_ALGORITHM or [admin] jwt_algorithm: is required with {given}: ES256, EdDSA or RS256"
            ));
            return None;
        }
        Some(given_algorithm) => match Algorithm::parse(&given_algorithm.value) {
            Some(algorithm) if algorithm != Algorithm::Hs256 => algorithm,
            _ => {
                problems.push(format!("{}: with {given} it is ES256, EdDSA or RS256", given_algorithm.name));
                return None;
            }
        },
    };
    match (public_key, jwks) {
        (Some(given), _) => {
            Some(TokenKey::PublicKey { algorithm, file: given.value.into(), name: given.name })
        }
        (None, Some(jwks)) => {
            let source = if jwks.value.contains("://") {
                JwksSource::Url(jwks.value)
            } else {
                JwksSource::File(jwks.value.into())
            };
            Some(TokenKey::Jwks { algorithm, source, name: jwks.name })
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    fn section(text: &str) -> Result<AdminSection, Vec<String>> {
        let table: Table = text.parse().unwrap();
        let mut violations = Violations(Vec::new());
        let section = check(table["admin"].clone(), &mut violations);
        let lines: Vec<_> = violations.0.iter().map(ToString::to_string).collect();
        if lines.is_empty() { Ok(section) } else { Err(lines) }
    }

    fn settled(text: &str, variables: &[(&str, &str)]) -> Result<AdminConfig, Vec<String>> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        settle(&section(&format!("[admin]\n{text}")).unwrap(), get)
    }

    #[test]
    fn nothing_said_is_served_and_names_no_key() {
        assert_eq!(settled("", &[]), Ok(AdminConfig { is_enabled: true, tokens: None }));
        assert!(!settled("enabled = false", &[]).unwrap().is_enabled);
        assert!(settled("enabled = false", &[("DYAD_ADMIN_ENABLED", "true")]).unwrap().is_enabled);
    }

    #[test]
    fn a_variable_counts_before_the_file_each_by_itself() {
        let file =
            "jwt_algorithm = \"ES256\"\njwks = \"https://id.example/keys\"\naudience = \"a\"\nleeway_s = 5";
        let tokens = settled(file, &[("DYAD_ADMIN_AUDIENCE", "b"), ("DYAD_ADMIN_JWKS", "/etc/jwks.json")]);
        let tokens = tokens.unwrap().tokens.unwrap();
        let expected = TokenRules {
            audience: Some("b".to_owned()),
            leeway: Duration::from_secs(5),
            ..TokenRules::default()
        };
        assert_eq!(tokens.rules, expected);
        let source = JwksSource::File("/etc/jwks.json".into());
        let name = "DYAD_ADMIN_JWKS".to_owned();
        assert_eq!(tokens.key, TokenKey::Jwks { algorithm: Algorithm::Es256, source, name });
        let reference = |config: AdminConfig| match config.tokens.unwrap().key {
            TokenKey::Secret { secret, .. } => secret,
            other => panic!("{other:?}"),
        };
        let secret = settled("jwt_secret = \"file:/run/s\"", &[]).unwrap();
        assert_eq!(reference(secret), CredentialRef::File("/run/s".to_owned()));
        let secret = settled("jwt_secret = \"file:/run/s\"", &[("DYAD_ADMIN_JWT_SECRET", "x")]).unwrap();
        assert_eq!(reference(secret), CredentialRef::Env("DYAD_ADMIN_JWT_SECRET".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_the_section_is_said_at_once() {
        let wrong = "[admin]\nenabled = \"yes\"\nleeway_s = \"5\"\njwt_secret = \"hunter2\"\nissuer = \"\"\ncolour = 1";
        let found = section(wrong).unwrap_err();
        let all = found.join("\n");
        for name in ["enabled", "leeway_s", "jwt_secret", "issuer", "colour"] {
            assert!(all.contains(&format!("admin.{name}: ")), "{all}");
        }
        assert_eq!(found.len(), 5);
        assert!(!all.contains("hunter2"), "{all}");
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        for (text, variables, words) in [
            ("leeway_s = 601", &[][..], "[admin] leeway_s: "),
            ("leeway_s = -1", &[], "[admin] leeway_s: "),
            ("", &[("DYAD_ADMIN_ENABLED", "maybe")], "DYAD_ADMIN_ENABLED: "),
            ("issuer = \"i\"", &[], "[admin] issuer: of tokens that nothing verifies"),
            ("jwt_algorithm = \"RS256\"", &[], "nothing verifies"),
            ("jwt_public_key = \"k.pem\"", &[], "jwt_algorithm: is required with [admin] jwt_public_key"),
            ("jwt_public_key = \"k.pem\"\njwt_algorithm = \"HS256\"", &[], "it is ES256, EdDSA or RS256"),
            ("jwt_public_key = \"k.pem\"\njwt_algorithm = \"none\"", &[], "it is ES256, EdDSA or RS256"),
            ("jwt_secret = \"env:A\"\njwt_algorithm = \"ES256\"", &[], "it is HS256"),
            ("jwt_secret = \"env:A\"", &[("DYAD_ADMIN_JWKS", "/k")], "only one of them"),
            ("jwks = \"https://a/k\"\njwt_algorithm = \"RS256\"", &[], "audience: is required with jwks"),
            ("jwt_secret = \"env:A\"\naudience = \"a\\nb\"", &[], "[admin] audience: "),
        ] {
            let found = settled(text, variables).unwrap_err();
            assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_named_by_their_giver() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("k");
        std::fs::write(&file, "no key").unwrap();
        let file = file.to_str().unwrap();
        let with_file = [("DYAD_ADMIN_JWT_PUBLIC_KEY", file), ("DYAD_ADMIN_JWT_ALGORITHM", "ES256")];
        for (text, variables, words) in [
            ("jwks = \"http://id.example/k\"", &[][..], "[admin] jwks: "),
            ("jwks = \"ftp://id.example/k\"", &[], "[admin] jwks: "),
            ("jwks = \"/no/such\"", &[], "[admin] jwks: /no/such cannot be read"),
            ("", &with_file, "DYAD_ADMIN_JWT_PUBLIC_KEY: "),
            (&format!("jwt_secret = \"file:{file}\""), &[], "[admin] jwt_secret: a secret for HS256"),
            ("jwt_secret = \"file:/no/such\"", &[], "[admin] jwt_secret: the file /no/such"),
        ] {
            let is_set = text.starts_with("jwks");
            let of_set = if is_set { "audience = \"a\"\njwt_algorithm = \"RS256\"\n" } else { "" };
            let error = settled(&format!("{of_set}{text}"), variables).unwrap().access().err().unwrap();
            assert!(error.starts_with(words) && !error.contains("no key"), "{text}: {error}");
        }
    }
}
