//! A program of a cluster that can be started, stopped and started again.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::space::{Space, log_to};

/// How many lines of a log an error quotes.
const QUOTED: usize = 15;

/// A program with its arguments, and its process while there is one.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    path: OsString,
    log: PathBuf,
    process: Option<Child>,
}

impl Service {
    /// A service that does not run yet. `path` is where it finds other programs.
    pub(super) fn new(
        program: PathBuf,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        path: OsString,
        logs: &Path,
    ) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        Self {
            log: logs.join(format!("{name}.log")),
            name: name.into_owned(),
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            path,
            process: None,
        }
    }

    /// The name of the program.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts it in `space`, unless it runs.
    pub(super) fn start(&mut self, space: &Space) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .current_dir("/")
            .stdin(Stdio::null());
        log_to(&mut command, &self.log)?;
        self.process = Some(space.spawn(&mut command)?);
        Ok(())
    }

    /// Kills it and waits for its end.
    pub(super) fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let stop = process.kill().and_then(|()| process.wait());
            stop.with_context(|| format!("cannot stop {}", self.name))?;
        }
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Fails if it was started and has ended, with what it wrote last.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(process) = self.process.as_mut() else {
            return Ok(());
        };
        if let Some(status) = process.try_wait()? {
            bail!("{} ended ({status}); {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The end of its log, for error messages.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(QUOTED)..);
        format!(
            "the last lines of {}:\n{}",
            self.name,
            last.unwrap_or_default().join("\n")
        )
    }
}

impl Drop for Service {
    /// The first process of a process id namespace cannot end before its last ones were collected,
    /// and these are children of the supervisor.
    fn drop(&mut self) {
        // It is killed at the latest with its namespaces.
        let _ = self.stop();
    }
}
