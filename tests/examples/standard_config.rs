//! Prints the configuration that a host must serve to be tested while it runs elsewhere.

use system_tests::fixture::standard_config;

#[expect(clippy::print_stdout, reason = "printing is what it is for")]
fn main() {
    let base_url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:4200/v1".into());
    print!("{}", standard_config(&base_url).to_toml());
}
