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
        // All programs; and nothing to warn of but what the kernel lacks.
        .args(["--outcomes", "handshakes", "--node-name", "probe"])
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
        if line.contains(" WARN ") {
            found.warnings.push(line.clone());
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

/// Programs on cgroups are pinned beside the maps of their layout. Of those on tracepoints the links are,
/// named after the program and its id.
fn is_pinned(program: &str) -> bool {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let pins = Path::new(PINS);
    let is_link = |name: &str| {
        let id = name
            .strip_prefix(program)
            .and_then(|id| id.strip_prefix('-'));
        id.is_some_and(|id| id.parse::<u32>().is_ok())
    };
    entries(pins).any(|layout| layout.path().join(program).exists())
        || entries(&pins.join("links")).any(|link| link.file_name().to_str().is_some_and(is_link))
}
