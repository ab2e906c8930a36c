//! `cargo xtask`: everything a developer runs.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use splitter_demo::{self as demo, DemoArgs, Images};
use testbed::cluster::tools::{self, Part};
use testbed::cluster::{self, ClusterArgs};
use xtask::bench::{self, BenchArgs};
use xtask::image::{self, ImageArgs, Kind};
use xtask::kernels::{self, KernelArgs};
use xtask::test::{self, TestArgs};
use xtask::{build_agent, build_ebpf, check, deny, ownership};

/// Builds, checks and tests splitter
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true,
    after_help = EXAMPLES,
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask build                                    an agent to run on this machine
  cargo xtask test --tier unit                         the tests that need nothing, in seconds
  sudo -E env \"PATH=$PATH\" cargo xtask test            all tests, against this kernel
  sudo -E env \"PATH=$PATH\" cargo xtask demo            a split at work
  cargo xtask check && sudo -E env \"PATH=$PATH\" cargo xtask test
                                                       what CI runs";

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the kernel programs into target/ebpf/splitter-ebpf.o
    ///
    /// Adds rust-src to the toolchain and builds bpf-linker into the cache directory, if they
    /// are not there. The agent embeds the object when it is built next.
    BuildEbpf,

    /// Build the kernel programs, then the agent in release
    Build,

    /// Build container images into target/image, without a container engine
    ///
    /// Compiles static programs, adding their targets to the toolchain, and packs each as an OCI
    /// image for all platforms. The tag ends in the beginning of the image's digest, so that
    /// another content has another tag; a file beside the archive holds it.
    #[command(after_help = "\
Examples:
  cargo xtask image
  cargo xtask image agent --platform linux/amd64
  ctr --namespace k8s.io images import target/image/splitter-agent.tar
  TAG=$(cat target/image/splitter-agent.tag)
  skopeo copy --all oci-archive:target/image/splitter-agent.tar:$TAG docker://REGISTRY/splitter-agent:$TAG")]
    Image(ImageArgs),

    /// Run all tests, or those of a tier; all but the first tier need root
    ///
    /// Checks what the machine has, builds what is missing and runs `cargo test` for the workspace.
    #[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test --tier unit
  cargo xtask test --tier unit --tier lab
  cargo xtask test --tier cluster canary
  cargo xtask test --package splitter-agent
  cargo xtask test -- --nocapture")]
    Test(TestArgs),

    /// Run the tests of the data path inside other kernels, in virtual machines
    ///
    /// Boots kernels of distributions in QEMU, without hardware acceleration, and runs the same test
    /// programs in them. Needs no root, unless packages have to be installed.
    #[command(after_help = "\
Examples:
  cargo xtask test-kernels
  cargo xtask test-kernels --kernel 5.15 --kernel 6.1 --test datapath
  cargo xtask test-kernels --kernel 6.1-arm64 connect::
  cargo xtask test-kernels --jobs 2 --timeout 3600 -- --test-threads=1")]
    TestKernels(KernelArgs),

    /// Show a split at work on this machine; needs root
    ///
    /// Builds the kernel programs and the agent in release first.
    #[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo --api istio
  cargo xtask demo httpbin --keep
  cargo xtask demo names
  cargo xtask demo --cluster
  cargo xtask demo --cluster httpbin --keep")]
    Demo(DemoArgs),

    /// Run a Kubernetes cluster on this machine; needs root
    ///
    /// Its nodes are namespaces, so it is up in seconds and needs no Docker. The programs are
    /// built from source the first time, which takes some minutes and Go.
    #[command(after_help = "\
Examples:
  cargo xtask cluster up
  cargo xtask cluster up --nodes 3 --kube-proxy iptables
  cargo xtask cluster kubectl get pods --all-namespaces
  cargo xtask cluster load shop.tar
  cargo xtask cluster node node-1 ip route
  cargo xtask cluster down")]
    Cluster(ClusterArgs),

    /// Measure the agent; needs root
    ///
    /// Builds the kernel programs, the programs of a cluster and the agent in release first.
    #[command(after_help = "\
Examples:
  cargo xtask bench scale
  cargo xtask bench scale --splits 1000 --endpoints 20000")]
    Bench(BenchArgs),

    /// Check formatting, lints, documentation and dependencies
    ///
    /// Lints are checked for the host and, in the kernel programs, for their own target.
    #[command(visible_alias = "ci")]
    Check,

    /// Check licences and sources of all dependencies against deny.toml
    ///
    /// By cargo-deny where it is installed, else by a part of its rules that is built in; without a
    /// network either way.
    /// Advisories are another matter: `cargo deny check advisories` looks them up.
    Deny,
}

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let result = match Cli::parse().task {
        Task::BuildEbpf => build_ebpf::build().map(drop),
        Task::Build => build_agent::build().map(drop),
        Task::Image(arguments) => image::run(&arguments),
        Task::Test(arguments) => test::test(&arguments),
        Task::TestKernels(arguments) => kernels::run(&arguments),
        Task::Demo(arguments) => run_demo(&arguments),
        Task::Cluster(arguments) => cluster::run(arguments).map(|it| code = it),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Check => check::check(),
        Task::Deny => deny::check(),
    };
    ownership::give_back();
    match result {
        Ok(()) => code,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_demo(arguments: &DemoArgs) -> Result<()> {
    if !arguments.wants_cluster() {
        demo::check(arguments, &[])?;
        return demo::run(arguments, &build_agent::build()?);
    }
    demo::check(arguments, &image::requirements_for_this_machine())?;
    // The slowest first.
    tools::ensure(Part::Nodes)?;
    let build = |kind| image::build(&image::Options::for_this_machine(kind));
    let (agent, examples) = (build(Kind::Agent)?, build(Kind::Examples)?);
    let program = agent.program_for_this_machine();
    let program = program.context("no agent for this machine")?.to_owned();
    let images = Images {
        archives: vec![agent.archive, examples.archive],
        agent: program,
    };
    demo::run_on_cluster(arguments, images)
}
