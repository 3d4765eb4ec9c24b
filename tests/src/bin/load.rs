//! A load generator for the command line, to run beside a restart:
//! `cargo run --release -p app-host-tests --bin load -- 127.0.0.1:8080 [SECONDS]`.
//!
//! Eight clients ask for `/hello` at full speed, half of them on kept-alive connections and half with a connection a
//! request. They never retry: a request of which one byte was written counts as failed unless its
//! complete 200 comes back. Exits with 1 when any failed.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use app_host_tests::Address;
use app_host_tests::load::{Allowed, Kind, Load, Posts};

/// The longest a load lasts, in seconds.
const MOST: u64 = 600;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().as_deref().and_then(Address::parse);
    let seconds = arguments.next().map_or(Some(10), |text| text.parse().ok()).filter(|seconds| *seconds <= MOST);
    let (Some(address), Some(seconds)) = (address, seconds) else {
        eprintln!("load: expected: load IP:PORT [SECONDS, at most {MOST}]");
        return ExitCode::from(2);
    };
    let any = Arc::new(Allowed::default());
    let running = [Kind::KeepAlive, Kind::ConnectionPerRequest].map(|kind| {
        let limit = Duration::from_secs(seconds);
        let load =
            Load { address: address.clone(), clients: 4, kind, posts: Posts::None, path: "/hello".to_owned(), limit };
        (kind, load.start(&any))
    });
    let mut failed = 0;
    for (kind, running) in running {
        let outcome = running.finish();
        failed += outcome.failed;
        println!(
            "{kind:?}: {} answered, {} failed, longest gap {} ms",
            outcome.answered,
            outcome.failed,
            outcome.longest_gap.as_millis()
        );
        for failure in &outcome.failures {
            println!("  {failure}");
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
