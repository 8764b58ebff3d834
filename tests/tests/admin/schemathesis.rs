//! schemathesis holds the running service to the document it serves: what the document allows and what it forbids is
//! sent, and no answer is a 5xx or other than described.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use system_tests::admin::{Admin, provider};
use system_tests::clients::clients_directory;
use system_tests::gateway::Gateway;
use system_tests::upstream::FakeUpstream;
use system_tests::within;
use tokio::process::Command;

use crate::gateway;

/// Of what is tried at random, in each operation.
const EXAMPLES: u32 = 25;
const LIMIT: Duration = Duration::from_secs(240);

/// A body that is wrong, for a version that is not the current one, is refused for either.
const CONFIGURATION: &str = "[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422]
";

/// Runs it over the paths that match; its own report is the failure's message.
async fn hold_to_document(gateway: &Gateway, authorization: &str, paths: &str, further: &[&str]) {
    let program = clients_directory().join("schemathesis/bin/schemathesis");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let configuration = directory.path().join("schemathesis.toml");
    std::fs::write(&configuration, CONFIGURATION).expect("the directory can be written to");
    let mut command = Command::new(&program);
    command
        .arg("--config-file")
        .arg(&configuration)
        .args(["run", &format!("{}/openapi.json", gateway.origin()), "--url", gateway.origin()])
        .args(["--header", &format!("Authorization: {authorization}")])
        .args(["--include-path-regex", paths, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", &EXAMPLES.to_string(), "--seed", "1", "--request-timeout", "60"])
        .args(["--continue-on-failure", "--output-truncate", "false"])
        .args(further)
        .current_dir(directory.path())
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(LIMIT, "schemathesis ends", command.output()).await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("No issues found") || report.contains("passed"), "nothing was tested: {report}");
}

#[tokio::test]
async fn the_admin_api_is_as_its_document_says() {
    let upstream = FakeUpstream::start().await;
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;
    let credential = "sk-schemathesis-1234567890";
    admin.post("/admin/providers", &provider("there", &upstream.base_url(), credential, &["m"])).await;
    admin.make_key(&json!({"label": "there"})).await;
    // What is well-formed may still be refused for what it says: a model that another provider has, a key that is not there.
    let further = ["--checks", "all", "--exclude-checks", "positive_data_acceptance,unsupported_method"];
    hold_to_document(&gateway, &admin.authorization(), "^/admin", &further).await;
    assert_eq!(admin.get("/admin/audit/verify").await["ok"], true);
}

#[tokio::test]
async fn the_client_api_is_as_its_document_says() {
    let upstream = FakeUpstream::start().await;
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;
    admin
        .post(
            "/admin/providers",
            &provider("there", &upstream.base_url(), "sk-schemathesis-1234567890", &["m"]),
        )
        .await;
    let (key, _) = admin.make_key(&json!({"label": "there"})).await;
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth";
    hold_to_document(&gateway, &format!("Bearer {key}"), "^/(v1|healthz|ready)", &["--checks", checks]).await;
}
