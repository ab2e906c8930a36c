//! Waiting until no program that may have seen an old record still runs.
//!
//! The kernel runs these programs under RCU, and waits for one grace period before it
//! returns from an update of a map of maps (kernel commit 1ae80cf31938, 5.0). So an
//! update of a map of maps of our own is the wait; `membarrier(MEMBARRIER_CMD_GLOBAL)`
//! is not, since it does nothing on a machine with one CPU and fails with `nohz_full`.
//!
//! A wait takes some 10 ms, so a thread of its own does it: the publisher starts a
//! grace period and goes on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::datapath::sys::maps::{MapShape, create_map, update_word};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// One grace period: it completes when every program has ended that ran when it was started.
/// They complete in the order in which they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GracePeriod(u64);

/// A thread that waits for grace periods.
#[derive(Debug)]
pub(crate) struct GracePeriods {
    sender: Option<mpsc::Sender<GracePeriod>>,
    completion: Arc<Completion>,
    /// The one that was started last.
    started: GracePeriod,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Completion {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last one that has completed.
    completed: GracePeriod,
    /// The last one that the kernel refused to wait for.
    failed: GracePeriod,
}

impl Completion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GracePeriods {
    /// Starts the thread. The first grace period has completed when this returns.
    ///
    /// # Errors
    ///
    /// If the map of maps or the thread cannot be made.
    pub(crate) fn spawn() -> io::Result<Self> {
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
        let (sender, receiver) = mpsc::channel::<GracePeriod>();
        let completion = Arc::new(Completion::default());
        let thread = std::thread::Builder::new()
            .name("grace-periods".to_owned())
            .spawn({
                let completion = Arc::clone(&completion);
                move || {
                    while let Ok(mut period) = receiver.recv() {
                        while let Ok(later) = receiver.try_recv() {
                            period = later;
                        }
                        let result = wait(&outer, &inner);
                        let mut state = completion.lock();
                        match result {
                            Ok(()) => state.completed = period,
                            Err(error) => {
                                tracing::error!(%error, "cannot wait for running programs; slots of old records stay unused");
                                state.failed = period;
                            }
                        }
                        drop(state);
                        completion.changed.notify_all();
                    }
                }
            })?;
        Ok(Self {
            sender: Some(sender),
            completion,
            started: GracePeriod::default(),
            thread: Some(thread),
        })
    }

    /// Starts a grace period.
    pub(crate) fn start(&mut self) -> GracePeriod {
        self.started.0 += 1;
        if let Some(sender) = &self.sender
            && sender.send(self.started).is_err()
        {
            self.completion.lock().failed = self.started;
        }
        self.started
    }

    /// The last one that has completed.
    pub(crate) fn completed(&self) -> GracePeriod {
        self.completion.lock().completed
    }

    /// Blocks until a grace period has completed. `false` if the kernel refused to wait.
    pub(crate) fn wait_for(&self, period: GracePeriod) -> bool {
        let mut state = self.completion.lock();
        while state.completed < period && state.failed < period {
            state = self
                .completion
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.completed >= period
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
