//! Read leases: how the kernel shows whether a process has a file open for writing.
//!
//! A truncated manifest can be a valid manifest, so parsing cannot distinguish a half-written file
//! from a complete one. A read lease can: it is granted only while no process has the file open for
//! writing, and broken when one opens it for writing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `F_SETSIG` of `fcntl(2)`; the libc crate does not name it for every target.
const F_SETSIG: libc::c_int = 10;

/// The result of asking for a read lease.
pub(super) enum Lease<'file> {
    /// Granted: no process is writing the file.
    Held(ReadLease<'file>),
    /// A process has the file open for writing.
    Writer,
    /// The file system has no leases, or this process may not take one on a file of
    /// another user: nothing is known.
    Unavailable,
}

/// A read lease, given up when dropped. A process that opens the file for writing waits
/// until then, so hold it for no longer than reading takes.
pub(super) struct ReadLease<'file> {
    file: &'file File,
}

impl<'file> ReadLease<'file> {
    /// Asks for a read lease on a file that is open for reading only.
    pub(super) fn take(file: &'file File) -> Lease<'file> {
        // The kernel announces a writer by a signal. Its default, SIGIO, would kill the
        // process; SIGURG is ignored unless a handler is installed.
        let signal = control(file, F_SETSIG, libc::SIGURG);
        match signal.and_then(|_| control(file, libc::F_SETLEASE, libc::F_RDLCK)) {
            Ok(_) => Lease::Held(Self { file }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Lease::Writer,
            Err(_) => Lease::Unavailable,
        }
    }

    /// Whether no process has opened the file for writing since the lease was granted.
    pub(super) fn is_unbroken(&self) -> bool {
        matches!(control(self.file, libc::F_GETLEASE, 0), Ok(kind) if kind == libc::F_RDLCK)
    }
}

impl Drop for ReadLease<'_> {
    fn drop(&mut self) {
        // Closing the file gives the lease up as well: a failure here is harmless.
        let _ = control(self.file, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

/// `fcntl` with a command whose argument is a number.
fn control(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the commands
    // given above take a number, so the kernel follows no pointer of ours.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
