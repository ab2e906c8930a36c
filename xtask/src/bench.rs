//! `cargo xtask bench`: measurements that need more than one program.

use anyhow::Result;
use clap::{Args, Subcommand};
use testbed::cluster::tools::{self, Part};
use testbed::preflight;
use testbed::workspace::{self, cargo, say};

use crate::build_ebpf;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The agent in a large cluster: memory, processor time, requests, and the way of a change
    ///
    /// Starts an API server with etcd, makes the objects, and lets an agent follow them. Takes
    /// some ten minutes with the defaults, and 3 GiB of memory.
    Scale(ScaleArgs),
}

#[derive(Args, Clone, Debug)]
struct ScaleArgs {
    /// The API in which the splits are written
    #[arg(long, default_value = "smi", value_parser = ["smi", "gateway", "istio"])]
    api: String,

    /// Splits, with two leaves each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    splits: u32,

    /// Endpoints, in one EndpointSlice for each leaf
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=250_000))]
    endpoints: u32,
}

/// Builds what is needed and measures.
///
/// # Errors
///
/// When the machine lacks something, something does not compile, or the measurement fails.
pub fn run(arguments: &BenchArgs) -> Result<()> {
    let What::Scale(ScaleArgs {
        api,
        splits,
        endpoints,
    }) = &arguments.what;
    preflight::check("bench", &tools::requirements(Part::ApiServer)?)?;
    build_ebpf::build()?;
    tools::ensure(Part::ApiServer)?;
    say("building the agent and the benchmark");
    let mut bench = cargo();
    bench
        .args(["bench", "--package=splitter-agent", "--bench=scale", "--"])
        .args(["--api", api])
        .args(["--splits", &splits.to_string()])
        .args(["--endpoints", &endpoints.to_string()]);
    workspace::run(&mut bench)
}
