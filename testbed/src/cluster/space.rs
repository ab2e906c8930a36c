//! Sets of namespaces, each with a process that holds them: what stands for a machine. When the
//! holder ends, everything that runs in them is killed by the kernel.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces, unshare_unsafe,
};

use super::groups::{self, Groups};
use super::mounts;
use crate::lab::network::ip_batch;
use crate::lab::place::Place;
use crate::lab::sys;

/// Namespaces with their holder. Dropping ends the holder, and with it all processes in them.
///
/// Only for the supervisor, which has a single thread: namespaces are entered by the thread for a
/// moment, and children do more than async-signal-safe calls before they run their program.
#[derive(Debug)]
pub(super) struct Space {
    holder: Child,
    namespaces: OwnedFd,
    home: Home,
    groups: Vec<PathBuf>,
}

/// The namespaces of the supervisor that it leaves at times. (Its process id would not do: that
/// stands for the namespaces that it is in at the moment.)
#[derive(Debug)]
struct Home {
    network: File,
    process_id: File,
}

impl Home {
    fn open() -> Result<Self> {
        let open = |name| {
            let path = Path::new("/proc/self/ns").join(name);
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        Ok(Self {
            network: open("net")?,
            process_id: open("pid")?,
        })
    }

    /// Returns to the network.
    fn network(&self) -> Result<()> {
        move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot return to the own network namespace")
    }

    /// Has children started in the own process id namespace again.
    fn process_id(&self) -> Result<()> {
        move_into_link_name_space(self.process_id.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .context("cannot return to the own process id namespace")
    }
}

impl Space {
    /// Makes fresh namespaces (all but the user's), in `groups`, and runs `set_up` in them.
    /// What fails there is to be read in the file `log`.
    pub(super) fn new(
        groups: Option<&Groups>,
        log: &Path,
        set_up: impl Fn() -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let home = Home::open()?;
        let roots = groups.map_or_else(|| Ok(Vec::new()), Groups::roots)?;
        let members = groups.map_or(Vec::new(), |groups| groups.members().to_vec());
        let prepare = {
            let members = groups::places(&members)?;
            move || -> Result<()> {
                // Namespaces of control groups begin where the process is when it makes them.
                roots.iter().try_for_each(Place::enter)?;
                let namespaces = UnshareFlags::NEWNS
                    | UnshareFlags::NEWNET
                    | UnshareFlags::NEWIPC
                    | UnshareFlags::NEWUTS
                    | UnshareFlags::NEWCGROUP;
                // SAFETY: the file descriptor table is not unshared.
                unsafe { unshare_unsafe(namespaces) }.context("cannot make namespaces")?;
                members.iter().try_for_each(Place::enter)?;
                set_up()?;
                // Orphans become children of this process, which never asks how they ended:
                // that they are ignored lets the kernel collect them.
                // SAFETY: SIG_IGN is a valid disposition, which exec keeps.
                unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
                Ok(())
            }
        };
        let mut command = Command::new("sleep");
        command.arg("infinity").stdin(Stdio::null());
        log_to(&mut command, log)?;
        // SAFETY: the supervisor has a single thread, so its child may allocate and lock.
        unsafe {
            command.pre_exec(move || {
                die_with_supervisor()?;
                prepare().map_err(|error| {
                    eprintln!("{error:#}");
                    io::Error::other("cannot set up namespaces")
                })
            });
        }
        // SAFETY: the file descriptor table is not unshared. What this thread starts from here on
        // is in a new process id namespace, until it moves back.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }
            .context("cannot make a process id namespace")?;
        let holder = command.spawn();
        home.process_id()?;
        let holder = holder.with_context(|| {
            let log = fs::read_to_string(log).unwrap_or_default();
            format!("cannot make namespaces: {}", log.trim())
        })?;
        Ok(Self {
            namespaces: open_process(holder.id())?,
            holder,
            home,
            groups: members,
        })
    }

    /// The process id of the holder.
    pub(super) fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Starts a command in all the namespaces and in the groups.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<Child> {
        let places = groups::places(&self.groups)?;
        let namespaces = self.namespaces.try_clone()?;
        // SAFETY: the supervisor has a single thread, so its child may allocate and lock.
        unsafe {
            command.pre_exec(move || {
                places.iter().try_for_each(Place::enter)?;
                let all_but_process_id = ThreadNameSpaceType::MOUNT
                    | ThreadNameSpaceType::NETWORK
                    | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
                    | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
                    | ThreadNameSpaceType::CONTROL_GROUP;
                move_into_thread_name_spaces(namespaces.as_fd(), all_but_process_id)?;
                Ok(())
            });
        }
        let program = command.get_program().to_string_lossy().into_owned();
        self.enter(ThreadNameSpaceType::PROCESS_ID)?;
        let child = command.spawn();
        self.home.process_id()?;
        child.with_context(|| format!("cannot start {program}"))
    }

    fn enter(&self, kind: ThreadNameSpaceType) -> Result<()> {
        move_into_thread_name_spaces(self.namespaces.as_fd(), kind)
            .context("cannot enter a namespace")
    }

    /// Does something with this thread moved into the network namespace.
    fn in_network<T>(&self, body: impl FnOnce() -> T) -> Result<T> {
        self.enter_network()?;
        let result = body();
        self.home.network()?;
        Ok(result)
    }

    /// Connects to a server in the network namespace.
    pub(super) fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
        let stream = self.in_network(connect)??;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(stream)
    }

    /// Moves this thread into the network namespace for good.
    pub(super) fn enter_network(&self) -> Result<()> {
        self.enter(ThreadNameSpaceType::NETWORK)
    }

    /// Runs `ip` commands in the network namespace, one a line. Process ids in them are those that
    /// this process sees.
    pub(super) fn ip(&self, commands: &str) -> Result<()> {
        ip_batch(Command::new("ip"), commands, |ip| {
            self.in_network(|| ip.spawn())
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Neither can fail for a child that was not collected yet.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Has the kernel kill this process when the supervisor ends. The supervisor's id cannot be
/// compared, because it is none in a new process id namespace.
fn die_with_supervisor() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and no pointers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn open_process(id: u32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(id.cast_signed()).context("no process has the id 0")?;
    pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("cannot open process {id}"))
}

/// Appends all that a command prints to a file.
pub(super) fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    let open = || {
        if let Some(directory) = log.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = File::options().append(true).create(true).open(log)?;
        Ok::<_, io::Error>((file.try_clone()?, file))
    };
    let (output, errors) = open().with_context(|| format!("cannot open {}", log.display()))?;
    command.stdout(output).stderr(errors);
    Ok(())
}

/// A command that runs in the namespaces and groups of a holder, for processes other than the
/// supervisor. It is killed when the thread that starts it ends.
pub(super) fn command(holder: u32, groups: &[PathBuf], program: &OsStr) -> Result<Command> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={holder}"))
        .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
    // Where the node has directories of its own, the present one is not there.
    let directory = env::current_dir().ok();
    if let Some(directory) = directory.filter(|directory| !mounts::is_own(directory)) {
        let mut argument = OsString::from("--wdns=");
        argument.push(directory);
        command.arg(argument);
    }
    // Killing nsenter alone would leave the program running.
    command
        .args(["--", "setpriv", "--pdeathsig=KILL", "--"])
        .arg(program);
    let places = groups::places(groups)?;
    let parent = std::process::id();
    // SAFETY: the closure makes system calls on memory that was prepared before the fork; it
    // neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            // A process that becomes the command has no other thread to die with.
            if std::process::id() != parent {
                sys::die_with_parent(parent)?;
            }
            places.iter().try_for_each(Place::enter)
        });
    }
    Ok(command)
}
