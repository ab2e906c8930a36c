//! The lock on a pin directory, which keeps two agents apart.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::pins::{PinDirectory, PinError};

/// How often, and how long apart, it is tried to lock the directory, in case somebody is just
/// looking whether it is locked.
const MAX_LOCK_ATTEMPTS: u32 = 40;
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Held while an agent is at work in a pin directory.
#[derive(Debug)]
pub struct PinLock(File);

impl Drop for PinLock {
    fn drop(&mut self) {
        // Closing it would not do: a process that is just being started has the descriptor too,
        // until it executes its program. That it fails ends nothing but this early release.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl PinDirectory {
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
        let mut attempts = 0;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // `is_locked` may be looking.
                Err(Errno::WOULDBLOCK) if attempts < MAX_LOCK_ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(LOCK_INTERVAL);
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
        // A lock that others who look can have too, given back at once.
        match flock(&directory, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                drop(PinLock(directory));
                Ok(false)
            }
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(PinError::io("examine the lock of", &self.0)(errno.into())),
        }
    }
}
