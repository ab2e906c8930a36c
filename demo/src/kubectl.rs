//! Running commands so that Ctrl-C is noticed meanwhile.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::cluster::Cluster;
use testbed::workspace;

use crate::interrupt;

/// A command that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    line: String,
    child: Child,
    // Files, because a full pipe would stop the command.
    output: File,
    errors: File,
}

/// What a command that has ended printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) is_success: bool,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Starts `kubectl` with these arguments, in the workspace.
pub(crate) fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Running> {
    let mut command = cluster.kubectl()?;
    command.current_dir(workspace::root()).args(arguments);
    Running::start(line(arguments), &mut command)
}

/// Runs `kubectl` to its end, and returns what it prints.
pub(crate) fn run(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    start(cluster, arguments)?.succeed()
}

/// What a person would type.
pub(crate) fn line(arguments: &[&str]) -> String {
    format!("kubectl {}", arguments.join(" "))
}

impl Running {
    /// Starts a command, which is called `line` in messages.
    fn start(line: String, command: &mut Command) -> Result<Self> {
        let (output, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?)
            // Ctrl-C is ours to act upon.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self {
            line,
            child,
            output,
            errors,
        })
    }

    /// Waits for its end, whether it succeeds or not.
    pub(crate) fn end(&mut self) -> Result<Ended> {
        let status = loop {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            sleep(Duration::from_millis(2));
        };
        Ok(Ended {
            is_success: status.success(),
            output: read(&mut self.output)?,
            errors: read(&mut self.errors)?,
        })
    }

    /// Waits for its end, and fails if it does.
    fn succeed(mut self) -> Result<String> {
        let ended = self.end()?;
        let (line, errors) = (&self.line, ended.errors.trim());
        ensure!(ended.is_success, "`{line}` failed: {errors}");
        Ok(ended.output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for one that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        Running::start("sh".to_owned(), Command::new("sh").args(["-c", script])).expect("a shell")
    }

    #[test]
    fn what_a_command_prints_is_returned() {
        assert_eq!(shell("echo one; echo two >&2").succeed().unwrap(), "one\n");
        let text = shell("head -c 1000000 /dev/zero").succeed().unwrap();
        assert_eq!(text.len(), 1_000_000);
    }

    #[test]
    fn a_command_that_fails_tells_why() {
        let error = shell("echo 'no such pod' >&2; exit 1").succeed();
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "`sh` failed: no such pod");
    }
}
