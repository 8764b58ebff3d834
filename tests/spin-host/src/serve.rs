//! The component on Wasmtime, behind an HTTP server.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Sleep;
use wasmtime::component::{Component, ComponentType, GuestTaskId, Linker, Lower, ResourceTable};
use wasmtime::{Cache, CacheConfig, Config, Engine, Result, Store, StoreContextMut};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::outbound::Outbound;

/// Spin's defaults.
const REQUESTS_PER_INSTANCE: usize = 128;
const REQUESTS_AT_ONCE: usize = 16;

/// Serves until Ctrl-C or SIGTERM, which end the process at once: an instance that was dropped at its work would count as
/// one that failed.
pub(crate) async fn serve(service: Service, address: SocketAddr) -> Result<()> {
    let handler = ProxyHandler::new(service);
    let listener = TcpListener::bind(address).await?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    say(&format!("Serving http://{}", listener.local_addr()?));
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = interrupted.recv() => process::exit(0),
            _ = terminated.recv() => process::exit(0),
        };
        stream.set_nodelay(true)?;
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(handler.clone(), request));
            // A client that is gone is no news.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    handler: ProxyHandler<Service>,
    request: http::Request<Incoming>,
) -> Result<Response<WasiBody>, Infallible> {
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    Ok(handler.handle((), request).await.unwrap_or_else(|error| {
        say(&format!("the component failed: {error:?}"));
        let mut response = Response::new(WasiBody::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

fn say(line: &str) {
    use io::Write as _;
    // Nobody could be told.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Makes instances of the component.
pub(crate) struct Service {
    component: ServicePre<Host>,
    outbound: Outbound,
    idle: Duration,
}

impl Service {
    /// Compiles the component, unless it is in Wasmtime's cache.
    pub(crate) fn new(
        component: &Path,
        variables: HashMap<String, String>,
        outbound: Outbound,
        idle: Duration,
    ) -> Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.cache(Some(Cache::new(CacheConfig::new())?));
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        add_variables(&mut linker, variables)?;
        let component = linker.instantiate_pre(&Component::from_file(&engine, component)?)?;
        Ok(Self { component: ServicePre::new(component)?, outbound, idle })
    }
}

/// `spin:variables/variables.error`
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "the interface has them all")]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

fn add_variables(linker: &mut Linker<Host>, variables: HashMap<String, String>) -> Result<()> {
    let variables = Arc::new(variables);
    let mut instance = linker.instance("spin:variables/variables@3.0.0")?;
    instance.func_wrap_concurrent("get", move |_, (name,): (String,)| {
        let variables = variables.clone();
        Box::pin(async move {
            // A provider may take its time: no component may rely on an answer at once.
            tokio::task::yield_now().await;
            Ok((variables.get(&name).cloned().ok_or(VariableError::Undefined(name)),))
        })
    })
}

/// What an instance has of its host.
pub(crate) struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    resources: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, hooks: &mut self.outbound, table: &mut self.resources }
    }
}

impl HandlerState for Service {
    type StoreData = Host;
    type WorkerExpiration = IdleTimeout;
    type WorkerState = Limits;

    async fn instantiate(&self) -> Result<Instance<Host, IdleTimeout, Limits>> {
        let host = Host {
            wasi: WasiCtxBuilder::new().inherit_stdout().inherit_stderr().build(),
            http: WasiHttpCtx::new(),
            outbound: self.outbound.clone(),
            resources: ResourceTable::new(),
        };
        let mut store = Store::new(self.component.engine(), host);
        let proxy = ProxyPre::P3(self.component.clone()).instantiate_async(&mut store).await?;
        let expiration = IdleTimeout { timeout: self.idle, sleep: Box::pin(tokio::time::sleep(self.idle)) };
        Ok(Instance { store, proxy, view: Host::http, expiration, state: Limits })
    }
}

/// An instance ends after so much time without work; what works may go on for ever.
pub(crate) struct IdleTimeout {
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl WorkerExpiration for IdleTimeout {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        if status != WorkerStatus::Idle {
            return Poll::Pending;
        }
        let deadline = (since + self.timeout).into();
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

pub(crate) struct Limits;

impl WorkerState for Limits {
    type StoreData = Host;
    type RequestData = ();

    fn should_accept_request(&self, at_once: usize, in_all: usize) -> ShouldAccept {
        if in_all >= REQUESTS_PER_INSTANCE {
            ShouldAccept::Never
        } else if at_once >= REQUESTS_AT_ONCE {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Host>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        Box::pin(std::future::pending())
    }

    fn drop(&self, _: Store<Host>, result: Result<()>) {
        if let Err(error) = result {
            say(&format!("an instance failed: {error:?}"));
        }
    }
}
