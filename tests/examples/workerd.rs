//! The built Worker in workerd with the binding `RUNNERS`, which `wrangler dev` cannot run: on the table that the
//! environment names, with `workerd NODE CA CERTIFICATE KEY` (`host:port`, and paths of PEM files). Prints where it serves.

use system_tests::config::Config;
use system_tests::hosts::Variables;
use system_tests::worker::{Options, Runners, Worker};

const TABLE: [&str; 6] = [
    "DYAD_TABLE",
    "DYAD_KEY_SECRET",
    "AWS_REGION",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
];

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the address is what the caller waits for")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("NODE CA CERTIFICATE KEY");
    let address = next();
    let host = address.split(':').next().unwrap_or_default().to_owned();
    let runners =
        Runners { address, host, ca: next().into(), certificate: next().into(), key: next().into() };
    let table: Variables =
        TABLE.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect();
    let options = Options { runners: Some(runners), ..Options::default() };
    let worker = Worker::start(&table, "a-key-of-the-table", &Config::new([]), options).await;
    println!("Serving {}", worker.gateway.base_url);
    std::future::pending::<()>().await;
}
