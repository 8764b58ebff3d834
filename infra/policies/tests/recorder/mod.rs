//! An HTTP client that notes what each of DynamoDB's requests needs to be allowed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use dynoxide::Database;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use store::sdk::{
    ConnectorError, Credentials, HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
    HttpRequest, HttpResponse, RuntimeComponents, SdkBody, SharedAsyncSleep, SharedCredentialsProvider,
    SharedHttpClient, SharedHttpConnector, SharedTimeSource,
};
use store::{DynamoOptions, DynamoStore, HostPorts, Timing};
use table_policies::Access;
use tokio::net::TcpListener;

const TABLE: &str = "dyad-gateway";
pub(crate) const TABLE_ARN: &str = "arn:aws:dynamodb:eu-central-1:123456789012:table/dyad-gateway";

/// A store on an engine of its own, and what was asked of it.
pub(crate) struct Recorder {
    pub(crate) store: DynamoStore,
    client: RecordingClient,
}

impl Recorder {
    /// With an empty table, whose making is not recorded.
    pub(crate) async fn start() -> Self {
        let engine = Database::memory().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(dynoxide::server::serve_on(listener, engine));
        let client = RecordingClient {
            client: Client::builder(TokioExecutor::new()).build_http(),
            seen: Arc::default(),
        };
        let store = DynamoStore::new(
            HostPorts {
                http_client: SharedHttpClient::new(client.clone()),
                sleep: SharedAsyncSleep::new(TokioSleep::new()),
                time: SharedTimeSource::new(SystemTimeSource::new()),
            },
            DynamoOptions {
                table: TABLE.to_owned(),
                region: "eu-central-1".to_owned(),
                endpoint_url: Some(endpoint),
                credentials: SharedCredentialsProvider::new(Credentials::from_keys("any", "any", None)),
                timing: Timing::default(),
            },
        );
        store.create_table().await.unwrap();
        let recorder = Self { store, client };
        recorder.take();
        recorder
    }

    /// What the store was asked since the last time; never nothing.
    pub(crate) fn take(&self) -> BTreeSet<Access> {
        let seen = std::mem::take(&mut *self.client.seen.lock().unwrap());
        assert!(!seen.is_empty(), "nothing was recorded");
        seen
    }
}

#[derive(Clone, Debug)]
struct RecordingClient {
    client: Client<TcpConnector, SdkBody>,
    seen: Arc<Mutex<BTreeSet<Access>>>,
}

impl HttpClient for RecordingClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for RecordingClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").unwrap().split_once('.').unwrap().1;
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        self.seen.lock().unwrap().extend(accesses(operation, &body));
        let client = self.client.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// What a request needs. The parts of a transaction are allowed one by one ("Using IAM with DynamoDB transactions" in
/// DynamoDB's guide). An operation that is not known here fails the test.
fn accesses(operation: &str, request: &Value) -> Vec<Access> {
    let one = |action: &str, request: &Value, leading_key: Option<&Value>| {
        assert_eq!(request["TableName"], TABLE);
        Access {
            action: format!("dynamodb:{action}"),
            resource: TABLE_ARN.to_owned(),
            leading_keys: leading_key.map(|key| vec![key["S"].as_str().unwrap().to_owned()]),
        }
    };
    match operation {
        "TransactWriteItems" => {
            let parts = request["TransactItems"].as_array().unwrap().iter();
            let parts = parts.flat_map(|part| part.as_object().unwrap());
            parts
                .map(|(kind, part)| match kind.as_str() {
                    "Put" => one("PutItem", part, Some(&part["Item"]["pk"])),
                    "Update" => one("UpdateItem", part, Some(&part["Key"]["pk"])),
                    "Delete" => one("DeleteItem", part, Some(&part["Key"]["pk"])),
                    "ConditionCheck" => one("ConditionCheckItem", part, Some(&part["Key"]["pk"])),
                    other => panic!("what does {other} need to be allowed?"),
                })
                .collect()
        }
        "GetItem" | "UpdateItem" | "DeleteItem" => {
            vec![one(operation, request, Some(&request["Key"]["pk"]))]
        }
        "PutItem" => vec![one(operation, request, Some(&request["Item"]["pk"]))],
        "Query" => vec![one(operation, request, Some(queried_partition(request)))],
        "CreateTable" | "DescribeTable" | "DescribeTimeToLive" | "UpdateTimeToLive" | "Scan" => {
            vec![one(operation, request, None)]
        }
        other => panic!("what does {other} need to be allowed?"),
    }
}

/// The value that the key condition compares `pk` with: `#name = :value`, perhaps with a condition on `sk` behind it.
fn queried_partition(request: &Value) -> &Value {
    let condition = request["KeyConditionExpression"].as_str().unwrap();
    let (name, rest) = condition.split_once(" = ").unwrap();
    assert_eq!(request["ExpressionAttributeNames"][name].as_str().unwrap_or(name), "pk", "{condition}");
    let value = rest.split(' ').next().unwrap();
    &request["ExpressionAttributeValues"][value]
}
