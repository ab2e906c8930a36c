//! The thread that follows a directory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::watch;
use tracing::{info, warn};

use super::collection::Collection;
use super::inotify::{Changes, Watches};
use super::{STACK_SIZE, SourceError};
use crate::source::Snapshot;

/// How often everything is listed although nothing was announced: some file systems
/// announce nothing, and no watch sees all that a chain of links leads through.
const SAFETY_SCAN: Duration = Duration::from_secs(10);
/// How often a directory that vanished is looked for.
const ROOT_SCAN: Duration = Duration::from_millis(50);

/// Ends the watching when dropped, and waits until it has ended.
#[derive(Debug)]
pub struct WatchHandle {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        // A counter that is not even 1 cannot overflow: this does not fail.
        let stopped = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (stopped, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// See [`super::watch`].
pub(super) fn start(
    directory: &Path,
) -> Result<(watch::Receiver<Snapshot>, WatchHandle), SourceError> {
    check(directory)?;
    let watches = Watches::new(directory).map_err(|source| SourceError::NoInotify { source })?;
    let no_thread = |source| SourceError::NoThread { source };
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let stop = Arc::new(stop.map_err(|error| no_thread(error.into()))?);
    let (snapshots, receiver) = watch::channel(Snapshot::default());
    let watcher = Watcher {
        collection: Collection::new(directory),
        watches,
        stop: Arc::clone(&stop),
        snapshots,
        next_scan: Instant::now(),
    };
    let (has_begun, begun) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("manifests".to_owned())
        .stack_size(STACK_SIZE)
        .spawn(move || watcher.run(&has_begun))
        .map_err(no_thread)?;
    // Fails if the thread has ended, which it does only on request.
    let _ = begun.recv();
    info!(directory = %directory.display(), "watching manifests");
    let thread = Some(thread);
    Ok((receiver, WatchHandle { stop, thread }))
}

fn check(directory: &Path) -> Result<(), SourceError> {
    let path = directory.to_owned();
    match fs::read_dir(directory) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => SourceError::Missing { path },
            io::ErrorKind::NotADirectory => SourceError::NotADirectory { path },
            _ => SourceError::Unreadable {
                path,
                source: error,
            },
        }),
    }
}

struct Watcher {
    collection: Collection,
    watches: Watches,
    stop: Arc<OwnedFd>,
    snapshots: watch::Sender<Snapshot>,
    next_scan: Instant,
}

impl Watcher {
    fn run(mut self, has_begun: &mpsc::Sender<()>) {
        self.scan(false, Instant::now());
        self.publish();
        // Fails if the receiver is closed.
        let _ = has_begun.send(());
        while self.wait() && !self.snapshots.is_closed() {
            // From before the events are taken: what is due at this moment is due in spite
            // of all that had happened until then.
            let now = Instant::now();
            let changes = self.watches.drain().unwrap_or_else(|error| {
                warn!(%error, "cannot read events; reading everything again");
                Changes {
                    lost: true,
                    ..Changes::default()
                }
            });
            self.apply(&changes, now);
            self.publish();
        }
    }

    /// Waits until something is to be done; false when the handle was dropped.
    fn wait(&self) -> bool {
        let due = self.collection.next_due();
        let due = due.map_or(self.next_scan, |due| due.min(self.next_scan));
        let timeout = due.saturating_duration_since(Instant::now());
        // At most until the next scan: the conversion cannot fail.
        let timeout = Timespec::try_from(timeout).ok();
        let mut descriptors = [
            PollFd::from_borrowed_fd(self.watches.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
        ];
        // Interrupted by a signal, it has waited for too short a time, which is harmless.
        let _ = poll(&mut descriptors, timeout.as_ref());
        descriptors[1].revents().is_empty()
    }

    fn apply(&mut self, changes: &Changes, now: Instant) {
        for (path, &cause) in &changes.files {
            self.collection.read(path, cause, now);
        }
        if changes.lost || changes.rescan || self.next_scan <= now {
            self.scan(changes.lost, now);
        }
        self.collection.catch_up(now);
    }

    fn scan(&mut self, force: bool, now: Instant) {
        let (listing, failure) = self.watches.list();
        self.collection
            .set_unwatched(failure.map(|error| error.to_string()));
        self.collection.update(listing, force, now);
        let pause = if self.collection.has_root() {
            SAFETY_SCAN
        } else {
            ROOT_SCAN
        };
        self.next_scan = now + pause;
    }

    /// Sends a new Snapshot, if there is anything new in it.
    fn publish(&mut self) {
        let Some(snapshot) = self.collection.take_snapshot() else {
            return;
        };
        self.snapshots.send_if_modified(|last| {
            let differs = *last != snapshot;
            if differs {
                *last = snapshot;
            }
            differs
        });
    }
}
