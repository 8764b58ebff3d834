//! `/admin/providers`: what upstreams and CLIs there are.

mod known;
pub(crate) mod parse;
mod rotate;
mod schema;
mod test;
mod view;
mod wire;

use std::sync::Arc;

use axum::extract::State;
use catalog::{
    Action, CheckReport, Failure, HealthState, ProviderId, ProviderSlug, SealError, StoredProvider, Versioned,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::answer::Answer;
use crate::body::Body;
use crate::change::{Change, IfMatch, Race, fill_random};
use crate::credentials::{self, NewCredential, opened, with_credential};
use crate::error::AdminError;
use crate::members::merge;
use crate::path::Named;
use crate::query::{List, Query};
use crate::service::Admin;
use known::{Known, OneOf};
use parse::{Written, WrittenCredential};
pub(crate) use rotate::rotate_credential;
pub(crate) use test::test_provider;
use view::{CheckView, ProviderView};
use wire::{ProviderInput, ProviderPatch};

// The macro's paths are found beside the handlers.
pub(crate) use rotate::__path_rotate_credential;
pub(crate) use test::__path_test_provider;

/// The body that creates this provider, or replaces one: for programs that have it in another form. Nothing of its
/// credential is in it.
pub fn provider_body(provider: &catalog::Provider) -> Value {
    serde_json::to_value(ProviderInput::of(provider)).expect("all of its members have names")
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the schema of what `Named` reads")]
pub(crate) struct ProviderParam {
    /// The provider's id or slug
    #[param(example = "vendor-eu")]
    id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "the schema of what the handlers read")]
struct DryRunParam {
    /// Checks everything, reaches for the upstream, and changes nothing
    dry_run: Option<bool>,
}

/// What came of a dry run.
#[derive(Serialize, ToSchema)]
struct DryRun {
    /// Always true: what is wrong is an error.
    valid: bool,
    reachable: CheckView,
    /// What may not be meant so.
    warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema of what the handlers answer")]
enum ProviderOrDryRun {
    Provider(Box<ProviderView>),
    DryRun(DryRun),
}

/// Which providers a list is to have.
#[derive(Clone, Copy)]
enum StateFilter {
    Enabled(bool),
    Health(HealthState),
}

impl StateFilter {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "enabled" => Some(Self::Enabled(true)),
            "disabled" => Some(Self::Enabled(false)),
            _ => HealthState::ALL.into_iter().find(|state| state.as_str() == text).map(Self::Health),
        }
    }

    fn admits(self, provider: &ProviderView) -> bool {
        match self {
            Self::Enabled(enabled) => provider.enabled == enabled,
            Self::Health(state) => provider.health.state == state.as_str(),
        }
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
struct FilterParams {
    /// Of this type alone
    #[param(rename = "type", pattern = "^(proxy|local|spawn-cli)$")]
    kind: Option<String>,
    /// Of this state alone
    #[param(pattern = "^(enabled|disabled|unknown|healthy|degraded|down)$")]
    state: Option<String>,
    /// Of this origin alone
    #[param(pattern = "^(store|given)$")]
    origin: Option<String>,
}

/// The text if it is one of these.
fn one_of(known: &[&'static str]) -> impl Fn(&str) -> Option<&'static str> {
    move |text| known.iter().copied().find(|known| *known == text)
}

/// List the providers
///
/// By slug, with those that were given on the command line, in a file or by the surroundings, which cannot be changed here.
#[utoipa::path(
    get, path = "/admin/providers", tag = "providers",
    params(FilterParams, crate::openapi::PageParams),
    responses((status = 200, body = List<ProviderView>)),
)]
pub(crate) async fn list_providers(
    State(admin): State<Arc<Admin>>,
    mut query: Query,
) -> Result<Answer, AdminError> {
    let kind = query.read("type", "proxy, local or spawn-cli", one_of(&["proxy", "local", "spawn-cli"]));
    let wanted = "enabled, disabled, unknown, healthy, degraded or down";
    let state = query.read("state", wanted, StateFilter::parse);
    let origin = query.read("origin", "store or given", one_of(&["store", "given"]));
    let page = query.page();
    query.finish()?;
    if page.cursor.as_deref().is_some_and(|cursor| ProviderSlug::parse(cursor).is_err()) {
        return Err(AdminError::InvalidCursor);
    }
    let is_wanted = |provider: &ProviderView| {
        kind.is_none_or(|kind| provider.kind == kind)
            && state.is_none_or(|state| state.admits(provider))
            && origin.is_none_or(|origin| provider.origin == origin)
    };
    let all = Known::read(&admin).await?.all();
    let wanted = all.into_iter().filter(is_wanted).collect();
    Answer::ok(&List::page_of(wanted, &page, |provider| provider.slug.clone()))
}

/// Show a provider
#[utoipa::path(
    get, path = "/admin/providers/{id}", tag = "providers",
    params(ProviderParam),
    responses((status = 200, body = ProviderView)),
)]
pub(crate) async fn show_provider(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    query: Query,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let known = Known::read(&admin).await?;
    let one = known.find(&name)?;
    let answer = Answer::ok(&known.show(one))?;
    Ok(match one {
        OneOf::Stored(stored) => answer.with_version(stored.version),
        OneOf::Given(_) => answer,
    })
}

/// Create a provider
///
/// It serves within seconds, on every instance. A credential is sealed before it is stored, and never shown again.
#[utoipa::path(
    post, path = "/admin/providers", tag = "providers",
    params(DryRunParam),
    request_body = ProviderInput,
    responses(
        (status = 201, description = "It is stored", body = ProviderView),
        (status = 200, description = "With `dryRun`: it could be stored", body = DryRun),
    ),
)]
pub(crate) async fn create_provider(
    State(admin): State<Arc<Admin>>,
    change: Change,
    mut query: Query,
    Body(body): Body,
) -> Result<Answer, AdminError> {
    let is_dry_run = query.flag("dryRun");
    query.finish()?;
    let written = parse::provider(body)?;
    let slug = &written.provider.slug;
    let mut id = [0; 16];
    fill_random(&mut id);
    let by = change.unanswered(Action::Create);
    let mut stored = StoredProvider::new(ProviderId::from_random(&id), written.provider.clone(), &by);
    let mut race = Race::new(IfMatch::Any);
    loop {
        let known = Known::read(&admin).await?;
        known.check_readable(slug.as_str())?;
        if known.has_stored(slug) {
            return Err(AdminError::AlreadyExists(format!("a provider with the slug {slug}")));
        }
        known.check(&admin, &written, None)?;
        if is_dry_run {
            return dry_run(&admin, &known, &written, &stored).await;
        }
        // Sealed anew for another attempt: which is as good.
        credentials::replace(&admin, &mut stored, &written.credential, change.at_ms).await?;
        let made = Versioned { value: stored.clone(), version: 1 };
        let answer = Answer::new(StatusCode::CREATED, &known.show(OneOf::Stored(&made)))?
            .with_version(1)
            .with_location(format!("/admin/providers/{}", stored.id));
        let by = change.by(Action::Create, &answer).await?;
        match admin.parts.store.put_provider(&stored, None, &by).await {
            Ok(_) => return Ok(answer),
            Err(error) => race.lost(error)?,
        }
    }
}

/// Replace a provider
///
/// What is not given gets its default, but for the credential, which stays. `slug` and `type` cannot be changed. Where the
/// base URL leads to another scheme, host or port, a sealed credential has to be given again.
#[utoipa::path(
    put, path = "/admin/providers/{id}", tag = "providers",
    params(ProviderParam, DryRunParam, crate::openapi::IfMatchParam),
    request_body = ProviderInput,
    responses((status = 200, description = "As it is now; with `dryRun`: it could be stored", body = ProviderOrDryRun)),
)]
pub(crate) async fn replace_provider(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
    Body(body): Body,
) -> Result<Answer, AdminError> {
    update(&admin, &name, &change, if_match, query, |before| {
        let mut body = body.clone();
        // What cannot be changed need not be repeated.
        if let Value::Object(members) = &mut body {
            members.entry("slug").or_insert_with(|| json!(before.provider.slug.as_str()));
        }
        parse::provider(body)
    })
    .await
}

/// Change a provider
///
/// A merge patch (RFC 7396): members that are not given stay as they are, null gives them their default, lists are replaced
/// as a whole. `{"enabled": false}` takes the provider out of every instance within ten seconds; requests under way finish.
#[utoipa::path(
    patch, path = "/admin/providers/{id}", tag = "providers",
    params(ProviderParam, DryRunParam, crate::openapi::IfMatchParam),
    request_body(content((ProviderPatch = "application/json"), (ProviderPatch = "application/merge-patch+json"))),
    responses((status = 200, description = "As it is now; with `dryRun`: it could be stored", body = ProviderOrDryRun)),
)]
pub(crate) async fn patch_provider(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
    Body(patch): Body,
) -> Result<Answer, AdminError> {
    if !patch.is_object() {
        return Err(AdminError::invalid("", "must be an object"));
    }
    update(&admin, &name, &change, if_match, query, |before| {
        let written = serde_json::to_value(ProviderInput::of(&before.provider));
        let mut merged = written.map_err(|error| AdminError::Internal(error.to_string()))?;
        merge(&mut merged, &patch);
        parse::provider(merged)
    })
    .await
}

/// Makes of a provider what `read` says, given what it was.
async fn update(
    admin: &Admin,
    name: &str,
    change: &Change,
    if_match: IfMatch,
    mut query: Query,
    read: impl Fn(&StoredProvider) -> Result<Written, AdminError>,
) -> Result<Answer, AdminError> {
    let is_dry_run = query.flag("dryRun");
    query.finish()?;
    let mut race = Race::new(if_match);
    loop {
        let known = Known::read(admin).await?;
        let Versioned { value: before, version } = known.find_stored(name)?;
        race.check(*version)?;
        let written = read(before)?;
        known.check(admin, &written, Some(before))?;
        if is_dry_run {
            return dry_run(admin, &known, &written, before).await;
        }
        let mut after = before.clone();
        let credential = after.provider.credential;
        after.provider = written.provider;
        after.provider.credential = credential;
        after.history.updated_at_ms = change.at_ms;
        credentials::replace(admin, &mut after, &written.credential, change.at_ms).await?;
        match store(admin, &known, change, Action::Update, after, *version).await {
            Ok(answer) => return Ok(answer),
            Err(NotStored::Refused(error)) => return Err(error),
            Err(NotStored::Store(error)) => race.lost(error)?,
        }
    }
}

/// Why a change was not stored.
enum NotStored {
    Refused(AdminError),
    Store(catalog::StoreError),
}

/// Writes the successor of a record that is at `version`, and shows it.
async fn store(
    admin: &Admin,
    known: &Known,
    change: &Change,
    action: Action,
    after: StoredProvider,
    version: u64,
) -> Result<Answer, NotStored> {
    let after = Versioned { value: after, version: version + 1 };
    let shown = Answer::ok(&known.show(OneOf::Stored(&after)));
    let answer = shown.map_err(NotStored::Refused)?.with_version(after.version);
    let by = change.by(action, &answer).await.map_err(NotStored::Refused)?;
    let written = admin.parts.store.put_provider(&after.value, Some(version), &by).await;
    written.map(|_| answer).map_err(NotStored::Store)
}

/// Delete a provider
///
/// It gets no more requests; those under way finish.
#[utoipa::path(
    delete, path = "/admin/providers/{id}", tag = "providers",
    params(ProviderParam, crate::openapi::IfMatchParam),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_provider(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let mut race = Race::new(if_match);
    loop {
        let known = Known::read(&admin).await?;
        let Versioned { value: before, version } = known.find_stored(&name)?;
        race.check(*version)?;
        let answer = Answer::no_content();
        let by = change.by(Action::Delete, &answer).await?;
        match admin.parts.store.delete_provider(&before.provider.slug, *version, &by).await {
            Ok(()) => return Ok(answer),
            Err(error) => race.lost(error)?,
        }
    }
}

/// Whether what was written could be reached, in the place of `record`. It is valid by now.
async fn dry_run(
    admin: &Admin,
    known: &Known,
    written: &Written,
    record: &StoredProvider,
) -> Result<Answer, AdminError> {
    let provider = match &written.credential {
        WrittenCredential::Unsaid => {
            let mut after = record.clone();
            after.provider = written.provider.clone();
            after.provider.credential = record.provider.credential.clone();
            opened(admin, &after).await
        }
        WrittenCredential::Removed => Ok(written.provider.clone()),
        WrittenCredential::Reference(reference) => {
            Ok(with_credential(&written.provider, NewCredential::Reference(reference)))
        }
        WrittenCredential::Given(secret) => {
            Ok(with_credential(&written.provider, NewCredential::Given(secret)))
        }
    };
    let warnings = known.warnings(provider.as_ref().unwrap_or(&written.provider), Some(&record.id));
    let reachable = check(admin, provider).await.into();
    Answer::ok(&DryRun { valid: true, reachable, warnings })
}

/// Reaches for a provider, if its credential opened.
async fn check(admin: &Admin, provider: Result<catalog::Provider, SealError>) -> CheckReport {
    match provider {
        Ok(provider) => admin.parts.engine.check(&provider).await,
        Err(error) => {
            CheckReport { at_ms: admin.now_ms(), duration_ms: 0, outcome: Err(does_not_open(&error)) }
        }
    }
}

fn does_not_open(error: &SealError) -> Failure {
    Failure {
        class: "unusable".to_owned(),
        message: format!("the sealed credential cannot be used: {error}"),
        advice: "add the master key that it is sealed under to the master keys, or give the credential again"
            .to_owned(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
