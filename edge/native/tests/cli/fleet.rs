//! Runners that announce themselves in a table, and gateways that find them there.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use dyad_runner::config::model::RunnerConfig;
use dyad_runner::{Runner, RunningRunner};
use runner_api::{Capacity, CliInfo, Isolation, NodeRecord, Registry as _, VERSION};
use serde_json::json;
use tokio::task::block_in_place;

use super::runners::{Authority, chat_by, read_until};
use super::support::{Place, Served, TABLE, eventually};

/// A node in this process, which announces itself in the place's table. Its CLI is a process that prints its stdin.
async fn node(place: &Place, fleet: &Authority, id: &str) -> RunningRunner {
    let (identity, ca) = (fleet.issue(place, "localhost"), fleet.file(place));
    // A socket's path has to be short, and temporary directories may not be.
    let text = format!(
        "listen = \"127.0.0.1:0\"\nstate_dir = \"{id}\"\n\
         engine = {{ socket = \"no-such.sock\", allow_process = true }}\n\
         [node]\nid = \"{id}\"\nurl = \"https://localhost:0\"\n\
         [tls]\ncertificate = \"{identity}\"\nkey = \"{identity}\"\nclient_ca = \"{ca}\"\nallowed_clients = [\"edge-1\"]\n\
         [[cli]]\nname = \"claude\"\ndialect = \"text\"\nisolation = \"process\"\nargv = [\"cat\"]\n"
    );
    let config = RunnerConfig::from_table(&text.parse().unwrap(), &place.path("")).unwrap();
    Runner::start(config, Arc::new(place.table())).await.unwrap()
}

/// A gateway's configuration without a list of nodes.
fn configuration(place: &Place, fleet: &Authority) -> String {
    let (identity, ca) = (fleet.issue(place, "edge-1"), fleet.file(place));
    place.write(
        "gateway.toml",
        &format!(
            "[runners]\nclient_cert = \"{identity}\"\nclient_key = \"{identity}\"\nca = \"{ca}\"\n\
             [[provider]]\nname = \"Claude\"\ntype = \"spawn-cli\"\ncli = \"claude\"\nmodel_parameter = \"\"\n\
             models = [{{ id = \"sonnet\" }}]\n"
        ),
    )
}

/// Whether a chat is answered by the CLI.
fn is_answered(gateway: &Served, key: &str) -> bool {
    let mut head = String::new();
    let mut reader = chat_by(gateway, key);
    std::io::BufRead::read_line(&mut reader, &mut head).unwrap();
    let is_ok = head.starts_with("HTTP/1.1 200");
    if is_ok {
        read_until(&mut reader, "[DONE]");
    }
    is_ok
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_in_the_table_serves_every_gateway_until_it_stops() {
    let place = block_in_place(Place::on_table);
    let fleet = Authority::new(&place, "fleet");
    let config = configuration(&place, &fleet);
    let one = block_in_place(|| place.up(&["--config", &config]));
    let key = one.first_key().to_owned();
    assert!(!block_in_place(|| is_answered(&one, &key)), "there is no runner yet");

    let runner = node(&place, &fleet, "n1").await;
    let other = block_in_place(|| place.beside().up(&["--config", &config]));
    for gateway in [&one, &other] {
        block_in_place(|| eventually("the runner is found", || is_answered(gateway, &key).then_some(())));
    }
    let doctor = block_in_place(|| place.run(&["doctor", "--no-discovery", "--config", &config]));
    assert!(doctor.stdout.contains("1 runner in the table"), "{doctor:#?}");

    runner.shutdown().await.unwrap();
    assert!(place.table().nodes().await.unwrap().nodes.is_empty(), "it has withdrawn");
    for gateway in [&one, &other] {
        block_in_place(|| eventually("the runner is gone", || (!is_answered(gateway, &key)).then_some(())));
    }
}

/// What somebody who can write to the table might announce.
fn record(id: &str, url: &str) -> NodeRecord {
    let in_an_hour = std::time::SystemTime::now() + Duration::from_secs(3600);
    let since = in_an_hour.duration_since(std::time::UNIX_EPOCH).unwrap();
    let cli = CliInfo {
        name: "claude".to_owned(),
        parameters: std::collections::BTreeMap::new(),
        images: false,
        isolation: Isolation::Container,
    };
    NodeRecord {
        id: id.to_owned(),
        url: url.to_owned(),
        version: VERSION.to_owned(),
        capacity: Capacity { slots: 1_000, queue_limit: 1_000, ..Capacity::default() },
        clis: vec![cli],
        expires_unix_ms: u64::try_from(since.as_millis()).unwrap(),
    }
}

/// Puts a URL into a node's record that the registry itself would not take.
fn rewrite_url(place: &Place, id: &str, url: &str) {
    let items = place.engine_call("Scan", &json!({"TableName": TABLE}));
    let items = items["Items"].as_array().unwrap();
    let item = items.iter().find(|item| item["sk"]["S"] == id).expect("the node is announced");
    place.engine_call(
        "UpdateItem",
        &json!({
            "TableName": TABLE, "Key": {"pk": item["pk"], "sk": item["sk"]}, "UpdateExpression": "SET #url = :url",
            "ExpressionAttributeNames": {"#url": "url"}, "ExpressionAttributeValues": {":url": {"S": url}},
        }),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_table_cannot_send_runs_where_it_likes() {
    let place = block_in_place(Place::on_table);
    let (fleet, strangers) = (Authority::new(&place, "fleet"), Authority::new(&place, "strangers"));
    let runner = node(&place, &fleet, "n1").await;
    let table = place.table();
    // Nobody is to come here.
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = plain.local_addr().unwrap().port();
    for (id, url) in [
        ("plain", format!("http://localhost:{port}")),
        ("path", format!("https://localhost:{port}/v1")),
        ("user", format!("https://me@localhost:{port}")),
    ] {
        table.announce(&record(id, "https://localhost")).await.unwrap();
        block_in_place(|| rewrite_url(&place, id, &url));
    }
    // This one is a proper node, of another authority.
    let strange = node(&place, &strangers, "n2").await;
    // And this one is of the fleet, by another name than its certificate's.
    let url = format!("https://127.0.0.1:{}", runner.addr().port());
    table.announce(&record("misnamed", &url)).await.unwrap();

    let config = configuration(&place, &fleet);
    let gateway = block_in_place(|| place.up(&["--config", &config]));
    let key = gateway.first_key().to_owned();
    for _ in 0..8 {
        assert!(block_in_place(|| is_answered(&gateway, &key)), "the one that is right is found");
    }
    plain.set_nonblocking(true).unwrap();
    assert!(plain.accept().is_err(), "somebody came");
    let log = block_in_place(|| gateway.stop());
    for id in ["plain", "path", "user"] {
        assert!(log.contains(id), "{id} is not said to be left out: {log}");
    }
    runner.shutdown().await.unwrap();
    strange.shutdown().await.unwrap();
}
