//! Waiting until no program that may have seen an old record still runs.
//!
//! The kernel runs these programs under RCU, and waits for one grace period before it
//! returns from an update of a map of maps (kernel commit 1ae80cf31938, 5.0). So an
//! update of a map of maps of our own is the wait; `membarrier(MEMBARRIER_CMD_GLOBAL)`
//! is not, since it does nothing on a machine with one CPU and fails with `nohz_full`.
//!
//! A wait takes some 10 ms, so a thread of its own does it: the publisher hands it a
//! ticket and goes on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::syscall::{MapShape, create_map, update_word};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// Numbers the waits: a wait for a ticket ends after every program that ran when the
/// ticket was drawn.
pub(crate) type Ticket = u64;

/// A thread that waits for grace periods.
#[derive(Debug)]
pub(crate) struct GracePeriods {
    sender: Option<mpsc::Sender<Ticket>>,
    progress: Arc<Progress>,
    drawn: Ticket,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    done: Ticket,
    /// The last ticket that the kernel refused to wait for.
    failed: Ticket,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GracePeriods {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the map of maps or the thread cannot be made.
    pub(crate) fn start() -> io::Result<Self> {
        let inner = create_map(MapShape {
            kind: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            ..MapShape::default()
        })?;
        let outer = create_map(MapShape {
            kind: BPF_MAP_TYPE_ARRAY_OF_MAPS,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            inner_map: inner.as_raw_fd().unsigned_abs(),
            ..MapShape::default()
        })?;
        wait(&outer, &inner)?;
        let (sender, receiver) = mpsc::channel::<Ticket>();
        let progress = Arc::new(Progress::default());
        let thread = std::thread::Builder::new()
            .name("grace-periods".to_owned())
            .spawn({
                let progress = Arc::clone(&progress);
                move || {
                    while let Ok(mut ticket) = receiver.recv() {
                        while let Ok(later) = receiver.try_recv() {
                            ticket = later;
                        }
                        let result = wait(&outer, &inner);
                        let mut state = progress.lock();
                        match result {
                            Ok(()) => state.done = ticket,
                            Err(error) => {
                                tracing::error!(%error, "cannot wait for running programs; slots of old records stay unused");
                                state.failed = ticket;
                            }
                        }
                        drop(state);
                        progress.changed.notify_all();
                    }
                }
            })?;
        Ok(Self {
            sender: Some(sender),
            progress,
            drawn: 0,
            thread: Some(thread),
        })
    }

    /// Draws a ticket: asks for a wait that begins no earlier than now.
    pub(crate) fn draw(&mut self) -> Ticket {
        self.drawn += 1;
        if let Some(sender) = &self.sender
            && sender.send(self.drawn).is_err()
        {
            self.progress.lock().failed = self.drawn;
        }
        self.drawn
    }

    /// The last ticket whose wait is over.
    pub(crate) fn done(&self) -> Ticket {
        self.progress.lock().done
    }

    /// Blocks until the wait for a ticket is over. `false` if the kernel refused to wait.
    pub(crate) fn wait_for(&self, ticket: Ticket) -> bool {
        let mut state = self.progress.lock();
        while state.done < ticket && state.failed < ticket {
            state = self
                .progress
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.done >= ticket
    }
}

impl Drop for GracePeriods {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, there is nothing left to do here.
            let _ = thread.join();
        }
    }
}

/// Returns after a grace period.
fn wait(outer: &OwnedFd, inner: &OwnedFd) -> io::Result<()> {
    update_word(outer.as_fd(), 0, inner.as_raw_fd().unsigned_abs())
}
