//! What the agent costs in a large cluster: memory, processor time, requests to the API server,
//! and how long a change takes from the API server to the kernel.
//!
//! The API server and its etcd are real, and so is the agent; there are no nodes, and nothing
//! else talks to that server but what measures. A watch of the benchmark's own tells when the
//! server hands a change out, and the pinned maps tell when it is programmed.
//!
//! Run as root: `cargo xtask bench scale [--api smi|gateway|istio] [--splits N] [--endpoints N]`.

mod agent;
mod changes;
mod cluster;
mod objects;
mod requests;
#[path = "../../tests/kubernetes/server.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod server;
mod table;

use std::time::Duration;

use tokio::signal::ctrl_c;

use agent::Agent;
use changes::{Kind, Watched};
use cluster::Cluster;
use objects::Size;
use requests::Requests;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    size: Size,
    /// Single changes of each kind.
    samples: usize,
    /// Changes as fast as the API server takes them.
    burst: usize,
    /// How long the agent is watched at rest.
    rest: Duration,
    /// How often the metrics are read.
    scrapes: usize,
}

impl Effort {
    /// `cargo test` builds and runs benchmarks too, to see that they work: briefly.
    fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let is_bench = arguments.iter().any(|argument| argument == "--bench");
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1)
        };
        let number = |name: &str| value(name)?.parse().ok();
        let api = value("--api").map(|api| api.parse().unwrap_or_else(|error| panic!("{error}")));
        let (splits, endpoints, samples, burst, rest, scrapes) = if is_bench {
            (10_000, 100_000, 300, 10_000, 60, 20)
        } else {
            (20, 100, 5, 50, 1, 2)
        };
        Self {
            size: Size::new(
                api.unwrap_or_default(),
                number("--splits").unwrap_or(splits),
                number("--endpoints").unwrap_or(endpoints),
            ),
            samples: number("--samples").unwrap_or(samples),
            burst: number("--burst").unwrap_or(burst),
            rest: Duration::from_secs(number("--rest").unwrap_or(rest) as u64),
            scrapes,
        }
    }
}

fn main() {
    let effort = Effort::from_arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // What the agent and the API server leave goes as values are dropped, so that an interruption
    // must not simply end the process.
    let finished = runtime.block_on(async {
        tokio::select! {
            () = measure(effort) => true,
            _ = ctrl_c() => false,
        }
    });
    runtime.shutdown_background();
    if !finished {
        eprintln!("interrupted; everything is gone again");
        std::process::exit(130);
    }
}

async fn measure(effort: Effort) {
    let size = effort.size;
    table::print_machine(size);
    let cluster = Cluster::start(size).await;
    table::print_made(&cluster);
    let without_agent = Requests::during(&cluster, effort.rest).await;

    let mut agent = Agent::start(&cluster);
    let start = agent.wait_until_synced(size).await;
    table::print_start(&start, &agent);

    agent.calm_down().await;
    let begin = agent.cpu();
    let with_agent = Requests::during(&cluster, effort.rest).await;
    table::print_rest(
        effort.rest,
        agent.cpu() - begin,
        &with_agent,
        &without_agent,
    );

    table::print_scrapes(agent.scrape(effort.scrapes));

    table::print_changes_head(effort.samples);
    for kind in [Kind::EndpointSlice, Kind::Weights(size.api)] {
        let changes = Watched::begin(&cluster, &agent, kind).await;
        let times = changes.one_by_one(effort.samples).await;
        table::print_changes(&kind.name(), times);
    }
    let changes = Watched::begin(&cluster, &agent, Kind::EndpointSlice).await;
    let begin = agent.work();
    let burst = changes.burst(effort.burst).await;
    table::print_burst(effort.burst, burst, &agent.work().since(&begin));
    table::print_memory("afterwards", &agent);

    cluster.free_lease().await;
    agent.wait_until_leader().await;
    let begin = agent.cpu();
    let as_leader = Requests::during(&cluster, effort.rest).await;
    table::print_leader(effort.rest, agent.cpu() - begin, &as_leader, &without_agent);
    for kind in [Kind::EndpointSlice, Kind::Weights(size.api)] {
        let changes = Watched::begin(&cluster, &agent, kind).await;
        let times = changes.one_by_one(effort.samples).await;
        table::print_changes(&format!("{}, as the leader", kind.name()), times);
    }
    table::print_memory("as the leader", &agent);
}
