//! Where maps and links are pinned.
//!
//! ```text
//! <pin directory>/          locked by the running agent
//!   links/connect4 ...      one link per program; survives changes of the layout
//!   v1/FRONTENDS ...        the maps, below the version of their layout
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use splitter_common::layout::LAYOUT_VERSION;

use super::syscall;

/// `BPF_FS_MAGIC` in `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

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
    /// Another agent has it.
    #[error(
        "another splitter-agent is at work in {0}; stop it first, or give this one a \
         --pin-dir of its own"
    )]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
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
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
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

    /// Where the maps of this layout are pinned.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.0.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Where a map of this layout is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where the link of a program is pinned.
    #[must_use]
    pub fn link(&self, program: &str) -> PathBuf {
        self.0.join("links").join(program)
    }

    /// Makes the directories.
    ///
    /// # Errors
    ///
    /// If the place is not on a BPF file system, or cannot be written.
    pub fn create(&self) -> Result<(), PinError> {
        let nearest = self
            .0
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let magic =
            syscall::file_system_magic(nearest).map_err(PinError::io("examine", nearest))?;
        if magic != BPF_FS_MAGIC {
            return Err(PinError::NotBpfFileSystem(self.0.clone()));
        }
        for path in [self.0.join("links"), self.maps()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(PinError::io("create", &path))?;
        }
        Ok(())
    }

    /// Locks the directory until the result is dropped, or the process ends.
    ///
    /// # Errors
    ///
    /// If another process holds the lock.
    pub fn lock(&self) -> Result<PinLock, PinError> {
        let directory = File::open(&self.0).map_err(PinError::io("open", &self.0))?;
        match syscall::try_lock(directory.as_fd()) {
            Ok(()) => Ok(PinLock(directory)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(PinError::Locked(self.0.clone()))
            }
            Err(error) => Err(PinError::io("lock", &self.0)(error)),
        }
    }

    /// Removes the maps of other layouts. To be called once the programs no longer use
    /// them. Gives back what was removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn remove_other_layouts(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut removed = Vec::new();
        for path in entries(&self.0)? {
            let is_layout = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix('v'))
                .is_some_and(|version| version.parse::<u32>().is_ok());
            if is_layout && path != self.maps() {
                remove_tree(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// Removes everything: links first, so that the programs stop before their maps go.
    /// Gives back what was removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn remove(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut removed = Vec::new();
        if !self.0.exists() {
            return Ok(removed);
        }
        let links = self.0.join("links");
        if links.exists() {
            removed.extend(entries(&links)?);
            remove_tree(&links)?;
        }
        for path in entries(&self.0)? {
            if path.is_dir() {
                removed.extend(entries(&path)?);
                remove_tree(&path)?;
            }
        }
        fs::remove_dir(&self.0).map_err(PinError::io("remove", &self.0))?;
        Ok(removed)
    }
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

fn remove_tree(path: &Path) -> Result<(), PinError> {
    fs::remove_dir_all(path).map_err(PinError::io("remove", path))
}
