//! Where maps and links are pinned.
//!
//! ```text
//! <pin directory>/          locked by the running agent
//!   links/connect4-4711 ... one link per program and cgroup, which the number is the id of;
//!                           survives changes of the layout
//!   v2/FRONTENDS ...        the maps, below the version of their layout (see `layouts`)
//!   v2/connect4 ...         the programs that use them
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::layouts::Layout;
use super::syscall;

/// `BPF_FS_MAGIC` in `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Where the BPF file system is mounted by custom.
const BPF_FS: &str = "/sys/fs/bpf";

/// Every program, in the order in which they are attached: what undoes a rewrite for the
/// application is in place before what rewrites.
pub const PROGRAMS: [&str; 4] = ["getpeername4", "getpeername6", "connect4", "connect6"];

/// How often, and how long apart, it is tried to lock the directory, in case somebody is just
/// looking whether it is locked.
const LOOKS: u32 = 40;
const LOOK: Duration = Duration::from_millis(5);

/// The map that leads to all others, in every layout.
const FRONTENDS: &str = "FRONTENDS";

/// The directory that the agent pins its maps and links in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDirectory(PathBuf);

/// Why a pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Not on a BPF file system.
    #[error(
        "{0} is not on a BPF file system, so nothing can be pinned there; mount one with \
         `mount -t bpf bpf /sys/fs/bpf`, or name another place with --pin-dir"
    )]
    NotBpfFileSystem(PathBuf),
    /// The root of a BPF file system, which others use too.
    #[error(
        "{0} is the root of a BPF file system, which other programs use as well; give \
         --pin-dir a directory of its own, such as {0}/splitter"
    )]
    NotOwn(PathBuf),
    /// Another agent has it.
    #[error(
        "another splitter-agent is at work in {0}; stop it first, or give this one a \
         --pin-dir of its own"
    )]
    Locked(PathBuf),
    /// It is not there, or was removed in this moment.
    #[error("{0} is not there any more; run the command again")]
    Gone(PathBuf),
    /// Others than root may write to it, or to what it is in.
    #[error(
        "{path} belongs to user {owner} and has mode {mode:04o}, so that others than root may \
         replace what is pinned there; if they should not be able to, run `chown root {path} && \
         chmod go-w {path}`, or else give --pin-dir another directory"
    )]
    Unsafe {
        /// Which directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Something is there that no agent made.
    #[error("{0} does not look like a pin directory of splitter-agent; nothing was removed")]
    Foreign(PathBuf),
    /// Only root may look.
    #[error("{0} may only be looked at by root; run the same command with sudo")]
    Denied(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What came of it.
        #[source]
        source: io::Error,
    },
}

impl PinError {
    pub(super) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => Self::Denied(path),
                _ => Self::Io {
                    action,
                    path,
                    source,
                },
            }
        }
    }
}

/// Held while an agent is at work in a pin directory.
#[derive(Debug)]
pub struct PinLock(#[expect(dead_code, reason = "open for as long as the lock is held")] File);

impl PinDirectory {
    /// A pin directory, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the link of a program on a cgroup is pinned.
    ///
    /// An agent of a version that knows one cgroup only, and takes over from us, detaches what
    /// has other names than its own, so that both ways of changing the version leave one
    /// program of each kind.
    #[must_use]
    pub fn link(&self, program: &str, cgroup_id: u64) -> PathBuf {
        self.links().join(format!("{program}-{cgroup_id}"))
    }

    /// The pinned links of these programs, sorted.
    ///
    /// # Errors
    ///
    /// If the directory cannot be listed.
    pub(crate) fn pinned_links(&self) -> Result<Vec<PinnedLink>, PinError> {
        if !exists(&self.links())? {
            return Ok(Vec::new());
        }
        let links = entries(&self.links())?;
        Ok(links.into_iter().filter_map(PinnedLink::parse).collect())
    }

    /// Makes the directory, and that of the links.
    ///
    /// # Errors
    ///
    /// If the place is not on a BPF file system, or cannot be written.
    pub fn create(&self) -> Result<(), PinError> {
        self.check_place()?;
        let path = self.links();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(PinError::io("create", &path))
    }

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
        let magic = syscall::file_system_magic(place).map_err(PinError::io("examine", place))?;
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
    fn check_place(&self) -> Result<(), PinError> {
        let mut nearest = self.0.as_path();
        while !exists(nearest)? {
            nearest = nearest.parent().unwrap_or(Path::new("/"));
        }
        let magic =
            syscall::file_system_magic(nearest).map_err(PinError::io("examine", nearest))?;
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

    fn is_links_or_layout(&self, path: &Path) -> bool {
        path == self.links() || Layout::is_one(path)
    }

    /// Locks the directory until the result is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// If another process holds the lock, or the directory is not there (any more).
    pub fn lock(&self) -> Result<PinLock, PinError> {
        let directory = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PinError::Gone(self.0.clone()));
            }
            result => result.map_err(PinError::io("open", &self.0))?,
        };
        let mut tries = 0;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // `is_locked` may be looking.
                Err(Errno::WOULDBLOCK) if tries < LOOKS => {
                    tries += 1;
                    thread::sleep(LOOK);
                }
                Err(Errno::WOULDBLOCK) => return Err(PinError::Locked(self.0.clone())),
                Err(errno) => return Err(PinError::io("lock", &self.0)(errno.into())),
            }
        }
        // `cleanup` may have removed it between our opening and our locking it: then this
        // lock keeps nobody out.
        let ours = directory
            .metadata()
            .map_err(PinError::io("examine", &self.0))?;
        if fs::metadata(&self.0).is_ok_and(|now| now.ino() == ours.ino()) {
            Ok(PinLock(directory))
        } else {
            Err(PinError::Gone(self.0.clone()))
        }
    }

    /// Whether an agent is at work here, which has locked the directory.
    ///
    /// # Errors
    ///
    /// If that cannot be found out.
    pub fn is_locked(&self) -> Result<bool, PinError> {
        let directory = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result.map_err(PinError::io("open", &self.0))?,
        };
        // A lock that others who look can have too; given back at once, with the descriptor.
        match flock(&directory, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(PinError::io("examine the lock of", &self.0)(errno.into())),
        }
    }

    /// Whether something is pinned here.
    ///
    /// # Errors
    ///
    /// If that cannot be found out.
    pub fn is_used(&self) -> Result<bool, PinError> {
        exists(&self.0)
    }

    /// The maps of other layouts than this.
    ///
    /// # Errors
    ///
    /// If the directory cannot be listed.
    pub fn other_layouts(&self, layout: &Layout) -> Result<Vec<Layout>, PinError> {
        let mut layouts = self.layouts()?;
        layouts.retain(|other| other != layout);
        Ok(layouts)
    }

    /// Removes the maps of other layouts than this. To be called once the programs no
    /// longer use them. Gives back what was removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn remove_other_layouts(&self, layout: &Layout) -> Result<Vec<Layout>, PinError> {
        let layouts = self.other_layouts(layout)?;
        for layout in &layouts {
            remove_layout(layout)?;
        }
        Ok(layouts)
    }

    /// Ids of the programs behind the pinned links.
    pub(super) fn attached_program_ids(&self) -> Result<BTreeSet<u32>, PinError> {
        let mut ids = BTreeSet::new();
        for link in self.pinned_links()? {
            // What is not there any more has no program at work.
            let link = syscall::open_pin(&link.path);
            let info = link.and_then(|link| syscall::link_info(link.as_fd()));
            ids.extend(info.map(|info| info.program_id));
        }
        Ok(ids)
    }

    /// Detaches and removes links but those of our programs on these cgroups: those of a later
    /// version, say, or on cgroups that have no pods. Gives back what was removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn remove_other_links(&self, cgroups: &BTreeSet<u64>) -> Result<Vec<PathBuf>, PinError> {
        let mut links = entries(&self.links())?;
        links.retain(|link| {
            let link = PinnedLink::parse(link.clone()).and_then(|link| link.cgroup_id);
            !link.is_some_and(|id| cgroups.contains(&id))
        });
        for link in &links {
            detach(link);
            remove_file(link)?;
        }
        Ok(links)
    }

    /// Removes everything that an agent pins, and nothing else: links first, so that the
    /// programs stop before their maps go. Gives back what was removed.
    ///
    /// # Errors
    ///
    /// If this is not a pin directory, or something cannot be removed.
    pub fn remove(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut removed = Vec::new();
        if !exists(&self.0)? {
            return Ok(removed);
        }
        self.check_place()?;
        if !self.is_ours()? {
            return Err(PinError::Foreign(self.0.clone()));
        }
        if exists(&self.links())? {
            removed.extend(self.remove_other_links(&BTreeSet::new())?);
            fs::remove_dir(self.links()).map_err(PinError::io("remove", &self.links()))?;
        }
        for layout in self.layouts()? {
            removed.extend(remove_layout(&layout)?);
        }
        if entries(&self.0)?.is_empty() {
            fs::remove_dir(&self.0).map_err(PinError::io("remove", &self.0))?;
        }
        Ok(removed)
    }

    /// Whether an agent made this directory: where an agent pins links and maps, there is a
    /// link of ours, or a map that every layout has, or nothing yet.
    fn is_ours(&self) -> Result<bool, PinError> {
        let mut pins = Vec::new();
        if exists(&self.links())? {
            pins.extend(entries(&self.links())?);
        }
        for layout in self.layouts()? {
            pins.extend(entries(layout.path())?);
        }
        let is_ours = |pin: &PathBuf| {
            PinnedLink::parse(pin.clone()).is_some()
                || pin.file_name().is_some_and(|name| name == FRONTENDS)
        };
        Ok(pins.is_empty() || pins.iter().any(is_ours))
    }

    fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// The directories of maps, of all versions.
    pub(super) fn layouts(&self) -> Result<Vec<Layout>, PinError> {
        let mut layouts = entries(&self.0)?;
        layouts.retain(|path| Layout::is_one(path));
        Ok(layouts.into_iter().map(Layout::new).collect())
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

/// A link of ours, by the name of its pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PinnedLink {
    pub(crate) path: PathBuf,
    /// Whose link it is.
    pub(crate) program: &'static str,
    /// The cgroup that it was made for; `None` in the form that the first version used, which
    /// knew one cgroup only.
    pub(crate) cgroup_id: Option<u64>,
}

impl PinnedLink {
    fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (program, cgroup_id) = match name.split_once('-') {
            None => (name, None),
            Some((program, id)) => (program, Some(id.parse().ok()?)),
        };
        let program = PROGRAMS.into_iter().find(|known| *known == program)?;
        Some(Self {
            path,
            program,
            cgroup_id,
        })
    }
}

/// Removes the maps of a layout: `FRONTENDS` first, without which nothing leads to the
/// others, so that a removal that is cut short leaves nothing half programmed.
pub(super) fn remove_layout(layout: &Layout) -> Result<Vec<PathBuf>, PinError> {
    let layout = layout.path();
    let mut pins = entries(layout)?;
    pins.sort_by_key(|pin| pin.file_name().is_none_or(|name| name != FRONTENDS));
    for pin in &pins {
        remove_file(pin)?;
    }
    fs::remove_dir(layout).map_err(PinError::io("remove", layout))?;
    Ok(pins)
}

pub(super) fn remove_file(path: &Path) -> Result<(), PinError> {
    fs::remove_file(path).map_err(PinError::io("remove", path))
}

/// Whether something is at a path.
///
/// # Errors
///
/// If that cannot be found out; above all, if only root may.
pub(super) fn exists(path: &Path) -> Result<bool, PinError> {
    path.try_exists().map_err(PinError::io("examine", path))
}

/// Detaches the link that is pinned at a path. What cannot be opened or detached (its
/// cgroup is gone, or it is no link) is detached when it is unpinned, if ever it was not.
fn detach(path: &Path) {
    let _ = syscall::open_pin(path).and_then(|link| syscall::detach_link(link.as_fd()));
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

/// What is in a directory, sorted.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let mut entries = fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(PinError::io("list", directory))?;
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_by_the_names_of_their_pins() {
        let parse = |name: &str| {
            let link = PinnedLink::parse(Path::new("/pins/links").join(name))?;
            Some((link.program, link.cgroup_id))
        };
        assert_eq!(parse("connect4-4711"), Some(("connect4", Some(4711))));
        assert_eq!(parse("getpeername6"), Some(("getpeername6", None)));
        for name in ["connect4-new", "connect4-", "sendmsg4-1", "theirs", "-1"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
