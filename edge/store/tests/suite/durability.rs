//! The embedded store's file: what was acknowledged survives the process, and several processes share it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use catalog::testing::SeedStore as _;
use catalog::{ApiKeyRecord, KeyStore, Store, verify_audit};
use dynoxide::Database;
use serde_json::json;
use store::DynamoStore;
use tokio::task::JoinSet;

use crate::backend::{get_raw, put_raw, scratch_file};
use crate::records::key;

const PATH: &str = "STORE_TEST_PATH";
const SEEDS: &str = "STORE_TEST_FIRST_SEED";
const WRITES: &str = "STORE_TEST_WRITES";
const WRITERS: u64 = 4;

/// This test binary as a process of its own: four writers that together write so many keys.
fn spawn_writer(path: &Path, first_seed: u64, writes: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::writer_process", "--ignored", "--nocapture"])
        .env(PATH, path)
        .env(SEEDS, first_seed.to_string())
        .env(WRITES, writes.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Writes keys, and a line for each that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is the other process of the tests below"]
async fn writer_process() {
    let Ok(path) = std::env::var(PATH) else { return };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (first, writes) = (number(SEEDS), number(WRITES));
    let store = DynamoStore::open_embedded(path).await.unwrap();
    write_all(&store, first, writes, |key| {
        // One write call per line, and none of them captured.
        std::io::stdout().write_all(format!("\nwritten {}\n", key.id).as_bytes()).unwrap();
    })
    .await;
}

async fn write_all(store: &DynamoStore, first: u64, writes: u64, acknowledged: fn(&ApiKeyRecord)) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for seed in (first..first + writes).skip(usize::try_from(writer).unwrap()).step_by(4) {
                let key = key(seed);
                assert_eq!(store.seed_key(&key, None).await.unwrap(), 1);
                acknowledged(&key);
            }
        });
    }
    writers.join_all().await;
}

fn acknowledged(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> impl Iterator<Item = String> {
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("written ").map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_acknowledged() {
    const ROUNDS: u64 = 8;
    let (_directory, path) = scratch_file();
    let mut written = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut writer = spawn_writer(&path, round * 1_000_000, 1_000_000);
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let enough = usize::try_from(1 + RandomState::new().hash_one(round) % 40).unwrap();
        written.extend(acknowledged(&mut lines).take(enough));
        writer.kill().unwrap();
        assert!(!writer.wait().unwrap().success());
        // What it had said before it died, and nobody had read yet.
        written.extend(acknowledged(&mut lines));

        let store = DynamoStore::open_embedded(&path).await.unwrap();
        let found: BTreeSet<_> =
            store.keys().await.unwrap().keys.into_iter().map(|key| key.value.id.to_string()).collect();
        let lost: Vec<_> = written.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {}", written.len());
        let unanswered = (found.len() - written.len()) as u64;
        assert!(unanswered <= (round + 1) * WRITERS, "{unanswered} more than were being written");
        assert_eq!(
            store.config_version().await.unwrap().keys.iter().sum::<u64>(),
            found.len() as u64,
            "a change and its count are one"
        );
        let head = verify_audit(&store, None).await.unwrap();
        assert_eq!(head.seq, found.len() as u64, "a change and its entry are one");
    }
    assert!(written.len() as u64 >= ROUNDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_file() {
    const EACH: u64 = 200;
    let (_directory, path) = scratch_file();
    let store = DynamoStore::open_embedded(&path).await.unwrap();
    let mut other = spawn_writer(&path, EACH, EACH);
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    // Once the other one has begun, both write at the same time.
    assert_eq!(acknowledged(&mut lines).take(1).count(), 1);
    write_all(&store, 0, EACH, |_| ()).await;
    assert_eq!(acknowledged(&mut lines).count() as u64, EACH - 1);
    assert!(other.wait().unwrap().success());

    let found: BTreeSet<_> = store.keys().await.unwrap().keys.into_iter().map(|key| key.value.id).collect();
    assert!(found == (0..2 * EACH).map(|seed| key(seed).id).collect());
    assert_eq!(store.config_version().await.unwrap().keys.iter().sum::<u64>(), 2 * EACH);
    assert_eq!(verify_audit(&store, None).await.unwrap().seq, 2 * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_can_be_opened_by_many_at_once() {
    let (_directory, path) = scratch_file();
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        opening.spawn(DynamoStore::open_embedded(path.clone()));
    }
    for opened in opening.join_all().await {
        assert_eq!(opened.unwrap().keys().await.unwrap().keys, []);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (_directory, path) = scratch_file();
    let directory = path.parent().unwrap();
    let store = DynamoStore::open_embedded(&path).await.unwrap();
    store.seed_key(&key(1), None).await.unwrap();
    assert_eq!(mode(directory), 0o700);
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(
        files.len(),
        4,
        "the file, its write-ahead log, the log's index, the lock for opening: {files:?}"
    );
    for file in &files {
        assert_eq!(mode(file), 0o600, "{file:?}");
    }

    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    DynamoStore::open_embedded(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn what_is_not_a_store_is_refused_and_left_alone() {
    let (directory, path) = scratch_file();
    let file = directory.path().join("notes.txt");
    let text = "not a database\n".repeat(100);
    std::fs::write(&file, &text).unwrap();
    assert!(matches!(DynamoStore::open_embedded(&file).await, Err(store::OpenError::Engine { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    let below_a_file = file.join("store.db");
    assert!(matches!(DynamoStore::open_embedded(&below_a_file).await, Err(store::OpenError::File { .. })));
    assert!(!path.exists());
}

/// Time to live in the background: nobody has to call anything.
#[tokio::test(start_paused = true)]
async fn expired_items_are_swept() {
    let (_directory, path) = scratch_file();
    let store = DynamoStore::open_embedded(&path).await.unwrap();
    store.seed_key(&key(1), None).await.unwrap();
    let engine = Database::new(path.to_str().unwrap()).unwrap();
    for (sk, ttl) in [("expired", "1000"), ("lives", "4000000000")] {
        let item = json!({ "pk": { "S": "LIMIT#x" }, "sk": { "S": sk }, "ttl": { "N": ttl } });
        put_raw(&engine, &item);
    }
    let is_there = |sk: &str| !get_raw(&engine, "LIMIT#x", sk).is_null();
    assert!(is_there("expired"));
    // The clock is put forward as long as nothing goes on, so it does not pass while the engine sweeps.
    tokio::time::timeout(Duration::from_secs(3_600), async {
        while is_there("expired") {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    })
    .await
    .expect("it is swept within the hour");
    assert!(is_there("lives"));
    assert_eq!(store.keys().await.unwrap().keys.len(), 1);
}
