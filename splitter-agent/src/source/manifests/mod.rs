//! Objects from a directory of ordinary Kubernetes manifests.
//!
//! Every `*.yaml`, `*.yml` and `*.json` below the directory is read, however the files
//! are laid out; each may hold any number of documents, and `List`s. Names that begin
//! with a dot are skipped, links are followed, so that a mounted ConfigMap (which
//! swaps a hidden `..data` link) works like any other directory.
//!
//! [`watch`] follows the directory for as long as its handle lives; [`read_once`] and
//! [`read_to_judge`] read files once. What both promise:
//!
//! - A file is used as a whole or not at all: never while a process writes it, never
//!   when it is not valid YAML. Until it is whole again its last good content stays in
//!   force, and a problem says why.
//! - One bad object never affects its neighbours, not even those in the same file.
//! - Of two objects with one name, the first is used: by path, then by place in the file.
//!
//! ```text
//! inotify ──► watcher ──► collection ──► Snapshot
//!                │            │
//!              tree        reading ──► documents ──► content
//! ```

mod changes;
mod collection;
mod content;
mod documents;
mod file;
mod inotify;
mod lease;
mod merge;
mod offline;
mod reading;
mod tree;
mod watcher;

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch::Receiver;

pub use changes::{changes, node_pod_changes};
pub use offline::{Reading, UnreadKind, WrittenRoute, read_once, read_to_judge};
pub use watcher::WatchHandle;

use super::Snapshot;

/// Stack of a thread that reads manifests: YAML is parsed by recursion, and needs some
/// 20 KiB for each level of nesting when it is not optimised.
const STACK_SIZE: usize = 16 * 1024 * 1024;

/// Why a source of manifests cannot be opened at all. What goes wrong later is a
/// problem in a [`Snapshot`].
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing is at the path.
    #[error("{} does not exist: create it, or name another path", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Something else than a directory is at the path.
    #[error("{} is not a directory: name the directory that holds the manifests", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path cannot be opened.
    #[error("{} cannot be read: {source}: let this user read it, or name another path", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refuses another inotify instance.
    #[error(
        "cannot watch for changes: {source}: raise fs.inotify.max_user_instances (sysctl) if it is used up"
    )]
    NoInotify {
        /// The cause.
        source: io::Error,
    },
    /// The kernel refuses another thread or descriptor.
    #[error(
        "cannot start the thread that reads manifests: {source}: raise the limit on open files or processes"
    )]
    NoThread {
        /// The cause.
        source: io::Error,
    },
}

/// Reads a directory and follows every change of it, until the handle is dropped.
///
/// All work is done by a thread of its own. This waits until the first [`Snapshot`] is
/// there; a new one is sent only when objects or problems differ.
///
/// When the directory itself vanishes, for example because another is to take its place,
/// what it held stays in effect, with a problem that says so, until a directory is there
/// again. Files that were deleted before it are gone as any deleted file.
///
/// # Errors
///
/// When the path is not a readable directory, or the kernel grants no inotify instance.
pub fn watch(directory: &Path) -> Result<(Receiver<Snapshot>, WatchHandle), SourceError> {
    watcher::start(directory)
}
