//! Control groups: where cgroup v2 is mounted, and subtrees that take their processes with them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::sys::{self, Pid};
use crate::mounts;

/// How long killed processes may take to leave, and a cgroup to become removable.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mounted cgroup v2 file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The cgroup that is seen at the mount point; `/` unless only a part is mounted.
    root: String,
    point: PathBuf,
}

/// The directory where cgroup v2 is mounted: `/sys/fs/cgroup`, or elsewhere where the first
/// version is in use beside it.
pub fn mount_point() -> Result<PathBuf> {
    Ok(find_mount()?.point)
}

fn find_mount() -> Result<Mount> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    parse_mounts(&table).context(
        "no cgroup v2 file system is mounted; remedy: mount -t cgroup2 none /sys/fs/cgroup/unified \
         (or boot with systemd.unified_cgroup_hierarchy=1)",
    )
}

/// Finds the cgroup v2 mount in a mountinfo table; one that shows the whole tree is preferred.
fn parse_mounts(table: &str) -> Option<Mount> {
    let mut found: Option<Mount> = None;
    for mount in table.lines().filter_map(mounts::Mount::parse) {
        let is_better =
            found.is_none() || mount.root == "/" && found.as_ref().is_some_and(|it| it.root != "/");
        if mount.kind == "cgroup2" && is_better {
            found = Some(Mount {
                root: mount.root.to_owned(),
                point: PathBuf::from(mount.point),
            });
        }
    }
    found
}

/// The directory of the cgroup that this process is in.
pub(crate) fn own() -> Result<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").context("cannot read own cgroup")?;
    let path = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .context("this process is in no cgroup of version 2")?;
    Ok(directory_of(path, &find_mount()?))
}

/// Where the cgroup `path` is to be found under `mount`; the top of the mount if it lies outside.
fn directory_of(path: &str, mount: &Mount) -> PathBuf {
    let below = Path::new(path)
        .strip_prefix(&mount.root)
        .ok()
        .filter(|below| !below.starts_with(".."));
    match below {
        Some(below) => mount.point.join(below),
        None => mount.point.clone(),
    }
}

/// A cgroup and everything below it. [`Drop`] kills the processes and removes the directories.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    owner: u32,
}

impl Cgroup {
    /// Makes the cgroup `name` under `parent`.
    pub(crate) fn create(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self {
            path,
            owner: std::process::id(),
        })
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.owner == std::process::id()
            && let Err(error) = remove(&self.path)
        {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Kills every process below `path` and removes the directories, deepest first. One that is gone
/// already is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        kill_processes(path);
        match remove_directories(path) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() < deadline && is_busy(&error) => {
                sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Err(error) => {
                let left = processes(path);
                return Err(error).with_context(|| {
                    format!(
                        "cannot remove the cgroup {} (processes {left:?})",
                        path.display()
                    )
                });
            }
        }
    }
}

/// Still in use, or a child appeared or vanished while we were at it.
fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::ENOTEMPTY | libc::ENOENT | libc::ENODEV)
    )
}

/// Kills what runs in the subtree: by `cgroup.kill` (Linux 5.14), else one by one.
fn kill_processes(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        for pid in processes(path) {
            // It may have ended by itself in the meantime.
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }
}

/// The processes of the subtree.
fn processes(path: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<Pid> = list.lines().filter_map(|line| line.parse().ok()).collect();
    // Never a process of another namespace (shown as 0), and never ourselves.
    found.retain(|pid| *pid > 0 && pid.cast_unsigned() != std::process::id());
    for child in children(path).unwrap_or_default() {
        found.extend(processes(&child));
    }
    found
}

fn remove_directories(path: &Path) -> io::Result<()> {
    let children = match children(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for child in children {
        remove_directories(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The cgroups directly below `path`.
fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The cgroups directly below `path` whose name `wanted` accepts.
pub(crate) fn find_in(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    // Others come and go meanwhile.
    let mut found = children(path).unwrap_or_default();
    found.retain(|child| accepts(wanted, child));
    found
}

/// Every cgroup below `path` whose name `wanted` accepts, not looking below those.
pub(crate) fn find_below(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let (accepted, others): (Vec<_>, Vec<_>) = children(&path)
            .unwrap_or_default()
            .into_iter()
            .partition(|child| accepts(wanted, child));
        found.extend(accepted);
        left.extend(others);
    }
    found
}

fn accepts(wanted: &dyn Fn(&str) -> bool, path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(wanted)
}

/// Whether processes of another process id namespace are in the subtree: what its name says about
/// a process id means nothing here.
pub(crate) fn is_foreign(path: &Path) -> bool {
    let own = fs::read_link("/proc/self/ns/pid").ok();
    let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    list.lines().any(|pid| {
        // Processes that have no id in our namespace are listed as 0.
        pid == "0"
            || fs::read_link(format!("/proc/{pid}/ns/pid"))
                .is_ok_and(|namespace| Some(&namespace) != own.as_ref())
    }) || children(path)
        .unwrap_or_default()
        .iter()
        .any(|child| is_foreign(child))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str) -> Mount {
        Mount {
            root: root.to_owned(),
            point: PathBuf::from(point),
        }
    }

    #[test]
    fn the_mount_is_found_in_either_layout() {
        let hybrid = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw
";
        assert_eq!(
            parse_mounts(hybrid),
            Some(mount("/", "/sys/fs/cgroup/unified"))
        );
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse_mounts(unified), Some(mount("/", "/sys/fs/cgroup")));
        assert_eq!(parse_mounts("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn a_mount_of_the_whole_tree_is_preferred() {
        let table = "\
30 23 0:26 /docker/abc /mnt rw - cgroup2 cgroup2 rw
31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
";
        assert_eq!(parse_mounts(table), Some(mount("/", "/sys/fs/cgroup")));
    }

    #[test]
    fn the_own_cgroup_is_found_below_a_partial_mount() {
        let whole = mount("/", "/sys/fs/cgroup");
        let part = mount("/docker/abc", "/sys/fs/cgroup");
        let directory = |path, mount| directory_of(path, mount).display().to_string();
        assert_eq!(directory("/", &whole), "/sys/fs/cgroup/");
        assert_eq!(directory("/user/me", &whole), "/sys/fs/cgroup/user/me");
        assert_eq!(directory("/docker/abc/x", &part), "/sys/fs/cgroup/x");
        assert_eq!(directory("/elsewhere", &part), "/sys/fs/cgroup");
        assert_eq!(directory("/../outside", &whole), "/sys/fs/cgroup");
    }
}
