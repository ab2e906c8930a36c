//! Processes made of closures: forked, put in their place, and killed when dropped.

use std::fmt::Write as _;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::place::Place;
use super::sys::{self, Pid};

/// How long [`run`] waits when nothing else is said. An emulated machine is a hundred times as slow as
/// others.
pub(crate) const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a process may take to report that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// A child process that runs a closure. Killed and collected when dropped.
///
/// It also dies when the *thread* that started it ends, so start long-running ones from a thread
/// that lives as long as they should: the main thread, or a test's own.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    /// The process that forked it. A fork of that one holds a copy of this value, which must not
    /// kill what is not its own.
    owner: u32,
    ended: bool,
}

impl Process {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if !self.ended {
            self.ended = !matches!(sys::wait(self.pid, false), Ok(None));
        }
        !self.ended
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        if !self.ended && self.owner == std::process::id() {
            // Neither can fail for a child that was not collected yet.
            let _ = sys::kill(self.pid, libc::SIGKILL);
            let _ = sys::wait(self.pid, true);
            self.ended = true;
        }
    }

    /// Waits for the end and says in words what it was.
    fn describe_end(&mut self) -> String {
        self.ended = true;
        match sys::wait(self.pid, true) {
            Ok(Some(status)) if libc::WIFSIGNALED(status) => {
                format!("was killed by signal {}", libc::WTERMSIG(status))
            }
            Ok(Some(status)) => format!("ended with exit code {}", libc::WEXITSTATUS(status)),
            _ => "ended".to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Handed to the closure of `start_ready`: reports that the process is ready, with a value.
#[derive(Debug)]
pub struct Ready<T> {
    pipe: PipeWriter,
    value: PhantomData<fn(T)>,
}

impl<T: Serialize> Ready<T> {
    /// Lets the starter go on, and hands it `value`.
    pub fn signal(self, value: &T) {
        send(&self.pipe, &Ok(value));
    }
}

/// Runs `body` in a child process at `place` and returns what it returned.
pub(crate) fn run<T, F>(place: &Place, name: &str, timeout: Duration, body: F) -> Result<T>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> T,
{
    let (mut process, pipe) = launch(place, name, |pipe| {
        // Fails only when the receiver has given up on us.
        let _ = send(&pipe, &Ok(&body()));
    })?;
    let answer = receive(&mut process, &pipe, timeout);
    process.kill();
    answer
}

/// Starts `body` in a child process, which is at `place` when this returns.
pub(crate) fn start(place: &Place, name: &str, body: impl FnOnce()) -> Result<Process> {
    let (process, ()) = start_ready(place, name, |ready| {
        ready.signal(&());
        body();
    })?;
    Ok(process)
}

/// Starts `body` in a child process at `place` and waits until it says that it is ready.
pub(crate) fn start_ready<T, F>(place: &Place, name: &str, body: F) -> Result<(Process, T)>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce(Ready<T>),
{
    let (mut process, pipe) = launch(place, name, |pipe| {
        body(Ready {
            pipe,
            value: PhantomData,
        });
    })?;
    let value = receive(&mut process, &pipe, READY_TIMEOUT)?;
    Ok((process, value))
}

/// Forks a child that enters `place`, runs `body`, and reports failures through the pipe (or, when
/// nobody listens any more, on the error output).
fn launch(
    place: &Place,
    name: &str,
    body: impl FnOnce(PipeWriter),
) -> Result<(Process, PipeReader)> {
    note_panics_of_children();
    let (pid, pipe) = sys::fork_with_pipe(|pipe| {
        let report = |message: String| {
            if !send::<()>(&pipe, &Err(message.clone()))
                && let Ok(mut stderr) = sys::raw_stderr()
            {
                // Nowhere else to go: if this fails too, the exit code has to do.
                let _ = writeln!(stderr, "{name}: {message}");
            }
        };
        let pipe_of_body = match place.enter().and_then(|()| pipe.try_clone()) {
            Ok(pipe) => pipe,
            Err(error) => {
                report(format!("cannot enter its cgroup and namespaces: {error}"));
                return;
            }
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(pipe_of_body))) {
            let mut message = "panicked".to_owned();
            let location = PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or(payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("(not a text)");
            let _ = write!(message, "{location}: {text}");
            report(message);
        }
    })
    .with_context(|| format!("cannot fork a process for {name}"))?;
    let process = Process {
        name: name.to_owned(),
        pid,
        owner: std::process::id(),
        ended: false,
    };
    Ok((process, pipe))
}

/// Where this process, if it is a child, panicked.
static PANICKED_AT: Mutex<String> = Mutex::new(String::new());

/// Makes panics in children quiet: there, the place is noted and nothing is printed.
///
/// The hook is set here, in the parent and once, because a child cannot: the lock on the hook may
/// be held for ever by a thread that was in the middle of a panic when the child was forked.
/// Calling the hook takes the same lock, but shared, which such a thread does not prevent.
fn note_panics_of_children() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let parent = std::process::id();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::process::id() == parent {
                usual(panic);
            } else if let Some(place) = panic.location() {
                *PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner) =
                    format!(" at {place}");
            }
        }));
    });
}

/// Writes one message, a line of JSON. False when it could not be sent.
fn send<T: Serialize>(mut pipe: &PipeWriter, message: &Result<&T, String>) -> bool {
    let mut line = serde_json::to_vec(message).unwrap_or_else(|error| {
        let message = Err::<(), _>(format!("its result cannot be written as JSON: {error}"));
        serde_json::to_vec(&message).unwrap_or_default()
    });
    line.push(b'\n');
    pipe.write_all(&line).is_ok()
}

/// Waits for the one message of `process`.
fn receive<T: DeserializeOwned>(
    process: &mut Process,
    mut pipe: &PipeReader,
    timeout: Duration,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut line = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while line.last() != Some(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            process.kill();
            bail!("{}: no answer within {timeout:?}; killed", process.name);
        }
        // Up to a millisecond more, because poll counts in whole ones.
        if !sys::readable(pipe, left + Duration::from_millis(1))? {
            continue;
        }
        match pipe.read(&mut chunk)? {
            0 => {
                let end = process.describe_end();
                bail!("{} {end} without an answer", process.name);
            }
            length => line.extend_from_slice(&chunk[..length]),
        }
    }
    let message: Result<T, String> = serde_json::from_slice(&line)
        .with_context(|| format!("{}: its answer cannot be read", process.name))?;
    message.map_err(|message| anyhow::anyhow!("{}: {message}", process.name))
}
