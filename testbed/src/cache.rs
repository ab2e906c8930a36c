//! The directory for what takes long to build and is the same in every clone.

use std::env;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::{root, say};

/// The directory for what is worth keeping between clones.
#[must_use]
pub fn directory() -> PathBuf {
    let absolute = |name| {
        let path = env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map_or_else(
            || root().join("target/tools"),
            |cache| cache.join("splitter"),
        )
}

/// Holds the lock as long as the file that it returns is open; `work` is what another xtask that
/// has it does.
///
/// # Errors
///
/// When the file cannot be made or locked.
pub fn lock(path: &Path, work: &str) -> Result<File> {
    let context = || format!("cannot lock {}", path.display());
    let file = File::create(path).with_context(context)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(format_args!("waiting for another xtask that is {work}"));
            file.lock().with_context(context)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(context),
    }
    Ok(file)
}
