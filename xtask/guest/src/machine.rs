//! The machine around the tests: file systems, modules, the kernel's log, the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use guest::is_alarming;
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, WaitOptions, setrlimit, wait};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

/// Where, and what kind of file system, in this order. What is in memory is so anyhow: a file system
/// of its own at `/tmp` would hide programs that were built below it.
const MOUNTS: [(&str, &str); 5] = [
    ("/dev", "devtmpfs"),
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/sys/fs/cgroup", "cgroup2"),
    ("/sys/fs/bpf", "bpf"),
];

/// Files that a process may have open at once, as service managers set it.
const OPEN_FILES: u64 = 1 << 19;

/// Mounts what a machine with systemd has mounted.
pub(crate) fn mount_all() -> Result<()> {
    for (point, kind) in MOUNTS {
        let context = || format!("cannot mount {kind} at {point}");
        if !Path::new(point).exists() {
            fs::create_dir_all(point).with_context(context)?;
        }
        mount(kind, point, kind, MountFlags::empty(), None).with_context(context)?;
    }
    Ok(())
}

/// What `uname -r` says.
pub(crate) fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Loads a module.
pub(crate) fn load_module(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open the module {path}"))?;
    finit_module(&file, c"", 0).with_context(|| format!("cannot load the module {path}"))
}

/// Sets what a machine has set when it is up.
pub(crate) fn prepare() -> Result<()> {
    let limit = Some(OPEN_FILES);
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, limit).context("cannot allow more open files")?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("cannot run ip")?;
    ensure!(up.success(), "the loopback device cannot be brought up");
    Ok(())
}

/// Collects every process that dies, until it is `last`'s turn.
pub(crate) fn collect_until(last: u32) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get().cast_unsigned() == last => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// What the kernel's log has that it should not have.
pub(crate) fn alarming_messages() -> Vec<String> {
    let log = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg");
    let Ok(mut log) = log else {
        return Vec::new();
    };
    let mut alarming = Vec::new();
    let mut record = vec![0; 16 * 1024];
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                // "priority,number,time,flags;message\n more"
                let record = String::from_utf8_lossy(&record[..length]);
                let message = record.split_once(';').map_or("", |(_, message)| message);
                let message = message.lines().next().unwrap_or_default();
                if is_alarming(message) {
                    alarming.push(message.to_owned());
                }
            }
            // Some records were overwritten before they were read.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    alarming
}

/// Ends the virtual machine.
pub(crate) fn switch_off() {
    rustix::fs::sync();
    // The emulator is told not to start it again.
    if reboot(RebootCommand::PowerOff).is_err() {
        let _ = reboot(RebootCommand::Restart);
    }
}
