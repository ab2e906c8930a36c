//! A virtual machine: QEMU without hardware acceleration, which everyone has, and which needs no
//! rights.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::list::Kernel;
use super::outcome::Outcome;
use crate::image::Platform;

/// What every kernel is told: to write to the console what is grave alone, since results are written
/// there too; and to end if it cannot go on. Defences against other programs cost time.
const COMMAND_LINE: &str = "loglevel=1 panic=-1 mitigations=off random.trust_cpu=on";

const PROCESSORS: u32 = 2;

/// In MiB. It holds the test programs too.
const MEMORY: u32 = 2048;

/// What the emulator takes besides, in MiB.
const OVERHEAD: u32 = 512;

/// How many machines this one has free memory for, at most `wanted`.
pub(super) fn affordable(wanted: usize) -> usize {
    let free = fs::read_to_string("/proc/meminfo").ok();
    let free = free.and_then(|text| available_kib(&text));
    let each = u64::from(MEMORY + OVERHEAD) * 1024;
    free.map_or(wanted, |free| {
        wanted.min(usize::try_from(free / each).unwrap_or(usize::MAX))
    })
}

/// `MemAvailable` of /proc/meminfo.
fn available_kib(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Boots a kernel, has `log` filled with its console, and completes `outcome` from that. The machine is
/// ended after `limit`.
pub(super) fn run(
    kernel: &Kernel,
    image: &Path,
    initramfs: &Path,
    log: &Path,
    limit: Duration,
    mut outcome: Outcome,
) -> Result<Outcome> {
    let mut log_file =
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut machine = Machine(
        command(kernel, image, initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {}", emulator(kernel.platform)))?,
    );
    let console = machine.0.stdout.take().context("no console")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let reason = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                log_file
                    .write_all(line.as_bytes())
                    .context("cannot write the log")?;
                outcome.take(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("no end within {} s", limit.as_secs()));
            }
        }
    };
    drop(machine);
    drop(lines);
    // It has nothing more to read.
    let _ = reader.join();
    outcome.end(reason);
    Ok(outcome)
}

/// Ends with the value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A processor without some of what it has.
fn features(processor: &str, without: &[&str]) -> String {
    let without = without.iter().map(|feature| format!(",-{feature}"));
    std::iter::once(processor.to_owned())
        .chain(without)
        .collect()
}

/// The program that emulates a platform.
pub(super) const fn emulator(platform: Platform) -> &'static str {
    match platform {
        Platform::Amd64 => "qemu-system-x86_64",
        Platform::Arm64 => "qemu-system-aarch64",
    }
}

/// Has the emulator start and quit, without a machine.
///
/// # Errors
///
/// When it cannot, as where what it needs of the system is forbidden.
pub(super) fn try_emulator(platform: Platform) -> Result<()> {
    let emulator = emulator(platform);
    let mut child = Command::new(emulator)
        .args(["-machine", "none", "-accel", "tcg", "-nodefaults"])
        .args(["-no-user-config", "-display", "none", "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {emulator}"))?;
    if let Some(mut monitor) = child.stdin.take() {
        // One that has ended already says why.
        let _ = monitor.write_all(b"quit\n");
    }
    let output = child.wait_with_output().context("no end of it")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{emulator} cannot run ({}): {}", output.status, said.trim());
    }
    Ok(())
}

fn command(kernel: &Kernel, image: &Path, initramfs: &Path) -> Command {
    let Kernel {
        platform, without, ..
    } = *kernel;
    let mut command = Command::new(emulator(platform));
    let console = match platform {
        Platform::Amd64 => {
            command.arg("-cpu").arg(features("max", without));
            "ttyS0"
        }
        Platform::Arm64 => {
            // The usual algorithm to sign pointers takes most of the time where it is emulated.
            command.args(["-machine", "virt", "-cpu"]);
            command.arg(features("max,pauth-impdef=on", without));
            "ttyAMA0"
        }
    };
    command
        .args(["-accel", "tcg,thread=multi"])
        .args(["-smp", &PROCESSORS.to_string(), "-m", &MEMORY.to_string()])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("console={console} {COMMAND_LINE}")]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_is_there_can_be_tried() {
        let platform = Platform::Amd64;
        let is_there = Command::new(emulator(platform)).arg("--version").output();
        if is_there.is_ok_and(|output| output.status.success()) {
            try_emulator(platform).unwrap();
        }
    }

    #[test]
    fn the_memory_that_is_free_is_read_from_the_kernels_text() {
        let text = "MemTotal:       24672164 kB\nMemFree:  51 kB\nMemAvailable:    5242880 kB\n";
        assert_eq!(available_kib(text), Some(5 * 1024 * 1024));
        assert_eq!(available_kib("MemTotal: 1 kB\n"), None);
    }
}
