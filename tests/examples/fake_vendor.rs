//! The vendors' APIs on a loopback port, for trying a CLI without an account: `fake_vendor [ADDRESS]`.

use system_tests::vendor::FakeVendor;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the address is what the caller waits for")]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let vendor = FakeVendor::start_on(&address).await;
    println!("{}", vendor.base_url());
    let _ = tokio::signal::ctrl_c().await;
    for call in vendor.calls() {
        println!("{} {}", call.method, call.target);
    }
}
