//! What this machine must have, checked before anything is changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::features::{self, FeatureError};
use super::syscall;

/// `CGROUP2_SUPER_MAGIC` in `include/uapi/linux/magic.h`.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Below a cgroup v2 mount, where the pods' cgroups may be: the cgroupfs and the systemd
/// drivers of the kubelet, and the same below a kubelet group of its own (as kind has it).
const POD_GROUPS: [&str; 4] = [
    "kubepods",
    "kubepods.slice",
    "kubelet/kubepods",
    "kubelet.slice/kubelet-kubepods.slice",
];

/// What is missing, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Not root.
    #[error(
        "not running as root: loading kernel programs needs it; run the same command with sudo, \
         or in a privileged pod"
    )]
    NotRoot,
    /// The kernel cannot run the programs, or does not let us.
    #[error(transparent)]
    Kernel(#[from] FeatureError),
    /// No cgroup v2.
    #[error(
        "cgroup v2 is not mounted: mount it with `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified` \
         (or boot with systemd.unified_cgroup_hierarchy=1), or name a cgroup with --cgroup"
    )]
    NoCgroup2,
    /// A cgroup that was asked for does not exist.
    #[error("the cgroup {0} does not exist; check --cgroup")]
    NoSuchCgroup(PathBuf),
    /// What was asked for is no cgroup.
    #[error(
        "{0} is not a cgroup of a cgroup v2 hierarchy (it has no cgroup.procs); give --cgroup a \
         directory below a mount of type cgroup2, such as /sys/fs/cgroup/kubepods.slice"
    )]
    NotACgroup(PathBuf),
}

/// Checks that kernel programs can be loaded here.
///
/// # Errors
///
/// If this is not root, or else names everything that the kernel lacks.
pub fn preflight() -> Result<(), PreflightError> {
    // The owner of a process's own directory in /proc is its effective user.
    let is_root = fs::metadata("/proc/self").is_ok_and(|status| status.uid() == 0);
    if !is_root {
        return Err(PreflightError::NotRoot);
    }
    Ok(features::check()?)
}

/// The cgroup to attach to: the one asked for, or else the pods' on this node, or else
/// the root of the cgroup v2 hierarchy.
///
/// A child's programs run before its parent's, so on the pods' cgroup ours come before
/// those that others attach at the root, and before those see the address.
///
/// # Errors
///
/// If there is no such cgroup, or no cgroup v2 at all.
pub fn find_cgroup(asked: Option<&Path>) -> Result<PathBuf, PreflightError> {
    if let Some(path) = asked {
        return if !path.exists() {
            Err(PreflightError::NoSuchCgroup(path.to_owned()))
        } else if !is_cgroup2(path) {
            Err(PreflightError::NotACgroup(path.to_owned()))
        } else {
            Ok(path.to_owned())
        };
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = cgroup2_mounts(&mounts);
    let pods = roots.iter().find_map(|root| {
        let mut groups = POD_GROUPS.iter().map(|group| root.join(group));
        groups.find(|path| path.is_dir())
    });
    pods.or_else(|| roots.into_iter().next())
        .ok_or(PreflightError::NoCgroup2)
}

/// Whether a path is a cgroup that programs can be attached to. A v1 hierarchy has
/// `cgroup.procs` too.
fn is_cgroup2(path: &Path) -> bool {
    syscall::file_system_magic(path).is_ok_and(|magic| magic == CGROUP2_SUPER_MAGIC)
        && path.join("cgroup.procs").exists()
}

/// Below it a container has what is the node's own, so that a path there without it is the
/// path on the node.
const NODE: &str = "/host";

/// The path of the cgroup with an id, below a cgroup v2 mount; as it is called on the node,
/// also if asked for in a container.
#[must_use]
pub fn cgroup_path(id: u64) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut pending = vec![cgroup2_mounts(&mounts).into_iter().next()?];
    while let Some(path) = pending.pop() {
        if fs::metadata(&path).is_ok_and(|status| status.ino() == id) {
            let on_node = path.strip_prefix(NODE);
            return Some(on_node.map_or_else(|_| path.clone(), |path| Path::new("/").join(path)));
        }
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        pending.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    None
}

/// The mounts of a whole cgroup v2 hierarchy in a `/proc/<pid>/mountinfo` (proc(5): root
/// of the mount in the fourth field, its point in the fifth, type after the lone hyphen).
///
/// Those that reach above the root of our own cgroup namespace (`/..`, cgroup_namespaces(7))
/// come first: in a container that has such a namespace, they are the host's.
fn cgroup2_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mut mounts: Vec<(&str, PathBuf)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let kind = file_system.split(' ').next()?;
            let mut fields = mount.split(' ').skip(3);
            let root = fields.next()?;
            let point = fields.next()?;
            (kind == "cgroup2" && (root == "/" || root.starts_with("/..")))
                .then(|| (root, PathBuf::from(point.replace("\\040", " "))))
        })
        .collect();
    mounts.sort_by_key(|(root, _)| std::cmp::Reverse(root.len()));
    mounts.into_iter().map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_mount_of_a_hybrid_layout_is_found() {
        let mountinfo = "\
24 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
26 24 0:23 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw
";
        assert_eq!(
            cgroup2_mounts(mountinfo),
            [PathBuf::from("/sys/fs/cgroup/unified")]
        );
        assert!(cgroup2_mounts("24 1 0:21 / / rw - ext4 /dev/vda rw\n").is_empty());
    }

    #[test]
    fn in_a_container_the_mount_of_the_host_comes_before_its_own() {
        let mountinfo = "\
24 1 0:21 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
25 24 0:21 /../../.. /host/sys/fs/cgroup rw master:5 - cgroup2 cgroup2 rw
";
        assert_eq!(
            cgroup2_mounts(mountinfo).first(),
            Some(&PathBuf::from("/host/sys/fs/cgroup"))
        );
        let mountinfo = "\
24 1 0:21 /kubepods/pod1/2 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
25 24 0:21 / /host/sys/fs/cgroup rw master:5 - cgroup2 cgroup2 rw
";
        assert_eq!(
            cgroup2_mounts(mountinfo),
            [PathBuf::from("/host/sys/fs/cgroup")]
        );
    }
}
