//! How long a change of a manifest takes until the kernel works by it: from the moment that
//! the file is complete to the moment that its frontend points at the new record.
//!
//! Run as root: `cargo bench -p splitter-agent --bench change`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::agent::{Site, bookstore, weights};
use common::root;
use splitter_agent::datapath::{PinDirectory, View};

/// Changes measured in each way of writing.
const CHANGES: u64 = 500;

fn main() {
    // `cargo test` builds and runs benchmarks too, to see that they work: briefly.
    let changes = if std::env::args().any(|argument| argument == "--bench") {
        CHANGES
    } else {
        10
    };
    let site = Site::new("bench-change");
    let endpoint: SocketAddr = "10.244.0.9:80".parse().expect("an address");
    site.write("services.yaml", &bookstore(endpoint, endpoint));
    site.write("split.yaml", &weights(1, 1));
    let _agent = site.start(&[]);
    let pins = PinDirectory::new(site.lab.pin_directory());
    println!("from a complete file to the new record ({changes} changes each):");
    println!("{:<24}{:>12}{:>12}{:>12}", "", "p50", "p99", "longest");
    measure("renamed into place", changes, &pins, |text| {
        site.write("split.yaml", text);
    });
    let path = site.manifests.path().join("split.yaml");
    measure("written in place", changes, &pins, |text| {
        let mut file = fs::File::create(&path).expect("a file that can be written");
        let (first, second) = text.split_at(text.len() / 2);
        file.write_all(first.as_bytes())
            .expect("a file that can be written");
        file.write_all(second.as_bytes())
            .expect("a file that can be written");
    });
}

fn measure(what: &str, changes: u64, pins: &PinDirectory, write: impl Fn(&str)) {
    let generation = || {
        let view = View::open(pins).expect("maps to look at");
        view.frontends[&root()].record.generation
    };
    let mut times: Vec<Duration> = (0..changes)
        .map(|change| {
            let before = generation();
            let text = weights(1 + change % 97, 100);
            write(&text);
            let complete = Instant::now();
            while generation() == before {
                assert!(
                    complete.elapsed() < common::agent::PATIENCE,
                    "never programmed"
                );
            }
            complete.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "{what:<24}{:>12.2?}{:>12.2?}{:>12.2?}",
        at(50),
        at(99),
        times[times.len() - 1]
    );
}
