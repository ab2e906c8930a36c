//! The supervisor, as the process that started it sees it.

use std::io::{BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::request::{self, News};
use super::state::Directory;
use super::tools::Tools;
use super::{Options, supervisor};
use crate::lab::sys::{self, Pid};
use crate::workspace::say;

/// How often whoever waits is asked whether it still does.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The process that holds a cluster. Dropping has it take the cluster down.
#[derive(Debug)]
pub(super) struct Supervisor {
    id: Pid,
    channel: UnixStream,
    /// The process that started it. A fork of that one holds a copy of this value, which must not
    /// end what is not its own.
    owner: u32,
    ended: bool,
}

impl Supervisor {
    /// Starts it; it begins at once.
    pub(super) fn start(directory: &Directory, options: &Options, tools: &Tools) -> Result<Self> {
        let (channel, other_end) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let id = sys::fork_apart(&other_end, || {
            // The original is dropped by the starter's code, which the child never returns to.
            if let Ok(owner) = other_end.try_clone() {
                supervisor::run(owner, directory, options, tools);
            }
        })
        .context("cannot start the supervisor of the cluster")?;
        Ok(Self {
            id,
            channel,
            owner: std::process::id(),
            ended: false,
        })
    }

    /// Waits until the cluster can be used or becomes `unwanted`, and says what is done meanwhile.
    pub(super) fn wait_until_ready(&self, unwanted: &dyn Fn() -> bool) -> Result<()> {
        let mut reader = BufReader::new(&self.channel);
        loop {
            while reader.buffer().is_empty() && !self.has_news()? {
                ensure!(!unwanted(), "the cluster is not wanted any more");
            }
            match request::receive(&mut reader)? {
                Some(News::Progress(text)) => say(text),
                Some(News::Ready) => return Ok(()),
                Some(News::Failed(message)) => bail!("{message}"),
                None => bail!("the supervisor of the cluster was killed"),
            }
        }
    }

    /// Waits for news, but not for long.
    fn has_news(&self) -> Result<bool> {
        let mut sources = [PollFd::new(&self.channel, PollFlags::IN)];
        match poll(&mut sources, Some(&MOMENT)) {
            // A signal, which may be why the cluster is not wanted any more.
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready.context("cannot wait for the supervisor")? > 0),
        }
    }

    /// Leaves it, and the cluster, to others.
    pub(super) fn detach(mut self) -> Result<()> {
        self.ended = true;
        let told = self.channel.write_all(supervisor::DETACH);
        told.context("the cluster has ended meanwhile")
    }

    /// Has it take the cluster down, and waits until it has.
    pub(super) fn end(mut self) -> Result<()> {
        self.hang_up()
    }

    fn hang_up(&mut self) -> Result<()> {
        if self.ended || self.owner != std::process::id() {
            return Ok(());
        }
        self.ended = true;
        // Fails only when the other end is gone already.
        let _ = self.channel.shutdown(Shutdown::Write);
        let mut reader = BufReader::new(&self.channel);
        let mut outcome = Ok(());
        while let Ok(Some(news)) = request::receive(&mut reader) {
            if let News::Failed(message) = news {
                outcome = Err(anyhow!("the cluster is not quite down: {message}"));
            }
        }
        // Nobody else collects it.
        let _ = sys::wait(self.id, true);
        outcome
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Err(error) = self.hang_up() {
            say(format_args!("{error:#}"));
        }
    }
}
