//! Running commands so that Ctrl-C is noticed meanwhile.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use testbed::cluster::Cluster;
use testbed::workspace;

use crate::interrupt;

/// A command that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    line: String,
    child: Child,
    output: Reader,
    errors: Reader,
}

type Reader = Option<JoinHandle<io::Result<Vec<u8>>>>;

/// `kubectl` with these arguments, in the workspace.
pub(super) fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<Command> {
    let mut command = cluster.kubectl()?;
    command.current_dir(workspace::root()).args(arguments);
    Ok(command)
}

/// Runs `kubectl` to its end, and returns what it prints.
pub(super) fn run(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    Running::start(line(arguments), &mut kubectl(cluster, arguments)?)?.succeed()
}

/// What a person would type.
pub(super) fn line(arguments: &[&str]) -> String {
    format!("kubectl {}", arguments.join(" "))
}

impl Running {
    /// Starts a command, which is called `line` in messages.
    pub(super) fn start(line: String, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is ours to act upon.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self {
            output: child.stdout.take().map(read),
            errors: child.stderr.take().map(read),
            line,
            child,
        })
    }

    /// Waits for its end, whatever it comes to.
    pub(super) fn end(mut self) -> Result<Output> {
        let status = loop {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            sleep(Duration::from_millis(2));
        };
        Ok(Output {
            status,
            stdout: collect(&mut self.output)?,
            stderr: collect(&mut self.errors)?,
        })
    }

    /// Waits for its end, and fails if it does.
    pub(super) fn succeed(self) -> Result<String> {
        let line = self.line.clone();
        let output = self.end()?;
        if !output.status.success() {
            bail!(
                "`{line}` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something odd"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for one that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads on the side: a full pipe would stop the command.
fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

fn collect(reader: &mut Reader) -> Result<Vec<u8>> {
    let Some(reader) = reader.take() else {
        return Ok(Vec::new());
    };
    let bytes = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
    Ok(bytes?)
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
    }

    #[test]
    fn a_command_that_fails_tells_why() {
        let error = shell("echo 'no such pod' >&2; exit 1").succeed();
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "`sh` failed: no such pod");
    }

    #[test]
    fn output_that_fills_a_pipe_does_not_stop_a_command() {
        let text = shell("head -c 1000000 /dev/zero").succeed().unwrap();
        assert_eq!(text.len(), 1_000_000);
    }
}
