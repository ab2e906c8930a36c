//! Where a child process is to run: a cgroup, and the namespaces of a pod.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::sys::{self, Pid};

/// A cgroup and, for pods, the process whose namespaces to enter.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The `cgroup.procs` file to write to.
    processes_file: CString,
    /// Whose network and mount namespaces to enter; `None` stays in the current ones.
    holder: Option<Pid>,
}

impl Place {
    /// The cgroup `cgroup`, in the namespaces of `holder` if there is one.
    pub(crate) fn new(cgroup: &Path, holder: Option<Pid>) -> io::Result<Self> {
        Ok(Self {
            processes_file: sys::c_path(&cgroup.join("cgroup.procs"))?,
            holder,
        })
    }

    /// Moves the calling process there: the cgroup first, because a socket belongs to the cgroup
    /// that its maker was in when it was made.
    ///
    /// Plain system calls on memory prepared before the fork: allowed between fork and exec.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.enter_cgroup()?;
        match self.holder {
            Some(holder) => enter_namespaces(holder),
            None => Ok(()),
        }
    }

    fn enter_cgroup(&self) -> io::Result<()> {
        // SAFETY: the path ends in NUL; the one byte written is a constant; the descriptor is
        // closed exactly once.
        unsafe {
            let file = libc::open(
                self.processes_file.as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if file == -1 {
                return Err(io::Error::last_os_error());
            }
            // "0" is whoever writes it.
            let written = libc::write(file, c"0".as_ptr().cast(), 1);
            let error = io::Error::last_os_error();
            libc::close(file);
            if written == 1 { Ok(()) } else { Err(error) }
        }
    }

    /// A command that runs in this place, and dies with the thread that started it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let place = self.clone();
        let parent = std::process::id();
        // A group of its own, as every child of the lab has: Ctrl-C reaches the owner alone.
        command.process_group(0);
        // SAFETY: the closure makes system calls on memory that was prepared before the fork; it
        // neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                sys::die_with_parent(parent)?;
                place.enter()
            });
        }
        command
    }
}

/// Enters the network and mount namespaces of `holder`, and stays in the current directory.
fn enter_namespaces(holder: Pid) -> io::Result<()> {
    // Entering a mount namespace moves to its root directory, and with that every relative path
    // would mean something else.
    let mut directory = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: pointer and length describe `directory`; the kernel ends the path with NUL within
    // it, and chdir reads it only then. pidfd_open and setns take numbers; the descriptor is
    // closed exactly once.
    unsafe {
        let known = !libc::getcwd(directory.as_mut_ptr().cast(), directory.len()).is_null();
        let process = libc::syscall(libc::SYS_pidfd_open, holder, 0) as libc::c_int;
        if process == -1 {
            return Err(io::Error::last_os_error());
        }
        let entered = libc::setns(process, libc::CLONE_NEWNET | libc::CLONE_NEWNS);
        let error = io::Error::last_os_error();
        libc::close(process);
        if entered == -1 {
            return Err(error);
        }
        if known {
            // Best effort: a directory that is not in the pod's mounts is not worth failing for.
            libc::chdir(directory.as_ptr().cast());
        }
    }
    Ok(())
}
