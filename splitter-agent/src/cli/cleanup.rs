//! `cleanup`: detach every program and remove every pin.

use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{Common, Outcome, print};

/// Detach every program and remove every pin.
///
/// Splits end at once: Services behave as without splitter. Refuses while an agent is at
/// work there, which would put everything back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent cleanup
  splitter-agent cleanup --pin-dir /sys/fs/bpf/splitter -o json")]
pub(super) struct CleanupArgs {}

#[derive(Serialize)]
struct Report {
    removed: Vec<String>,
}

pub(super) fn run(_: &CleanupArgs, common: &Common) -> anyhow::Result<Outcome> {
    let pins = common.pins();
    let removed = if pins.is_used()? {
        let _lock = pins.lock()?;
        pins.remove()
            .context("not everything could be removed; run the command again")?
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
    let report = Report {
        removed: removed
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    print(common.output, &text, &report)?;
    Ok(Outcome::Done)
}
