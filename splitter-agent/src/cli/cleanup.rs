//! `cleanup`: detach every program and remove every pin.

use std::fmt::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandOutcome, Common, print};
use crate::datapath::{PinDirectory, PinError};
use crate::report::{Listen, Server};

/// How long with `--stay` an agent that is about to end is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Detach every program and remove every pin.
///
/// Splits end at once: Services behave as without splitter. Refuses while an agent is at
/// work there, which would put everything back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent cleanup
  splitter-agent cleanup --stay --listen 9464                (as a DaemonSet, on every node)
  splitter-agent cleanup --pin-dir /sys/fs/bpf/splitter -o json")]
pub(super) struct CleanupArgs {
    /// Stay when all is removed, until told to end, so that a DaemonSet can clean up every node
    /// and tell when it has. An agent that is just ending is waited for.
    #[arg(long)]
    stay: bool,

    /// With --stay: address and port to answer /livez and /readyz at, once all is removed.
    #[arg(long, env = "SPLITTER_LISTEN", value_name = "[ADDRESS:]PORT")]
    listen: Option<Listen>,
}

#[derive(Serialize)]
struct CleanupOutput {
    removed: Vec<String>,
}

pub(super) fn run(args: &CleanupArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let pins = common.pins();
    let removed = if pins.is_used()? {
        let start = Instant::now();
        loop {
            match remove(&pins) {
                Err(PinError::Locked(_)) if args.stay && start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(100));
                }
                // Everything else was found before anything was touched, and stays as it is.
                Err(error @ PinError::Io { .. }) => {
                    return Err(error)
                        .context("not everything could be removed; run the command again");
                }
                result => break result?,
            }
        }
    } else {
        Vec::new()
    };
    let mut text = String::new();
    if removed.is_empty() {
        writeln!(text, "nothing is pinned at {}", pins.path().display())?;
    }
    for path in &removed {
        writeln!(text, "removed {}", path.display())?;
    }
    let report = CleanupOutput {
        removed: removed
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    print(common.output, &text, &report)?;
    if args.stay {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(stay(args.listen))?;
    }
    Ok(CommandOutcome::Done)
}

fn remove(pins: &PinDirectory) -> Result<Vec<PathBuf>, PinError> {
    let _lock = pins.lock()?;
    pins.remove()
}

/// Answers probes until told to end.
async fn stay(listen: Option<Listen>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let server = listen.map(Server::bind).transpose()?;
    let mut serving = server.map(Server::serve_done);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = super::run::ended(serving.as_mut()) => ended?,
    }
    Ok(())
}
