//! Notes that the user wants to stop, so that everything can be cleaned up first.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on the signals that ask a program to end are noted instead of obeyed.
pub(crate) fn watch() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        note(signal).context("cannot watch for Ctrl-C")?;
    }
    Ok(())
}

fn note(signal: libc::c_int) -> io::Result<()> {
    extern "C" fn handle(_signal: libc::c_int) {
        REQUESTED.store(true, Ordering::Relaxed);
    }
    // SAFETY: all-zero is a valid sigaction (no flags, no masked signals). The handler only
    // stores to an atomic, which a signal handler may do.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as libc::sighandler_t;
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the user wants to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Fails when the user wants to stop: called in every loop.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted; everything is cleaned up");
    }
    Ok(())
}
