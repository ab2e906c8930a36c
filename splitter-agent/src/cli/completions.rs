//! `completions`: scripts that complete arguments in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// What clap_complete's script for bash (4.6.11) calls a program with a hyphen in its name when it
/// looks for the options of a command, and what it calls it everywhere else. Without the same name
/// in both places, no option of any command is completed.
const MISNAMED: (&str, &str) = ("splitter__subcmd__agent", "splitter__agent");

use super::{Cli, CommandOutcome};

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

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<CommandOutcome> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, super::NAME, &mut script);
    super::write(&mended(args.shell, script))?;
    Ok(CommandOutcome::Done)
}

fn mended(shell: Shell, script: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(script) {
        Ok(text) if shell == Shell::Bash => text.replace(MISNAMED.0, MISNAMED.1).into_bytes(),
        Ok(text) => text.into_bytes(),
        Err(error) => error.into_bytes(),
    }
}
