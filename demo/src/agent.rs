//! The agent of the demo: a real one, watched from outside as an operator would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testbed::lab::Lab;

use super::interrupt;
use super::manifests::Manifests;
use super::scenario::Scenario;
use super::status::Status;

/// How long a change may take to be programmed. It takes milliseconds, but a first start loads
/// programs, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of the log is shown when something went wrong.
const LOG_LINES: usize = 20;

/// A running agent. Killed when dropped; what it pinned goes with the lab.
#[derive(Debug)]
pub(crate) struct Agent {
    binary: PathBuf,
    pins: PathBuf,
    log: PathBuf,
    process: Child,
}

impl Agent {
    /// Starts it on the lab's cgroup; it writes what it has to say to the file `log`.
    pub(crate) fn start(
        binary: &Path,
        lab: &Lab,
        manifests: &Manifests,
        log: PathBuf,
    ) -> Result<Self> {
        let output = File::create(&log)?;
        let pins = lab.pin_directory();
        let process = lab
            .command(binary)?
            .arg("run")
            .arg("--manifests")
            .arg(manifests.directory())
            .arg("--cgroup")
            .arg(lab.cgroup())
            .arg("--pin-dir")
            .arg(&pins)
            .args(["--node-name", "demo"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start the agent {}", binary.display()))?;
        Ok(Self {
            binary: binary.to_owned(),
            pins,
            log,
            process,
        })
    }

    /// The command that shows its state.
    pub(crate) fn status_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("status").arg("--pin-dir").arg(&self.pins);
        command
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until its programs are attached.
    pub(crate) fn wait_attached(&mut self) -> Result<()> {
        self.wait("attach its programs", |status| status.attached)
    }

    /// Waits until the kernel splits the scenario's Service by these weights.
    pub(crate) fn wait_programmed(&mut self, scenario: &Scenario, weights: [u64; 2]) -> Result<()> {
        let [one, two] = weights;
        let what = format!("program {} at {one}/{two}", scenario.split);
        self.wait(&what, |status| status.shows(scenario, weights))
    }

    /// Waits until `status` is as `wanted`, which is when the agent did `what`.
    fn wait(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            let seen = self.status();
            if seen.as_ref().is_ok_and(&wanted) {
                return Ok(());
            }
            if let Some(end) = self.process.try_wait()? {
                bail!("the agent ended ({end}){}", self.log_tail());
            }
            if Instant::now() > deadline {
                let seen = match seen {
                    Ok(status) => format!("status says {status:?}"),
                    Err(error) => format!("{error:#}"),
                };
                bail!(
                    "the agent did not {what} within {PATIENCE:?}; {seen}{}",
                    self.log_tail()
                );
            }
            sleep(Duration::from_millis(2));
        }
    }

    fn status(&self) -> Result<Status> {
        Status::of(self.status_command().args(["-o", "json"]))
    }

    /// The end of its log, to be put after a sentence about what went wrong.
    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            return "; its log is empty".to_owned();
        }
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("; its log ends with:\n  {}", tail.join("\n  "))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
