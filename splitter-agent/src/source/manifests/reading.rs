//! Reads one file, and knows whether what it read is whole.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::lease::{Lease, ReadLease};

/// Larger files are refused: they would hold some million objects.
pub(super) const SIZE_LIMIT: u64 = 64 * 1024 * 1024;

/// Where the kernel does not tell whether a file is being written, one that changed so
/// recently may be, unless its writer was seen to finish.
const UNPROVEN: Duration = Duration::from_millis(100);

/// What identifies a version of a file, as far as `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why a file is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause {
    /// A writer is known to have just finished it.
    pub(super) written: bool,
    /// It is known to have been removed, or replaced.
    pub(super) removed: bool,
}

/// The result of reading a file.
pub(super) enum Reading {
    /// Its whole content, and the version that it belongs to.
    Whole(Vec<u8>, Stamp),
    /// A process is writing it.
    BeingWritten,
    /// Nothing is there, or a directory.
    Gone,
    /// It is larger than [`SIZE_LIMIT`]: its size.
    TooLarge(u64),
    /// It cannot be read, and why.
    Unreadable(String),
}

/// Reads a file.
pub(super) fn read(path: &Path, cause: Cause) -> Reading {
    match try_read(path, cause) {
        Ok(reading) => reading,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::BeingWritten,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                Reading::Unreadable("it is a link to nothing".to_owned())
            }
            Ok(_) => Reading::BeingWritten,
            Err(_) => Reading::Gone,
        },
        Err(error) => Reading::Unreadable(error.to_string()),
    }
}

fn try_read(path: &Path, cause: Cause) -> io::Result<Reading> {
    // Opening a pipe or a device can have effects, so it is not even opened.
    if let Some(verdict) = refuse(&fs::metadata(path)?) {
        return Ok(verdict);
    }
    // Should it become a pipe in between, opening must not wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let before = file.metadata()?;
    if let Some(verdict) = refuse(&before) {
        return Ok(verdict);
    }
    let may_be_written = !cause.written && is_recent(&before);
    if may_be_written && before.size() == 0 {
        // The kernel shows a new file before it counts the writer that created it in.
        return Ok(Reading::BeingWritten);
    }
    let (bytes, undisturbed) = match ReadLease::take(&file) {
        Lease::Writer => return Ok(Reading::BeingWritten),
        Lease::Held(lease) => {
            let bytes = read_all(&file, before.size())?;
            (bytes, lease.is_unbroken())
        }
        Lease::Unavailable if may_be_written => return Ok(Reading::BeingWritten),
        Lease::Unavailable => (read_all(&file, before.size())?, true),
    };
    let stamp = Stamp::from(&file.metadata()?);
    if !undisturbed || stamp != Stamp::from(&before) || bytes.len() as u64 != stamp.size {
        return Ok(Reading::BeingWritten);
    }
    Ok(Reading::Whole(bytes, stamp))
}

/// The verdict on something whose content is not worth reading.
fn refuse(metadata: &Metadata) -> Option<Reading> {
    if metadata.is_dir() {
        Some(Reading::Gone)
    } else if !metadata.is_file() {
        Some(Reading::Unreadable("it is not a regular file".to_owned()))
    } else if metadata.size() > SIZE_LIMIT {
        Some(Reading::TooLarge(metadata.size()))
    } else {
        None
    }
}

fn read_all(mut file: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    // One byte more than expected shows that the file has grown.
    file.by_ref().take(size + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a file changed within [`UNPROVEN`]; a time in the future is not recent, or a
/// file with a wrong clock would never be read.
fn is_recent(metadata: &Metadata) -> bool {
    metadata
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age < UNPROVEN)
}
