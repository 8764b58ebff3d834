//! What the administration needs of the gateway in this process.

use std::sync::Arc;
use std::time::Duration;

use admin_api::{Engine, FetchError, RunnerInfo};
use bytes::{Bytes, BytesMut};
use catalog::{
    ApiKeyRecord, BoxFuture, CheckReport, CredentialRef, Explanation, Health, Provider, ProviderSlug,
    TestReport, TestRequest,
};
use gateway::{Gateway, Host as _, Origin, RunnerNode, full};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;

use crate::host::NativeHost;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct NativeEngine {
    pub(crate) gateway: Gateway,
    pub(crate) host: Arc<NativeHost>,
    /// Providers besides the stored ones.
    pub(crate) given: Vec<Provider>,
}

impl Engine for NativeEngine {
    fn given(&self) -> Vec<Provider> {
        self.given.clone()
    }

    fn unreadable(&self, reference: &CredentialRef) -> Option<String> {
        match reference {
            CredentialRef::Env(_) | CredentialRef::File(_) => {
                self.host.credential(reference, Origin::Stored).err()
            }
            CredentialRef::None | CredentialRef::Sealed(_) | CredentialRef::Inline(_) => None,
        }
    }

    fn test(&self, test: TestRequest) -> BoxFuture<'_, TestReport> {
        Box::pin(self.gateway.test(test))
    }

    fn check<'a>(&'a self, provider: &'a Provider) -> BoxFuture<'a, CheckReport> {
        Box::pin(self.gateway.check(provider))
    }

    fn health(&self) -> Vec<(ProviderSlug, Health)> {
        self.gateway.health()
    }

    fn explain<'a>(&'a self, body: &'a [u8], key: &'a ApiKeyRecord) -> BoxFuture<'a, Explanation> {
        Box::pin(self.gateway.explain(body, key))
    }

    fn runners(&self) -> BoxFuture<'_, Result<Vec<RunnerInfo>, String>> {
        Box::pin(async { Ok(self.gateway.runners().await?.into_iter().map(info).collect()) })
    }

    fn drain_runner<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.gateway.drain_runner(id))
    }

    fn fetch<'a>(&'a self, url: &'a str, max_bytes: usize) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        Box::pin(async move {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.get(url, max_bytes)).await;
            fetched.unwrap_or_else(|_| Err("it took too long".to_owned())).map_err(FetchError)
        })
    }

    fn unix_ms(&self) -> u64 {
        self.host.unix_ms()
    }
}

impl NativeEngine {
    /// The host follows no redirect, so one is an answer as any other that is not 200.
    async fn get(&self, url: &str, max_bytes: usize) -> Result<Bytes, String> {
        let request = Request::get(url).body(full("")).map_err(|error| error.to_string())?;
        let response = self.host.call(request, CONNECT_TIMEOUT).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let mut body = response.into_body();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|error| error.to_string())?.into_data().unwrap_or_default();
            if read.len() + data.len() > max_bytes {
                return Err(format!("it answers more than {max_bytes} bytes"));
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    }
}

fn info(node: RunnerNode) -> RunnerInfo {
    let RunnerNode { record, is_up } = node;
    RunnerInfo {
        id: record.id,
        url: record.url,
        version: record.version,
        slots: record.capacity.slots,
        running: record.capacity.running,
        queued: record.capacity.queued,
        parked: record.capacity.parked,
        draining: record.capacity.draining,
        up: is_up,
        clis: record.clis.into_iter().map(|cli| cli.name).collect(),
    }
}
