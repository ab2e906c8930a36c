//! What this machine must have, checked before anything is changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::features::{self, FeatureError};

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
    /// In a container that has not got the node's cgroups.
    #[error(
        "this container sees no cgroup but its own at {0}: mount the node's /sys/fs/cgroup into \
         it, as deploy/base/daemon-set.yaml does"
    )]
    OnlyOwnCgroup(PathBuf),
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
