//! `completions`: scripts that complete arguments in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Outcome};

/// Print a script that completes this program's arguments in a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent completions bash >/etc/bash_completion.d/splitter-agent
  splitter-agent completions zsh >/usr/local/share/zsh/site-functions/_splitter-agent
  splitter-agent completions fish >~/.config/fish/completions/splitter-agent.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, super::NAME, &mut script);
    super::write(&script)?;
    Ok(Outcome::Done)
}
