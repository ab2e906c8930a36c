//! The system calls that the standard library does not offer. All of the lab's `unsafe` is here
//! and in [`super::place`].
//!
//! # Forking a process that has threads
//!
//! Tests and benchmarks fork while other threads run. The child then has one thread, the one that
//! called `fork`, and must not wait for a lock that another thread held at that moment. The lab
//! accepts this for what its closures do, because
//!
//! * glibc's `fork` takes and releases the locks of malloc and stdio, so allocation is safe;
//! * every lock of our own ([`FORKING`]) is held by the forking thread itself;
//! * the child prints nothing through `std::io::stdout` or `stderr` (their locks may be held, and
//!   under `cargo test` the text would go into a buffer that dies with the child), and panics are
//!   reported through the pipe;
//! * a child that does hang is killed when its time is up, and the error says so.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A process id, as the kernel counts them.
pub(crate) type Pid = libc::pid_t;

/// Held from the making of a pipe until the parent's copy of the writing end is closed. A child
/// forked in between by another thread would inherit that end, and the end of the pipe would
/// not be seen before that child ends too.
static FORKING: Mutex<()> = Mutex::new(());

/// Turns the -1 of a system call into its error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A path as the system calls want it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Whether this process is root, which lab, kernel programs and packages need.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Forks. The child runs `body` with the writing end of a pipe and ends; it never returns into
/// the caller's code, and it dies with the thread that forked it.
pub(crate) fn fork_with_pipe(body: impl FnOnce(PipeWriter)) -> io::Result<(Pid, PipeReader)> {
    let forking = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    let (reader, writer) = io::pipe()?;
    let parent = std::process::id();
    // SAFETY: the module's documentation says what the child may do; it leaves by `exit` only, so
    // no destructor of the parent's frames runs twice.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(forking);
            drop(reader);
            child(parent, move || body(writer))
        }
        pid => {
            drop(writer);
            drop(forking);
            Ok((pid, reader))
        }
    }
}

/// Forks a child that is to outlive this process: in a session of its own, without any open file
/// but `kept` and with nothing to read from or write to. It runs `body` and ends; it never
/// returns into the caller's code.
pub(crate) fn fork_apart(kept: &impl AsRawFd, body: impl FnOnce()) -> io::Result<Pid> {
    let nothing = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let kept = kept.as_raw_fd().cast_unsigned();
    let forking = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the module's documentation says what the child may do; it leaves by `exit` only, so
    // no destructor of the parent's frames runs twice, and nothing uses the files that it closes.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(forking);
            // SAFETY: all calls take plain numbers.
            unsafe {
                libc::setsid();
                for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                for standard in 0..3 {
                    libc::dup2(nothing.as_raw_fd(), standard);
                }
                // Not every C library has it as a function.
                libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
                libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            exit(if outcome.is_ok() { 0 } else { 101 })
        }
        pid => Ok(pid),
    }
}

/// What a forked child does.
fn child(parent: u32, body: impl FnOnce()) -> ! {
    if die_with_parent(parent).is_err() {
        exit(1);
    }
    // A group of its own: Ctrl-C in a terminal reaches the lab's owner alone, which then cleans up.
    // SAFETY: both calls take plain numbers; the default action needs no handler to be valid.
    unsafe {
        libc::setpgid(0, 0);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    exit(if outcome.is_ok() { 0 } else { 101 })
}

/// Ends this process at once: no destructors, no `atexit` handlers of the parent's program.
fn exit(code: i32) -> ! {
    // SAFETY: _exit ends the process; nothing of ours runs after it.
    unsafe { libc::_exit(code) }
}

/// Has the kernel kill this process when the thread that forked it ends. Safe between fork and
/// exec: nothing is allocated.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // SAFETY: getppid cannot fail.
    let now = unsafe { libc::getppid() };
    // The parent may have died before the line above: then nobody will ever send the signal.
    if now.cast_unsigned() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Sleeps until killed.
pub(crate) fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

/// Sends a signal to one process.
pub(crate) fn kill(pid: Pid, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill takes plain numbers.
    check(unsafe { libc::kill(pid, signal) }).map(|_| ())
}

/// Whether a process with this id lives (a zombie counts as living).
pub(crate) fn lives(pid: u32) -> bool {
    Pid::try_from(pid).is_ok_and(|pid| {
        pid > 0
            && kill(pid, 0)
                .err()
                .is_none_or(|error| error.raw_os_error() != Some(libc::ESRCH))
    })
}

/// Collects an ended child: its wait status, or `None` while it runs (only with `block` unset).
pub(crate) fn wait(pid: Pid, block: bool) -> io::Result<Option<i32>> {
    let mut status = 0;
    loop {
        let flags = if block { 0 } else { libc::WNOHANG };
        // SAFETY: `status` is valid for writing during the call.
        match check(unsafe { libc::waitpid(pid, &raw mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until `file` can be read (or has ended). False when `timeout` passed first.
pub(crate) fn readable(file: &PipeReader, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `poll` is one valid record, and the count says one.
    match check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        other => Ok(other? > 0),
    }
}

/// Gives this process a network namespace and a mount namespace of its own; mounts made in it
/// are seen nowhere else.
pub(crate) fn unshare_network_and_mounts() -> io::Result<()> {
    // SAFETY: unshare takes flags only. The caller is a freshly forked, single-threaded child.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)
}

/// Mounts the file `source` over the file `target`.
pub(crate) fn bind_mount(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None, libc::MS_BIND)
}

/// Mounts the BPF file system at `target`, as systemd does, so that only root may look into it.
pub(crate) fn mount_bpf(target: &Path) -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let source = Some(Path::new("bpf"));
    mount_with(source, target, Some(c"bpf"), flags, Some(c"mode=0700"))
}

fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    mount_with(source, target, kind, flags, None)
}

fn mount_with(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let source = c_path(source.unwrap_or(Path::new("none")))?;
    let target = c_path(target)?;
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    let data = data.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings end in NUL and live until after the call; the data is one of them.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, data.cast()) })
        .map(|_| ())
}

/// Takes the topmost mount off `target`; who still uses it may finish.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the string ends in NUL and lives until after the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(|_| ())
}

/// The kind of the file system that holds `path`, as the kernel's magic number.
pub(crate) fn file_system_kind(path: &Path) -> io::Result<i64> {
    Ok(rustix::fs::statfs(path)?.f_type)
}

/// Lets up to `length` connections wait to be accepted (std asks for 128).
pub(crate) fn set_backlog(listener: &TcpListener, length: i32) -> io::Result<()> {
    // SAFETY: the descriptor is a listening socket; listening again only changes the backlog.
    check(unsafe { libc::listen(listener.as_raw_fd(), length) }).map(|_| ())
}

/// Has the closing of this socket reset its connection at once, so that neither end keeps a
/// port busy in TIME_WAIT.
pub(crate) fn reset_on_close(socket: &impl std::os::fd::AsRawFd) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let length = std::mem::size_of_val(&linger) as libc::socklen_t;
    // SAFETY: the option takes a `linger` record; pointer and length describe one.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    })
    .map(|_| ())
}

/// The error output, past std's lock and past the test harness's capture.
pub(crate) fn raw_stderr() -> io::Result<File> {
    OpenOptions::new().append(true).open("/proc/self/fd/2")
}
