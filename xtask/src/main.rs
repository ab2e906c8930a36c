//! `cargo xtask`: everything a developer runs.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    build_agent, build_ebpf, check,
    demo::{self, DemoArgs},
    deny, ownership, test,
};

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

    /// Run all tests; needs root
    ///
    /// Checks what the machine has, builds the kernel programs and runs `cargo test`
    /// for the workspace.
    #[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test --package splitter-agent
  cargo xtask test -- --nocapture")]
    Test {
        /// Arguments for `cargo test`
        #[arg(allow_hyphen_values = true)]
        cargo_arguments: Vec<String>,
        /// Arguments for the test programs
        #[arg(last = true)]
        arguments: Vec<String>,
    },

    /// Show a split at work on this machine; needs root
    ///
    /// Builds the kernel programs and the agent in release first.
    Demo(DemoArgs),

    /// Check formatting, lints, documentation and dependencies
    ///
    /// Lints are checked for the host and, in the kernel programs, for their own target.
    #[command(visible_alias = "ci")]
    Check,

    /// Check licences and sources of all dependencies against deny.toml
    ///
    /// Needs neither a network nor cargo-deny, and uses cargo-deny too where it is installed.
    /// Advisories are another matter: `cargo deny check advisories` looks them up.
    Deny,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::BuildEbpf => build_ebpf::build().map(drop),
        Task::Build => build_agent::build().map(drop),
        Task::Test {
            cargo_arguments,
            arguments,
        } => test::test(&cargo_arguments, &arguments),
        Task::Demo(arguments) => run_demo(&arguments),
        Task::Check => check::check(),
        Task::Deny => deny::check(),
    };
    ownership::give_back();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_demo(arguments: &DemoArgs) -> Result<()> {
    demo::check(arguments)?;
    demo::run(arguments, &build_agent::build()?)
}
