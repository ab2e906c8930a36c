//! `man`: manual pages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::{Cli, CommandOutcome};

/// Write the manual pages into a directory: one for the program, and one for each command.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent man /usr/local/share/man/man1
  splitter-agent man /tmp/man && man -l /tmp/man/splitter-agent-status.1")]
pub(super) struct ManArgs {
    /// Where to write them. Made if it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(args: &ManArgs) -> anyhow::Result<CommandOutcome> {
    let directory = args.directory.display();
    fs::create_dir_all(&args.directory).with_context(|| format!("cannot create {directory}"))?;
    clap_mangen::generate_to(Cli::command(), &args.directory)
        .with_context(|| format!("cannot write manual pages to {directory}"))?;
    Ok(CommandOutcome::Done)
}
