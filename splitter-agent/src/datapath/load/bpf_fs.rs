//! Whether a place can be a pin directory: below the root of a BPF file system, where root alone
//! may write.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::datapath::sys;

use super::pins::{PinDirectory, PinError, entries, exists};

/// `BPF_FS_MAGIC` in `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Where the BPF file system is mounted by custom.
const BPF_FS: &str = "/sys/fs/bpf";

impl PinDirectory {
    /// Mounts the BPF file system at its usual place, if pins shall be made there and it is
    /// not mounted, as on machines without systemd. `true` if that was done. In a container
    /// the node sees it if the place is shared with the node in both directions.
    ///
    /// # Errors
    ///
    /// If it is missing and cannot be mounted.
    pub fn mount_if_missing(&self) -> Result<bool, PinError> {
        if !self.0.starts_with(BPF_FS) {
            return Ok(false);
        }
        let place = Path::new(BPF_FS);
        let magic = sys::file_system_magic(place).map_err(PinError::io("examine", place))?;
        if magic == BPF_FS_MAGIC {
            return Ok(false);
        }
        // As systemd mounts it: what is pinned is root's business alone.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        match rustix::mount::mount("bpf", place, "bpf", flags, c"mode=0700") {
            Ok(()) => Ok(true),
            // Then what is missing is told, with its remedy, by whoever needs it.
            Err(Errno::PERM | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(PinError::io("mount the BPF file system at", place)(
                errno.into(),
            )),
        }
    }

    /// Whether pins may be made, and removed, here: below the root of a BPF file system.
    pub(super) fn check_place(&self) -> Result<(), PinError> {
        let mut nearest = self.0.as_path();
        while !exists(nearest)? {
            nearest = nearest.parent().unwrap_or(Path::new("/"));
        }
        let magic = sys::file_system_magic(nearest).map_err(PinError::io("examine", nearest))?;
        if magic != BPF_FS_MAGIC {
            return Err(PinError::NotBpfFileSystem(self.0.clone()));
        }
        if nearest == self.0 && is_mount_point(nearest)? {
            return Err(PinError::NotOwn(self.0.clone()));
        }
        self.check_owners(nearest)
    }

    /// Refuses directories that others than root may write to: those of ours that exist,
    /// and those that they are in, up to the root of the file system.
    fn check_owners(&self, nearest: &Path) -> Result<(), PinError> {
        if nearest == self.0 {
            check_owner(nearest, Sticky::Refused)?;
            for path in entries(nearest)? {
                if self.is_links_or_layout(&path) {
                    check_owner(&path, Sticky::Refused)?;
                }
            }
        } else {
            check_owner(nearest, Sticky::Allowed)?;
        }
        let mut path = nearest;
        while !is_mount_point(path)? {
            let Some(parent) = path.parent() else { break };
            check_owner(parent, Sticky::Allowed)?;
            path = parent;
        }
        Ok(())
    }
}

/// Whether others may make files in a directory if they may not remove those of others
/// (the sticky bit, as on /tmp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sticky {
    Allowed,
    Refused,
}

/// Refuses a directory that others than root may write to.
fn check_owner(path: &Path, sticky: Sticky) -> Result<(), PinError> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let status = fs::metadata(path).map_err(PinError::io("examine", path))?;
    let (owner, mode) = (status.uid(), status.mode() & 0o7777);
    let is_writable =
        mode & WRITABLE_BY_OTHERS != 0 && (sticky == Sticky::Refused || mode & STICKY == 0);
    if owner == 0 && !is_writable {
        return Ok(());
    }
    Err(PinError::Unsafe {
        path: path.to_owned(),
        owner,
        mode,
    })
}

/// Whether a directory is the root of its file system: its parent is on another.
fn is_mount_point(path: &Path) -> Result<bool, PinError> {
    let device = |path: &Path| {
        fs::metadata(path)
            .map(|status| status.dev())
            .map_err(PinError::io("examine", path))
    };
    Ok(device(path)? != device(&path.join(".."))?)
}
