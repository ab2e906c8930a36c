//! `self-test-connect`: the self-test's own process. Not for people.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::report::self_test;

use super::CommandOutcome;

/// Enter a cgroup and connect to the agent that started this.
#[derive(Debug, Args)]
pub(super) struct SelfTestConnectArgs {
    /// The cgroup to enter.
    #[arg(long)]
    cgroup: PathBuf,

    /// What the agent answers.
    #[arg(long)]
    token: String,

    /// Whether the programs show the address that was dialled.
    #[arg(long, action = ArgAction::Set)]
    keep_original_dst: bool,
}

pub(super) fn run(args: &SelfTestConnectArgs) -> anyhow::Result<CommandOutcome> {
    self_test::connect_in(&args.cgroup, args.token.clone(), args.keep_original_dst)?;
    Ok(CommandOutcome::Done)
}
