//! Whether the kernel takes the programs, by the agent itself.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use guest::Programs;

const PINS: &str = "/sys/fs/bpf/probe";
const CGROUP: &str = "/sys/fs/cgroup/probe";
const MANIFESTS: &str = "/run/no-manifests";

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts the agent, waits until it splits or gives up, and counts which of `names` are pinned.
pub(crate) fn programs(agent: &str, names: &[String]) -> Result<Programs> {
    fs::create_dir_all(MANIFESTS)?;
    fs::create_dir_all(CGROUP).context("cannot make a cgroup")?;
    let mut child = Command::new(agent)
        .args(["run", "--manifests", MANIFESTS, "--pin-dir", PINS])
        .args(["--cgroup", CGROUP, "--log-level", "debug"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the agent")?;
    let log = child.stderr.take().context("no log")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            // Nobody listens once it is known how it went; but the agent must not be held up.
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut found = Programs::default();
    let mut last = format!("no answer within {} s", PATIENCE.as_secs());
    let mut splits = false;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if line.contains("has_set_retval=") {
            found.chooses_error = Some(line.contains("has_set_retval=true"));
        }
        if line.contains("programs attached") {
            splits = true;
            break;
        }
        last = line;
    }
    if !splits {
        found.complaint = Some(last);
    }
    found.loaded = names.iter().filter(|name| is_pinned(name)).count();
    child.kill()?;
    child.wait()?;
    let cleaned = Command::new(agent)
        .args(["cleanup", "--pin-dir", PINS])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    cleaned.context("cannot run the agent")?;
    fs::remove_dir(CGROUP).context("cannot remove a cgroup")?;
    Ok(found)
}

/// Programs are pinned beside the maps of their layout.
fn is_pinned(program: &str) -> bool {
    let layouts = fs::read_dir(PINS).into_iter().flatten().flatten();
    layouts
        .map(|layout| layout.path())
        .any(|layout| Path::new(&layout).join(program).exists())
}
