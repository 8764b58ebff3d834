//! What a CLI's container is made of.

use toml::Value;

use super::Fields;
use super::fields::text;
use super::model::Image;

const TAG_ADVICE: &str = "must be a digest, NAME@sha256:… or sha256:… ('docker inspect --format {{.Id}} NAME' prints it): \
    what a tag means can change; for an image that was built on this host write { local = \"NAME:TAG\" }, to build it { build = \"FOLDER\" }";

/// `image`: a digest, or a table with one of `build` (and perhaps `tag`), `local` or `builtin`.
pub(super) fn image(fields: &mut Fields<'_>, cli_name: Option<&str>) -> Option<Image> {
    if fields.is_table("image") {
        return fields.table("image", |fields| image_table(fields, cli_name)).flatten();
    }
    let missing =
        "\"NAME@sha256:…\", { build = \"FOLDER\" }, { local = \"NAME:TAG\" } or { builtin = \"echo\" }";
    fields.required("image", missing, digest)
}

fn digest(value: &Value) -> Result<Image, String> {
    let text = text(value)?;
    let (name, digest) = text.rsplit_once('@').unwrap_or(("", text));
    let is_digest = digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    let is_named = !text.contains('@') || is_reference(name);
    if is_digest && is_named { Ok(Image::Digest(text.to_owned())) } else { Err(TAG_ADVICE.to_owned()) }
}

fn image_table(fields: &mut Fields<'_>, cli_name: Option<&str>) -> Option<Image> {
    let context = fields.path("build");
    let tag = fields.parsed("tag", reference);
    let local = fields.parsed("local", reference);
    let builtin = fields.word("builtin", &[("echo", ())]);
    let kinds = ["build", "local", "builtin"].iter().filter(|name| fields.has(name)).count();
    if kinds != 1 {
        fields.violation("", "must have exactly one of build, local and builtin");
    }
    if fields.has("tag") && !fields.has("build") {
        fields.violation("tag", "is the name that a built image gets: it goes with build");
    }
    let build = context.zip(tag.or_else(|| cli_name.map(|name| format!("dyad-runner/{name}:local"))));
    build
        .map(|(context, tag)| Image::Build { context, tag })
        .or(local.map(Image::Local))
        .or(builtin.map(|()| Image::Echo))
}

fn reference(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    let rule = "must be NAME or NAME:TAG, the name in lower case";
    if is_reference(text) { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

/// `[HOST[:PORT]/]PATH[:TAG]`, as far as the runner must know: no digest, and nothing that could be taken for an
/// option or a path (`distribution/reference`).
fn is_reference(text: &str) -> bool {
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let is_word = |text: &str, extra: &[u8]| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
        _ => (None, name),
    };
    text.len() <= 255
        && host.is_none_or(|host| is_word(host, b".-:"))
        && path.split('/').all(|part| is_word(part, b"._-") && !part.bytes().any(|b| b.is_ascii_uppercase()))
        && tag.is_none_or(|tag| tag.len() <= 128 && is_word(tag, b"._-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for text in [
            "claude",
            "dyad/claude:1.2",
            "localhost:5000/a",
            "registry.example.com/Team".to_lowercase().as_str(),
            "a/b/c:v_1-x",
        ] {
            assert!(is_reference(text), "{text}");
        }
        for text in
            ["", "-a", "Claude", "a:", "a:b:c", "a//b", "../a", "a b", "a@sha256:0", "/a", "a/", ":a", "a:-x"]
        {
            assert!(!is_reference(text), "{text}");
        }
    }

    #[test]
    fn only_whole_digests_are_digests() {
        let hex = "0123456789abcdef".repeat(4);
        for text in [format!("sha256:{hex}"), format!("a.example.com/b:1@sha256:{hex}")] {
            assert_eq!(digest(&Value::String(text.clone())), Ok(Image::Digest(text)));
        }
        for text in [
            "claude:latest".to_owned(),
            "sha256:abc".to_owned(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("@sha256:{hex}"),
            format!("a b@sha256:{hex}"),
            format!("sha512:{hex}"),
            hex,
        ] {
            assert!(digest(&Value::String(text.clone())).is_err(), "{text}");
        }
    }
}
