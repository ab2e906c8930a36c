//! The BPF file system, where programs and maps are pinned to outlive their makers.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::sys;

/// Where the BPF file system is mounted.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// What statfs says of a BPF file system.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Whether it is mounted.
pub fn is_mounted() -> Result<bool> {
    let kind = sys::file_system_kind(Path::new(MOUNT_POINT))
        .with_context(|| format!("{MOUNT_POINT} is missing: does this kernel have BPF?"))?;
    Ok(kind == BPF_FS_MAGIC)
}

/// Mounts it where it is not yet. True when that was necessary.
pub fn ensure_mounted() -> Result<bool> {
    if is_mounted()? {
        return Ok(false);
    }
    // Two processes at once would put a second, empty one over what the first has begun to use.
    // The lock is on the directory below the mount, which the second to come sees as well.
    let directory = File::open(MOUNT_POINT)?;
    directory.lock().context("cannot lock the mount point")?;
    if is_mounted()? {
        return Ok(false);
    }
    sys::mount_bpf(Path::new(MOUNT_POINT)).with_context(|| {
        format!("cannot mount the BPF file system; remedy: mount -t bpf bpf {MOUNT_POINT}")
    })?;
    Ok(true)
}

/// A directory for pins, removed when dropped. It is named, not made.
#[derive(Debug)]
pub(crate) struct PinDirectory {
    path: PathBuf,
    owner: u32,
}

impl PinDirectory {
    /// The directory `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            path: Path::new(MOUNT_POINT).join(name),
            owner: std::process::id(),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PinDirectory {
    fn drop(&mut self) {
        if self.owner == std::process::id()
            && let Err(error) = remove(&self.path)
        {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Removes a directory of pins. One that is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pins in {}", path.display()))
        }
        _ => Ok(()),
    }
}
