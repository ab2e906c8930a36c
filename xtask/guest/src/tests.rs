//! Running a test program.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use guest::{Record, Test};

use crate::Console;

/// Runs a program's tests and says what it prints; at `deadline` it is killed.
pub(crate) fn run(test: &Test, deadline: Instant, console: &Console) -> Result<()> {
    console.say(&Record::Listed {
        program: test.name.clone(),
        tests: list(test)?,
    });
    let mut child = Command::new(&test.program)
        .args(&test.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", test.name))?;
    let output = child.stdout.take().context("no output")?;
    let errors = child.stderr.take().context("no errors")?;
    let (sender, end) = mpsc::channel::<()>();
    let mut failure = None;
    thread::scope(|scope| {
        let output_sender = sender.clone();
        scope.spawn(move || {
            pass_on(output, &test.name, true, console);
            drop(output_sender);
        });
        scope.spawn(move || {
            pass_on(errors, &test.name, false, console);
            drop(sender);
        });
        // Nothing is sent: both ends are dropped when there is nothing more to read.
        let left = deadline.saturating_duration_since(Instant::now());
        if end.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            failure = Some("time is up".to_owned());
            let _ = child.kill();
        }
    });
    let status = child.wait()?;
    if failure.is_none() && !status.success() {
        failure = Some(status.to_string());
    }
    console.say(&Record::Ended {
        program: test.name.clone(),
        failure,
    });
    Ok(())
}

/// The tests that a program would run.
fn list(test: &Test) -> Result<Vec<String>> {
    let output = Command::new(&test.program)
        .args(&test.arguments)
        .args(["--list", "--format", "terse"])
        .output()
        .with_context(|| format!("cannot start {}", test.name))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} does not list its tests: {}",
            test.name,
            complaint.trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

fn pass_on(pipe: impl Read, program: &str, harness: bool, console: &Console) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        console.say(&Record::Output {
            program: program.to_owned(),
            harness,
            line: String::from_utf8_lossy(&line).trim_end().to_owned(),
        });
        line.clear();
    }
}
