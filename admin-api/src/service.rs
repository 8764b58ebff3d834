//! The router: `observe → authenticate → role → idempotency → handler`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get};
use catalog::{AdminStore, ApiKeyHasher, MasterKeys, UpstreamHosts};
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::actor::{Actor, Caller, Role};
use crate::auth::Authenticator;
use crate::change::replay_answers;
use crate::console::console_routes;
use crate::engine::Engine;
use crate::error::AdminError;
use crate::observe::observe;
use crate::{audit, explain, keys, openapi, providers, runners, secrets, usage, whoami};

/// What the API works with.
pub struct AdminParts {
    pub store: Arc<dyn AdminStore>,
    pub engine: Arc<dyn Engine>,
    /// For credentials and kept answers; without any key, nothing can be sealed.
    pub master_keys: Arc<dyn MasterKeys>,
    pub hasher: ApiKeyHasher,
    /// Where the providers of the store may lead.
    pub upstream_hosts: UpstreamHosts,
}

/// The state of every handler.
pub(crate) struct Admin {
    pub(crate) parts: AdminParts,
    access: Access,
    long_reads: Semaphore,
}

/// Requests that read much of the store, at once; others wait so long, and go when their client does.
const LONG_READS: usize = 2;
const LONG_READ_WAIT: Duration = Duration::from_secs(5);

/// How it is known who asks.
enum Access {
    Tokens(Box<Authenticator>),
    /// Everybody who reaches the router is this one.
    Local(Actor),
}

impl Admin {
    fn new(parts: AdminParts, access: Access) -> Arc<Self> {
        Arc::new(Self { parts, access, long_reads: Semaphore::new(LONG_READS) })
    }

    /// To be held by whoever reads much of the store.
    pub(crate) async fn long_read(&self) -> Result<SemaphorePermit<'_>, AdminError> {
        let turn = tokio::time::timeout(LONG_READ_WAIT, self.long_reads.acquire()).await;
        let busy =
            |_| AdminError::Unavailable("others read much of the store; try again in a moment".to_owned());
        Ok(turn.map_err(busy)?.expect("it is never closed"))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.parts.engine.unix_ms()
    }
}

/// Everything under `/admin`, for whoever has a token, and for everybody `/openapi.json`, its page and the console. Any
/// other path is answered as unknown. It sets no time limit for a request's head and body: that is the server's.
pub fn router(parts: AdminParts, authenticator: Authenticator) -> Router {
    build(&Admin::new(parts, Access::Tokens(Box::new(authenticator))))
}

/// The same routes without tokens: every request is this actor's. For programs that call it in their own process, on
/// behalf of somebody who may use the store anyhow; never to be served.
pub fn local_router(parts: AdminParts, actor: Actor) -> Router {
    build(&Admin::new(parts, Access::Local(actor)))
}

fn build(admin: &Arc<Admin>) -> Router {
    let (routes, document) = all_routes(admin).split_for_parts();
    let document = openapi::Document::new(&document);
    routes
        // Whatever is under /admin and no route is still for those who are known.
        .route("/admin", any(unknown_route))
        .route("/admin/", any(unknown_route))
        .route("/admin/{*path}", any(unknown_route))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(admin.clone(), authenticate))
        .route("/openapi.json", get(move || std::future::ready(document.answer())))
        .merge(console_routes())
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_route)
        .layer(from_fn_with_state(admin.clone(), observe))
        .with_state(admin.clone())
}

/// Every route, each with the role that it needs.
fn all_routes(admin: &Arc<Admin>) -> OpenApiRouter<Arc<Admin>> {
    Routes { admin: admin.clone(), router: OpenApiRouter::new() }
        .open_to(Role::Viewer, routes!(whoami::show_whoami))
        .open_to(Role::Viewer, routes!(providers::list_providers))
        .open_to(Role::Admin, routes!(providers::create_provider))
        .open_to(Role::Viewer, routes!(providers::show_provider))
        .open_to(
            Role::Admin,
            routes!(providers::replace_provider, providers::patch_provider, providers::delete_provider),
        )
        .open_to(Role::Admin, routes!(providers::test_provider))
        .open_to(Role::Admin, routes!(providers::rotate_credential))
        .open_to(Role::Admin, routes!(secrets::rewrap_secrets))
        .open_to(Role::Viewer, routes!(keys::list_keys))
        .open_to(Role::Admin, routes!(keys::create_key))
        .open_to(Role::Viewer, routes!(keys::show_key))
        .open_to(Role::Admin, routes!(keys::change_key, keys::revoke_key))
        .open_to(Role::Admin, routes!(keys::rotate_key))
        .open_to(Role::Viewer, routes!(runners::list_runners))
        .open_to(Role::Admin, routes!(runners::drain_runner))
        .open_to(Role::Viewer, routes!(explain::explain))
        .open_to(Role::Viewer, routes!(audit::list_audit))
        .open_to(Role::Viewer, routes!(audit::verify_log))
        .open_to(Role::Viewer, routes!(usage::show_usage))
        .router
}

/// The routes, in the making. There is no way to add one without a role, or without its place in the document.
struct Routes {
    admin: Arc<Admin>,
    router: OpenApiRouter<Arc<Admin>>,
}

impl Routes {
    fn open_to(mut self, role: Role, mut routes: UtoipaMethodRouter<Arc<Admin>>) -> Self {
        openapi::note_role(&mut routes, role);
        let routes = routes
            .layer(from_fn_with_state(self.admin.clone(), replay_answers))
            .layer(from_fn_with_state(role, require_role));
        self.router = self.router.routes(routes);
        self
    }
}

/// Who asks is known from here on, or the request goes no further.
async fn authenticate(
    State(admin): State<Arc<Admin>>,
    mut request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    let actor = match &admin.access {
        Access::Tokens(authenticator) => {
            authenticator.authenticate(request.headers(), &*admin.parts.engine).await?
        }
        Access::Local(actor) => actor.clone(),
    };
    request.extensions_mut().insert(actor.clone());
    let mut response = next.run(request).await;
    // For the log.
    response.extensions_mut().insert(actor);
    Ok(response)
}

async fn require_role(
    State(needed): State<Role>,
    Caller(actor): Caller,
    request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    actor.may(needed)?;
    Ok(next.run(request).await)
}

async fn unknown_route() -> AdminError {
    AdminError::UnknownRoute
}

async fn method_not_allowed() -> AdminError {
    AdminError::MethodNotAllowed
}
