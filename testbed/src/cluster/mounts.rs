//! The file systems of a node: the machine's own, with new ones where a node has its own.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use super::groups::{self, Hierarchy};

/// What a node writes to: never to the machine's own.
const OWN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

const CGROUP: &str = "/sys/fs/cgroup";

/// Gives this process, which has a mount namespace of its own, the file systems of a node. The
/// directories `kept` stay to be seen where they are.
pub(super) fn set_up(kept: &[PathBuf]) -> Result<()> {
    // Nothing reaches the machine's mounts; but among the node and its pods mounts are shared, as
    // pods with mount propagation want it.
    for propagation in [
        MountPropagationFlags::PRIVATE,
        MountPropagationFlags::SHARED,
    ] {
        mount_change("/", propagation | MountPropagationFlags::REC)
            .context("cannot change the propagation of mounts")?;
    }
    cover(kept)?;
    attach("proc", Path::new("/proc"), None)?;
    // A new one, because it shows the network of whoever mounts it. The old one goes with all that is
    // mounted below it: what is merely covered would still be listed.
    unmount("/sys", UnmountFlags::DETACH).context("cannot unmount /sys")?;
    attach("sysfs", Path::new("/sys"), None)?;
    attach_control_groups()?;
    attach("bpf", Path::new("/sys/fs/bpf"), None)
}

/// Whether a node has something else there than the machine.
pub(super) fn is_own(path: &Path) -> bool {
    OWN.iter()
        .chain(&["/sys", "/proc"])
        .any(|own| path.starts_with(own))
}

/// Mounts empty directories where the node writes.
fn cover(kept: &[PathBuf]) -> Result<()> {
    let hidden: Vec<_> = kept
        .iter()
        .filter(|path| OWN.iter().any(|own| path.starts_with(own)))
        .map(|path| {
            let file = File::open(path);
            Ok((
                path,
                file.with_context(|| format!("cannot open {}", path.display()))?,
            ))
        })
        .collect::<Result<_>>()?;
    for own in OWN {
        attach("tmpfs", Path::new(own), Some(c"mode=755"))?;
    }
    for (path, file) in &hidden {
        fs::create_dir_all(path)?;
        // The path leads to the directory that was opened before it was covered.
        mount_bind(format!("/proc/self/fd/{}", file.as_raw_fd()), *path)
            .with_context(|| format!("cannot mount {} again", path.display()))?;
    }
    Ok(())
}

fn attach_control_groups() -> Result<()> {
    let hierarchies = groups::hierarchies()?;
    let top = Path::new(CGROUP);
    if groups::is_version_2_only(&hierarchies) {
        return attach("cgroup2", top, None);
    }
    attach("tmpfs", top, Some(c"mode=755"))?;
    for hierarchy in &hierarchies {
        attach_hierarchy(top, hierarchy)
            .with_context(|| format!("cannot mount the controllers {}", hierarchy.controllers))?;
    }
    Ok(())
}

fn attach_hierarchy(top: &Path, hierarchy: &Hierarchy) -> Result<()> {
    let controllers = &hierarchy.controllers;
    let (name, kind, options) = if hierarchy.is_version_2() {
        ("unified", "cgroup2", String::new())
    } else if let Some(name) = controllers.strip_prefix("name=") {
        (name, "cgroup", format!("none,{controllers}"))
    } else {
        (controllers.as_str(), "cgroup", controllers.clone())
    };
    let target = top.join(name);
    fs::create_dir(&target)?;
    let options = std::ffi::CString::new(options)?;
    attach(kind, &target, Some(&options))?;
    // Where two share a hierarchy, programs look for each by its own name.
    if name.contains(',') {
        for controller in name.split(',') {
            std::os::unix::fs::symlink(name, top.join(controller))?;
        }
    }
    Ok(())
}

fn attach(kind: &str, target: &Path, options: Option<&CStr>) -> Result<()> {
    mount(kind, target, kind, MountFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} on {}", target.display()))
}
