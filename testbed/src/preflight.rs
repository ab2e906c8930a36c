//! Looks, before anything is done, whether this machine can run the kernel programs, and says
//! what is missing and how to get it.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::lab::{bpf_file_system, sys};
use crate::mounts::Mount;
use crate::packages::{self, Requirement};
use crate::workspace::say;

const BPFFS: &str = "/sys/fs/bpf";
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Checks this machine for `task`, a `cargo xtask` subcommand, installs the packages that are
/// missing where it can ([`packages::ensure`]), and mounts the BPF file system if only that is
/// missing. Whether the kernel has all that the programs need is for the agent to find out: it
/// asks the kernel for each feature.
///
/// # Errors
///
/// Names everything that is missing, each with its remedy.
pub fn check(task: &str, requirements: &[Requirement]) -> Result<()> {
    let machine = Machine::this()?;
    // With the arguments that were given, so that the advice can be followed as it stands.
    let arguments: Vec<String> = env::args().skip(1).collect();
    let line = arguments.join(" ");
    let is_task = task.split(' ').next() == arguments.first().map(String::as_str);
    let mut problems = machine.problems(if is_task { &line } else { task });
    if !problems.is_empty() {
        let missing = packages::missing(requirements);
        if !missing.is_empty() {
            problems.push(packages::advice(&missing));
        }
        bail!(
            "this machine cannot run `cargo xtask {task}`:\n  - {}",
            problems.join("\n  - ")
        );
    }
    packages::ensure(requirements)?;
    if !machine.has_bpffs() {
        say(format_args!("mounting the BPF file system at {BPFFS}"));
        bpf_file_system::ensure_mounted()?;
    }
    Ok(())
}

/// What the checks look at.
struct Machine {
    root: bool,
    mountinfo: String,
    btf: bool,
    bpffs_directory: bool,
}

impl Machine {
    fn this() -> Result<Self> {
        let read =
            |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        Ok(Self {
            root: sys::is_root(),
            mountinfo: read("/proc/self/mountinfo")?,
            btf: Path::new(BTF).exists(),
            bpffs_directory: Path::new(BPFFS).is_dir(),
        })
    }

    fn problems(&self, task: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.root {
            problems.push(format!(
                "only root may load kernel programs: run `sudo -E env \"PATH=$PATH\" cargo xtask {task}`"
            ));
        }
        if !self.btf {
            problems.push(format!(
                "{BTF} does not exist: boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build it"
            ));
        }
        if !self.mounts().any(|mount| mount.kind == "cgroup2") {
            problems.push(
                "cgroup v2 is not mounted: run `mkdir -p /sys/fs/cgroup/unified && \
                 mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`"
                    .to_owned(),
            );
        } else if !self
            .mounts()
            .any(|mount| mount.kind == "cgroup2" && mount.writable)
        {
            problems.push(
                "cgroup v2 is mounted read-only, as in an unprivileged container: run this on the \
                 host, or in a privileged container"
                    .to_owned(),
            );
        }
        if !self.bpffs_directory && !self.has_bpffs() {
            problems.push(format!(
                "{BPFFS} does not exist: boot a kernel with CONFIG_BPF_SYSCALL=y, and mount sysfs at /sys"
            ));
        }
        problems
    }

    fn mounts(&self) -> impl Iterator<Item = Mount<'_>> {
        self.mountinfo.lines().filter_map(Mount::parse)
    }

    fn has_bpffs(&self) -> bool {
        self.mounts()
            .any(|mount| mount.kind == "bpf" && mount.point == BPFFS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
        35 25 0:30 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn machine() -> Machine {
        Machine {
            root: true,
            mountinfo: MOUNTS.into(),
            btf: true,
            bpffs_directory: true,
        }
    }

    #[test]
    fn a_machine_that_has_everything_has_no_problems() {
        assert_eq!(machine().problems("test"), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let machine = Machine {
            root: false,
            mountinfo: String::new(),
            btf: false,
            bpffs_directory: false,
        };
        let problems = machine.problems("test");
        for (problem, word) in problems.iter().zip([
            "cargo xtask test",
            "/sys/kernel/btf/vmlinux",
            "cgroup v2",
            "/sys/fs/bpf",
        ]) {
            assert!(problem.contains(word), "{word}: {problem}");
        }
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_read_only_cgroup_mount_is_not_enough() {
        let mut machine = machine();
        machine.mountinfo = MOUNTS.replace("cgroup rw,relatime", "cgroup ro,relatime");
        let problems = machine.problems("demo");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("read-only"), "{problems:?}");
    }

    #[test]
    fn a_mounted_bpf_file_system_is_seen() {
        let mut machine = machine();
        assert!(!machine.has_bpffs());
        machine.mountinfo += "40 25 0:31 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700\n";
        assert!(machine.has_bpffs());
    }
}
