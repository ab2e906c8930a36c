//! Looks, before anything is done, whether this machine can run the kernel programs, and says
//! what is missing and how to get it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{lab::bpf_file_system, mounts::Mount, workspace::say};

/// The oldest kernel that the programs are made for.
const KERNEL: (u32, u32) = (5, 15);
const BPFFS: &str = "/sys/fs/bpf";
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A program that has to be on the `PATH`: its name, what it is for and the Debian package.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    name: &'static str,
    purpose: &'static str,
    package: &'static str,
}

impl Program {
    /// A program by its name, what it is needed for, and its Debian package.
    #[must_use]
    pub const fn new(name: &'static str, purpose: &'static str, package: &'static str) -> Self {
        Self {
            name,
            purpose,
            package,
        }
    }

    fn is_in(&self, path: &[PathBuf]) -> bool {
        path.iter()
            .any(|directory| directory.join(self.name).is_file())
    }
}

/// The lab's networks are made with it.
pub const IP: Program = Program {
    name: "ip",
    purpose: "to make network namespaces",
    package: "iproute2",
};

/// Checks this machine for `task`, a `cargo xtask` subcommand, and mounts the BPF file system
/// if only that is missing.
///
/// # Errors
///
/// Names everything that is missing, each with its remedy.
pub fn check(task: &str, programs: &[Program]) -> Result<()> {
    let machine = Machine::this()?;
    // With the arguments that were given, so that the advice can be followed as it stands.
    let arguments: Vec<String> = env::args().skip(1).collect();
    let line = arguments.join(" ");
    let is_task = task.split(' ').next() == arguments.first().map(String::as_str);
    let problems = machine.problems(if is_task { &line } else { task }, programs);
    if !problems.is_empty() {
        bail!(
            "this machine cannot run `cargo xtask {task}`:\n  - {}",
            problems.join("\n  - ")
        );
    }
    if !machine.has_bpffs() {
        say(format_args!("mounting the BPF file system at {BPFFS}"));
        bpf_file_system::ensure_mounted()?;
    }
    Ok(())
}

/// Looks for programs that are needed in addition.
///
/// # Errors
///
/// Names all that are missing in one line, with the command that installs them.
pub fn find_programs(programs: &[Program]) -> Result<()> {
    let mut path: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !program.is_in(&path))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |text: fn(&Program) -> String, separator| {
        let texts: Vec<_> = missing.iter().map(|program| text(program)).collect();
        texts.join(separator)
    };
    bail!(
        "not installed: {}; run `apt-get install {}` (or your distribution's equal)",
        list(
            |program| format!("`{}` ({})", program.name, program.purpose),
            ", "
        ),
        list(|program| program.package.to_owned(), " ")
    )
}

/// What the checks look at.
struct Machine {
    root: bool,
    kernel: String,
    mountinfo: String,
    btf: bool,
    bpffs_directory: bool,
    path: Vec<PathBuf>,
}

impl Machine {
    fn this() -> Result<Self> {
        let read =
            |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        let mut path: Vec<PathBuf> = env::var_os("PATH")
            .map(|path| env::split_paths(&path).collect())
            .unwrap_or_default();
        if !root {
            // sudo looks there as well.
            path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        }
        Ok(Self {
            root,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            mountinfo: read("/proc/self/mountinfo")?,
            btf: Path::new(BTF).exists(),
            bpffs_directory: Path::new(BPFFS).is_dir(),
            path,
        })
    }

    fn problems(&self, task: &str, programs: &[Program]) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.root {
            problems.push(format!(
                "only root may load kernel programs: run `sudo -E env \"PATH=$PATH\" cargo xtask {task}`"
            ));
        }
        if version(&self.kernel).is_none_or(|version| version < KERNEL) {
            let (major, minor) = KERNEL;
            problems.push(format!(
                "the kernel is {}: {major}.{minor} or newer is needed",
                self.kernel
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
        for program in programs {
            if !program.is_in(&self.path) {
                problems.push(format!(
                    "`{}` is not installed, needed {}: run `apt-get install {}` (or your distribution's equal)",
                    program.name, program.purpose, program.package
                ));
            }
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

/// The first two numbers of a kernel release such as `6.1.0-26-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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
            kernel: "6.1.0-26-cloud-amd64".into(),
            mountinfo: MOUNTS.into(),
            btf: true,
            bpffs_directory: true,
            path: Vec::new(),
        }
    }

    #[test]
    fn a_machine_that_has_everything_has_no_problems() {
        assert_eq!(machine().problems("test", &[]), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let machine = Machine {
            root: false,
            kernel: "5.10.262".into(),
            mountinfo: String::new(),
            btf: false,
            bpffs_directory: false,
            path: Vec::new(),
        };
        let problems = machine.problems("test", &[IP]);
        for (problem, word) in problems.iter().zip([
            "cargo xtask test",
            "5.10.262",
            "/sys/kernel/btf/vmlinux",
            "cgroup v2",
            "/sys/fs/bpf",
            "iproute2",
        ]) {
            assert!(problem.contains(word), "{word}: {problem}");
        }
        assert_eq!(problems.len(), 6, "{problems:?}");
    }

    #[test]
    fn a_read_only_cgroup_mount_is_not_enough() {
        let mut machine = machine();
        machine.mountinfo = MOUNTS.replace("cgroup rw,relatime", "cgroup ro,relatime");
        let problems = machine.problems("demo", &[]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("read-only"), "{problems:?}");
    }

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("7.3-rc7"), Some((7, 3)));
        assert!(version("5.9.16").is_some_and(|version| version < KERNEL));
        assert_eq!(version("custom"), None);
    }

    #[test]
    fn a_mounted_bpf_file_system_is_seen() {
        let mut machine = machine();
        assert!(!machine.has_bpffs());
        machine.mountinfo += "40 25 0:31 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700\n";
        assert!(machine.has_bpffs());
    }
}
