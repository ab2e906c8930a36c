//! The command line: one module per command.
//!
//! Exit codes: 0, done; 1, the answer is "no" (what that means, each command says); 2, the
//! command line is wrong; 3, the command failed, and standard error says why.

mod attachment;
mod check;
mod cleanup;
mod completions;
mod connections;
mod domain;
mod explain;
mod health;
mod man;
mod node;
mod run;
mod self_test_connect;
mod status;
mod table;
mod target;
mod uninstall;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::causes::with_causes;
use crate::compile::Settings;
use crate::datapath::PinDirectory;
use crate::kinds;
use crate::objects::Kind;

/// The name of the program.
const NAME: &str = "splitter-agent";

/// What the process returns to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandOutcome {
    /// Done.
    Done,
    /// Done, and the answer is "no".
    Refused,
}

/// In-kernel traffic splitter: connections to a root Service go to weighted leaf Services,
/// chosen in the kernel when they connect.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version = crate::VERSION,
    after_help = "\
Exit codes:
  0  done
  1  the answer is no: `check` found something that is refused; `health`: not ready, or not
     alive; `status` and `explain`: not every program is attached, or no agent is at work
  2  the command line is wrong
  3  the command failed; standard error says why

Examples:
  splitter-agent run --manifests /etc/splitter
  splitter-agent health
  splitter-agent status bookstore
  splitter-agent connections bookstore --leaf bookstore-v1
  splitter-agent explain bookstore.bookstore:14001
  splitter-agent check canary.yaml services.yaml
  splitter-agent cleanup"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Common {
    /// Directory on a BPF file system where maps and links are pinned.
    #[arg(
        long,
        global = true,
        env = "SPLITTER_PIN_DIR",
        default_value = "/sys/fs/bpf/splitter",
        value_name = "PATH"
    )]
    pin_dir: std::path::PathBuf,

    /// Form of what is printed; for `run`, of the log.
    #[arg(
        short,
        long,
        global = true,
        env = "SPLITTER_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    output: Output,
}

impl Common {
    fn pins(&self) -> PinDirectory {
        PinDirectory::new(&self.pin_dir)
    }
}

/// What is the same for all objects of a cluster.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// DNS domain of the cluster, as root names may end in it [default: the one that
    /// /etc/resolv.conf searches in a pod, or else cluster.local].
    #[arg(long, env = "SPLITTER_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    cluster_domain: Option<String>,

    /// Have routes of the Gateway API name a Service of another namespace as their backend only
    /// where a ReferenceGrant permits it; otherwise that share of the connections is refused. The API
    /// does not ask for this of routes on Services (GEP-1294). With a cluster, the agent needs the right
    /// to list and watch ReferenceGrants.
    #[arg(
        long,
        env = "SPLITTER_REQUIRE_REFERENCE_GRANTS",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    require_reference_grants: bool,
}

impl ClusterArgs {
    /// Has the kinds read that are read only if they are asked for. To be done before anything goes by
    /// kinds.
    fn add_kinds(&self) -> anyhow::Result<()> {
        if self.require_reference_grants {
            kinds::add(&[Kind::REFERENCE_GRANT.entry()])?;
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            cluster_domain: domain::of_cluster(self.cluster_domain.as_deref()),
            requires_grants: self.require_reference_grants,
            ..Settings::default()
        }
    }
}

/// Form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill the maps from a source, attach the programs, and keep both as the source says.
    Run(run::RunArgs),
    /// Ask the running agent whether it is ready and alive.
    Health(health::HealthArgs),
    /// Show configured against observed shares, from the pinned maps alone.
    Status(status::StatusArgs),
    /// List live connections that were split.
    Connections(connections::ConnectionsArgs),
    /// Tell what happens to a connection, and why.
    Explain(explain::ExplainArgs),
    /// Judge manifests without touching anything; exit 1 if something is refused.
    Check(check::CheckArgs),
    /// Detach every program and remove every pin.
    Cleanup(cleanup::CleanupArgs),
    /// Clean every node of a cluster, and fail if one of them does not get clean.
    Uninstall(uninstall::UninstallArgs),
    /// Print a script that completes this program's arguments in a shell.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages into a directory.
    Man(man::ManArgs),
    // By the name that the self-test calls it.
    #[command(name = crate::report::self_test::COMMAND, hide = true)]
    SelfTestConnect(self_test_connect::SelfTestConnectArgs),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run(args) => run::run(args, &cli.common),
        Command::Health(args) => health::run(args, &cli.common),
        Command::Status(args) => status::run(args, &cli.common),
        Command::Connections(args) => connections::run(args, &cli.common),
        Command::Explain(args) => explain::run(args, &cli.common),
        Command::Check(args) => check::run(args, &cli.common),
        Command::Cleanup(args) => cleanup::run(args, &cli.common),
        Command::Uninstall(args) => uninstall::run(args, &cli.common),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::SelfTestConnect(args) => self_test_connect::run(args),
    };
    match result {
        Ok(CommandOutcome::Done) => ExitCode::SUCCESS,
        Ok(CommandOutcome::Refused) => ExitCode::from(1),
        Err(error) => {
            let error = with_causes(error.as_ref());
            let message = match cli.common.output {
                Output::Text => format!("splitter-agent: {error}"),
                Output::Json => serde_json::json!({ "error": error }).to_string(),
            };
            // If standard error is gone too, the exit code has to do.
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::from(3)
        }
    }
}

/// Ends the process as clap does for a command line that is wrong.
fn usage(wrong: &str) -> ! {
    Cli::command()
        .error(clap::error::ErrorKind::ArgumentConflict, wrong)
        .exit()
}

/// Prints what a command found.
fn print(output: Output, text: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let text = match output {
        Output::Text => text.to_owned(),
        Output::Json => serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n",
    };
    write(text.as_bytes())
}

/// Writes to standard output. A reader that has read enough (`| head`) is fine: what the command
/// found stands.
fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
