//! Reads manifests once, to judge them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::collection::Collection;
use super::reading::{Cause, SIZE_LIMIT};
use super::tree;
use super::{STACK_SIZE, SourceError};
use crate::objects::inert;
use crate::source::Snapshot;

/// For how long a file that is being written is waited for.
const PATIENCE: Duration = Duration::from_millis(1100);

/// How reports name standard input, which paths name like this or as `-`.
const STANDARD_INPUT: &str = "/dev/stdin";

/// What manifests contain, for `check`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What the agent would know of them.
    pub snapshot: Snapshot,
    /// The objects that ask for splits as they are written, those that cannot be read included.
    pub routes: Vec<WrittenRoute>,
    /// How many objects there are of each kind that is not read.
    pub unread: BTreeMap<UnreadKind, usize>,
}

/// An object that asks for splits, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenRoute {
    /// All of it.
    pub value: Value,
    /// File and line, for people.
    pub place: String,
}

/// A kind of which nothing is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UnreadKind {
    /// Kind, for example `HTTPRoute`.
    pub kind: String,
    /// Group and version.
    pub api_version: String,
}

impl UnreadKind {
    /// The kind of an object.
    pub(super) fn of(value: &Value) -> Self {
        let text = |field| {
            let text = value.get(field).and_then(Value::as_str).unwrap_or_default();
            inert(text).into_owned()
        };
        Self {
            kind: text("kind"),
            api_version: text("apiVersion"),
        }
    }
}

impl fmt::Display for UnreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.api_version)
    }
}

/// Reads files and directories once. A file that is named is read whatever its name is,
/// and may be a pipe, or `-` for standard input; in a directory, the same files as
/// [`watch`](super::watch) reads.
///
/// # Errors
///
/// When nothing is at one of the paths, when a directory among them cannot be listed, or
/// when the kernel grants no thread.
pub fn read_once(paths: &[PathBuf]) -> Result<Snapshot, SourceError> {
    let mut collection = collect(paths, || Collection::new(Path::new("")))?;
    Ok(collection.take_snapshot().unwrap_or_default())
}

/// Reads files and directories as [`read_once`] does, and keeps what only a judge needs.
///
/// # Errors
///
/// Those of [`read_once`].
pub fn read_to_judge(paths: &[PathBuf]) -> Result<Reading, SourceError> {
    let mut collection = collect(paths, Collection::to_judge)?;
    let mut reading = Reading {
        snapshot: collection.take_snapshot().unwrap_or_default(),
        ..Reading::default()
    };
    for content in collection.contents() {
        reading.routes.extend(content.routes.iter().cloned());
        for (kind, count) in &content.unread {
            *reading.unread.entry(kind.clone()).or_default() += count;
        }
    }
    Ok(reading)
}

fn collect(
    paths: &[PathBuf],
    empty: impl FnOnce() -> Collection + Send,
) -> Result<Collection, SourceError> {
    thread::scope(|scope| {
        let reading = thread::Builder::new()
            .stack_size(STACK_SIZE)
            .spawn_scoped(scope, || read(paths, empty()))
            .map_err(|source| SourceError::NoThread { source })?;
        reading.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn read(paths: &[PathBuf], mut collection: Collection) -> Result<Collection, SourceError> {
    let start = Instant::now();
    let mut streams = BTreeSet::new();
    for path in paths {
        if path == Path::new("-") || path == Path::new(STANDARD_INPUT) {
            let path = Path::new(STANDARD_INPUT);
            if streams.insert(path) {
                collection.take_stream(path, read_stream(io::stdin().lock()));
            }
            continue;
        }
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SourceError::Missing { path: path.clone() },
            _ => SourceError::Unreadable {
                path: path.clone(),
                source,
            },
        })?;
        let file_type = metadata.file_type();
        if file_type.is_fifo() || file_type.is_char_device() {
            // A user who names a pipe expects to wait for its writer. /dev/null is empty.
            if streams.insert(path) {
                collection.take_stream(path, File::open(path).and_then(read_stream));
            }
            continue;
        }
        if !metadata.is_dir() {
            collection.read(path, Cause::default(), start);
            continue;
        }
        let listing = tree::list(path, |_| {});
        if let Some((directory, cause)) = listing.unreadable.into_iter().next() {
            return Err(SourceError::Unreadable {
                path: path.join(directory),
                source: io::Error::other(cause),
            });
        }
        for file in listing.files.keys() {
            collection.read(&path.join(file), Cause::default(), start);
        }
    }
    while collection.is_waiting() && start.elapsed() < PATIENCE {
        if let Some(due) = collection.next_due() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        collection.catch_up(Instant::now());
    }
    Ok(collection)
}

/// All of a stream, or as much as shows that it is too large.
fn read_stream(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(SIZE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
