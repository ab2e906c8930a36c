//! SIGTERM and SIGINT. In a container the program is the first process, which has no default
//! action for them: unless they are waited for, nothing ends it but SIGKILL.

use std::mem::MaybeUninit;
use std::ptr;

/// The signals that end the program, blocked so that they can be waited for.
#[derive(Debug)]
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them for this thread and those that it starts.
    pub(crate) fn block() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it, both signals exist,
        // and pthread_sigmask takes no old mask.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
            Self(set.assume_init())
        }
    }

    /// Waits for one of them.
    pub(crate) fn wait(&self) {
        let mut signal = 0;
        // SAFETY: the set is initialised, and the signal's number is written to a live variable.
        while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
    }
}
