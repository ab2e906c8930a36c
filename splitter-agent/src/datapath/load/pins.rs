//! Where maps and links are pinned.
//!
//! ```text
//! <pin directory>/          locked by the running agent
//!   links/connect4-4711 ... one link per program and cgroup, which the number is the id of;
//!                           survives changes of the layout
//!   links/tcp_destroy_sock-42: see `tracing`; SOCKETS-v2: see `socket_table`
//!   v2/FRONTENDS ...        the maps, below the version of their layout (see `layouts`)
//!   v2/connect4 ...         the programs that use them
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::datapath::sys;

use super::layouts::Layout;
use super::tracing::is_tracing_link;

/// Every program on cgroups, in the order in which they are attached: what undoes a rewrite for the
/// application is in place before what rewrites.
pub const PROGRAMS: [&str; 8] = [
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
];

/// The map that leads to all others, in every layout.
const FRONTENDS: &str = "FRONTENDS";

/// The directory that the agent pins its maps and links in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDirectory(pub(super) PathBuf);

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
        /// The directory.
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
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl PinError {
    pub(crate) fn io<'a>(
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

    pub(super) fn is_links_or_layout(&self, path: &Path) -> bool {
        path == self.links() || Layout::is_one(path)
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
    pub(crate) fn attached_program_ids(&self) -> Result<BTreeSet<u32>, PinError> {
        let mut ids = BTreeSet::new();
        for link in self.pinned_links()? {
            // What is not there any more has no program at work.
            let link = sys::open_pin(&link.path);
            let info = link.and_then(|link| sys::links::link_info(link.as_fd()));
            ids.extend(info.map(|info| info.program_id));
        }
        Ok(ids)
    }

    /// Detaches and removes links but those of our programs on these cgroups, and those to
    /// tracepoints: those of a later version, say, or on cgroups that have no pods. Gives back what
    /// was removed.
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
        links.retain(|link| !is_tracing_link(link));
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
            removed.extend(self.remove_tracing_links(&BTreeSet::new())?);
            fs::remove_dir(self.links()).map_err(PinError::io("remove", &self.links()))?;
        }
        for layout in self.layouts()? {
            removed.extend(remove_layout(&layout)?);
        }
        removed.extend(self.remove_socket_tables(None)?);
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
                || is_tracing_link(pin)
                || pin.file_name().is_some_and(|name| name == FRONTENDS)
        };
        Ok(pins.is_empty() || pins.iter().any(is_ours))
    }

    pub(super) fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// The directories of maps, of all versions.
    pub(crate) fn layouts(&self) -> Result<Vec<Layout>, PinError> {
        let mut layouts = entries(&self.0)?;
        layouts.retain(|path| Layout::is_one(path));
        Ok(layouts.into_iter().map(Layout::new).collect())
    }
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
pub(crate) fn remove_layout(layout: &Layout) -> Result<Vec<PathBuf>, PinError> {
    let layout = layout.path();
    let mut pins = entries(layout)?;
    pins.sort_by_key(|pin| pin.file_name().is_none_or(|name| name != FRONTENDS));
    for pin in &pins {
        remove_file(pin)?;
    }
    fs::remove_dir(layout).map_err(PinError::io("remove", layout))?;
    Ok(pins)
}

pub(crate) fn remove_file(path: &Path) -> Result<(), PinError> {
    fs::remove_file(path).map_err(PinError::io("remove", path))
}

/// Whether something is at a path.
///
/// # Errors
///
/// If that cannot be found out; above all, if only root may.
pub(crate) fn exists(path: &Path) -> Result<bool, PinError> {
    path.try_exists().map_err(PinError::io("examine", path))
}

/// Detaches the link that is pinned at a path. What cannot be opened or detached (its
/// cgroup is gone, or it is no link) is detached when it is unpinned, if ever it was not.
fn detach(path: &Path) {
    let _ = sys::open_pin(path).and_then(|link| sys::links::detach_link(link.as_fd()));
}

/// What is in a directory, sorted.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
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

/// Whether the last part of a path is a name, a separator and a number.
pub(super) fn is_numbered(path: &Path, name: &str, separator: &str) -> bool {
    let number = || {
        let own = path.file_name()?.to_str()?;
        own.strip_prefix(name)?.strip_prefix(separator)
    };
    number().is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
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
        assert_eq!(parse("sendmsg4-1"), Some(("sendmsg4", Some(1))));
        for name in ["connect4-new", "connect4-", "bind4-1", "theirs", "-1"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
