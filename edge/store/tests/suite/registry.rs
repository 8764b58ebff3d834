//! Nodes announce themselves in the table, and edges find them there.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runner_api::{Capacity, CliInfo, Isolation, NodeRecord, Registry};
use serde_json::{Value, json};
use store::sdk::{SharedTimeSource, TimeSource};
use store::{DynamoStore, Timing};

use crate::backend::{get_raw, over_http, over_http_at, put_raw, scratch_file, serve};

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn cli(name: &str) -> CliInfo {
    CliInfo { name: name.to_owned(), parameters: [].into(), images: true, isolation: Isolation::Container }
}

fn node(id: &str) -> NodeRecord {
    NodeRecord {
        id: id.to_owned(),
        url: format!("https://{id}.example:7443"),
        version: "0.1.0".to_owned(),
        capacity: Capacity { slots: 8, running: 1, queued: 2, queue_limit: 3, parked: 4, draining: false },
        clis: vec![cli("claude"), cli("gemini")],
        expires_unix_ms: now_ms() + 10_000,
    }
}

async fn listed(registry: &impl Registry) -> Vec<NodeRecord> {
    let list = registry.nodes().await.unwrap();
    assert_eq!(list.unreadable, []);
    let mut nodes = list.nodes;
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_change_and_go() {
    let (_directory, path) = scratch_file();
    let embedded = DynamoStore::open_embedded(path).await.unwrap();
    let (address, _engine) = serve().await;
    let remote = over_http(address, Timing::default());
    remote.create_table().await.unwrap();
    for registry in [embedded, remote] {
        assert_eq!(listed(&registry).await, []);
        let (mut one, other) = (node("one"), NodeRecord { clis: vec![cli("codex")], ..node("other") });
        registry.announce(&one).await.unwrap();
        registry.announce(&other).await.unwrap();
        assert_eq!(listed(&registry).await, [one.clone(), other.clone()]);
        one.capacity = Capacity { draining: true, running: 7, ..one.capacity };
        one.clis.clear();
        one.expires_unix_ms += 3_000;
        registry.announce(&one).await.unwrap();
        assert_eq!(listed(&registry).await, [one.clone(), other.clone()]);
        registry.withdraw("one").await.unwrap();
        registry.withdraw("one").await.unwrap();
        assert_eq!(listed(&registry).await, [other]);
        // An instance that has not seen any of it.
        one.expires_unix_ms = now_ms();
        registry.announce(&one).await.unwrap();
        assert_eq!(listed(&registry).await.len(), 1, "a record that has expired is none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_nodes_are_found() {
    let (address, _engine) = serve().await;
    let registry =
        Arc::new(over_http(address, Timing { call: Duration::from_secs(60), ..Timing::default() }));
    registry.create_table().await.unwrap();
    let mut announcing = tokio::task::JoinSet::new();
    for group in 0..8 {
        let registry = registry.clone();
        announcing.spawn(async move {
            for index in 0..125 {
                registry
                    .announce(&NodeRecord {
                        expires_unix_ms: u64::MAX / 4,
                        ..node(&format!("n{group}-{index}"))
                    })
                    .await
                    .unwrap();
            }
        });
    }
    announcing.join_all().await;
    assert_eq!(listed(&*registry).await.len(), 1_000);
}

/// Stored items outlive the version that wrote them: a change here needs a new schema version.
#[tokio::test]
async fn the_form_stays_as_it_is() {
    let (address, engine) = serve().await;
    let registry = over_http(address, Timing::default());
    registry.create_table().await.unwrap();
    let record = NodeRecord { expires_unix_ms: 4_000_000_000_123, ..node("one") };
    registry.announce(&record).await.unwrap();
    let clis = "bf21faa883ef7306d48f15a033e67470";
    let expected = json!({
        "pk": { "S": "NODE#2" }, "sk": { "S": "one" }, "schema_version": { "N": "1" },
        "url": { "S": "https://one.example:7443" }, "version": { "S": "0.1.0" }, "clis": { "S": clis },
        "slots": { "N": "8" }, "running": { "N": "1" }, "queued": { "N": "2" }, "queue_limit": { "N": "3" },
        "parked": { "N": "4" }, "draining": { "BOOL": false },
        "expires_unix_ms": { "N": "4000000000123" }, "ttl": { "N": "4000003600" },
    });
    assert_eq!(get_raw(&engine, "NODE#2", "one"), expected);
    let stored = get_raw(&engine, &format!("CLIS#{clis}"), "CLIS");
    let body: Value = serde_json::from_str(stored["body"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(body, serde_json::to_value(&record.clis).unwrap());
    assert_eq!(stored["schema_version"], json!({ "N": "1" }));
    let ttl: u64 = stored["ttl"]["N"].as_str().unwrap().parse().unwrap();
    assert!((6 * 86_400..8 * 86_400).contains(&(ttl - now_ms() / 1_000)), "{ttl}");
}

#[tokio::test]
async fn nodes_that_cannot_be_read_are_left_out_and_named() {
    let (address, engine) = serve().await;
    let registry = over_http(address, Timing::default());
    registry.create_table().await.unwrap();
    let record = NodeRecord { expires_unix_ms: 4_000_000_000_123, ..node("one") };
    registry.announce(&record).await.unwrap();
    let item = get_raw(&engine, "NODE#2", "one");
    let bad = |changes: Value| {
        let mut bad = item.clone();
        bad["sk"] = json!({ "S": "bad" });
        for (name, value) in changes.as_object().unwrap() {
            bad[name] = value.clone();
        }
        bad.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        bad
    };
    for changes in [
        json!({ "schema_version": { "N": "2" } }),
        json!({ "url": { "S": "http://plain.example" } }),
        json!({ "url": { "S": "https://" } }),
        json!({ "url": { "S": "https://a b" } }),
        json!({ "url": { "S": "https://someone@one.example:7443" } }),
        json!({ "url": { "S": "https://one.example:7443/elsewhere" } }),
        json!({ "version": null }),
        json!({ "slots": { "N": "4294967296" } }),
        json!({ "running": null }),
        json!({ "draining": { "S": "false" } }),
        json!({ "clis": { "S": "../CONFIG" } }),
        json!({ "expires_unix_ms": { "N": "-1" } }),
    ] {
        put_raw(&engine, &bad(changes.clone()));
        let list = registry.nodes().await.unwrap();
        assert_eq!(list.nodes, std::slice::from_ref(&record), "{changes}");
        assert_eq!(list.unreadable.len(), 1, "{changes}");
        assert_eq!(list.unreadable[0].name, "NODE#2/bad");
    }

    // What it runs is not there, or is something else than what it says.
    let unknown = "0".repeat(32);
    put_raw(&engine, &bad(json!({ "clis": { "S": unknown } })));
    let list = registry.nodes().await.unwrap();
    assert_eq!((list.nodes.len(), &*list.unreadable[0].name), (1, &*format!("CLIS#{unknown}")));
    let mut forged = get_raw(&engine, "CLIS#bf21faa883ef7306d48f15a033e67470", "CLIS");
    forged["pk"] = json!({ "S": format!("CLIS#{unknown}") });
    put_raw(&engine, &forged);
    let list = registry.nodes().await.unwrap();
    assert_eq!((list.nodes.len(), &*list.unreadable[0].name), (1, &*format!("CLIS#{unknown}/CLIS")));
}

#[tokio::test]
async fn what_no_edge_could_use_is_not_announced() {
    let (address, _engine) = serve().await;
    let registry = over_http(address, Timing::default());
    registry.create_table().await.unwrap();
    for wrong in [
        NodeRecord { url: "http://n1.example".to_owned(), ..node("n1") },
        NodeRecord { url: "https://n1.example/path".to_owned(), ..node("n1") },
        node(""),
        node("two words"),
        NodeRecord { version: "x".repeat(65), ..node("n1") },
        NodeRecord { clis: vec![cli(&"x".repeat(300_000))], ..node("n1") },
    ] {
        assert!(registry.announce(&wrong).await.is_err(), "{:?}", wrong.url);
    }
    assert_eq!(listed(&registry).await, []);
}

/// What a node runs is written with its first announcement only, and read once.
#[tokio::test]
async fn an_announcement_is_one_request_and_a_look_four() {
    let (address, _engine) = serve().await;
    let proxy = crate::fault_proxy::FaultProxy::start(address).await;
    let registry = over_http(proxy.address, Timing::default());
    registry.create_table().await.unwrap();
    proxy.take_operations();
    registry.announce(&node("one")).await.unwrap();
    assert_eq!(proxy.take_operations(), ["PutItem", "PutItem"]);
    registry.announce(&node("one")).await.unwrap();
    assert_eq!(proxy.take_operations(), ["PutItem"]);
    registry.announce(&node("other")).await.unwrap();
    let edge = over_http(proxy.address, Timing::default());
    proxy.take_operations();
    assert_eq!(listed(&edge).await.len(), 2);
    assert_eq!(proxy.take_operations(), ["Query", "Query", "Query", "Query", "GetItem"]);
    assert_eq!(listed(&edge).await.len(), 2);
    assert_eq!(proxy.take_operations(), ["Query"; 4]);
}

/// A clock that is wrong by so many milliseconds.
#[derive(Clone, Debug)]
struct Wrong(i64);

impl Wrong {
    fn now_ms(&self) -> u64 {
        now_ms().saturating_add_signed(self.0)
    }
}

impl TimeSource for Wrong {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.now_ms())
    }
}

/// Records expire by the store's clock, whatever those of node and edge say.
#[tokio::test]
async fn clocks_that_are_minutes_off_make_nobody_seem_gone() {
    const FIVE_MINUTES_MS: i64 = 300_000;
    let (address, _engine) = serve().await;
    for (of_node, of_edge) in [(-FIVE_MINUTES_MS, FIVE_MINUTES_MS), (FIVE_MINUTES_MS, -FIVE_MINUTES_MS)] {
        let [of_node, of_edge] = [Wrong(of_node), Wrong(of_edge)];
        let open =
            |clock: &Wrong| over_http_at(address, Timing::default(), SharedTimeSource::new(clock.clone()));
        let (node_side, edge_side) = (open(&of_node), open(&of_edge));
        // The store's clock is known from its first answer on.
        node_side.create_table().await.unwrap();
        assert_eq!(edge_side.nodes().await.unwrap().nodes, []);
        let lives = NodeRecord { expires_unix_ms: of_node.now_ms() + 10_000, ..node("lives") };
        node_side.announce(&lives).await.unwrap();
        let gone = NodeRecord { expires_unix_ms: of_node.now_ms() - 10_000, ..node("gone") };
        node_side.announce(&gone).await.unwrap();
        let nodes = listed(&edge_side).await;
        let [found] = &nodes[..] else { panic!("{nodes:?}") };
        assert_eq!(found.id, "lives");
        // The edge compares with its own clock.
        let left = found.expires_unix_ms.saturating_sub(of_edge.now_ms());
        assert!((5_000..=12_000).contains(&left), "{left}");
        node_side.withdraw("lives").await.unwrap();
    }
}
