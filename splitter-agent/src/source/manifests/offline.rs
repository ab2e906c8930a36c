//! Reads manifests once, to judge them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::collection::Collection;
use super::reading::{Cause, SIZE_LIMIT};
use super::tree;
use super::{STACK_SIZE, SourceError};
use crate::source::Snapshot;

/// For how long a file that is being written is waited for.
const PATIENCE: Duration = Duration::from_millis(1100);

/// How reports name standard input, which paths name like this or as `-`.
const STANDARD_INPUT: &str = "/dev/stdin";

/// Reads files and directories once. A file that is named is read whatever its name is,
/// and may be a pipe, or `-` for standard input; in a directory, the same files as
/// [`watch`](super::watch) reads.
///
/// # Errors
///
/// When nothing is at one of the paths, when a directory among them cannot be listed, or
/// when the kernel grants no thread.
pub fn read_once(paths: &[PathBuf]) -> Result<Snapshot, SourceError> {
    thread::scope(|scope| {
        let reading = thread::Builder::new()
            .stack_size(STACK_SIZE)
            .spawn_scoped(scope, || read(paths))
            .map_err(|source| SourceError::NoThread { source })?;
        reading.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn read(paths: &[PathBuf]) -> Result<Snapshot, SourceError> {
    let mut collection = Collection::new(Path::new(""));
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
        if metadata.file_type().is_fifo() {
            // Whoever names a pipe expects that its writer is waited for.
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
    Ok(collection.take_snapshot().unwrap_or_default())
}

/// All of a stream, or as much as shows that it is too large.
fn read_stream(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(SIZE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
