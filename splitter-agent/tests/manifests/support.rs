//! A directory that is watched, and what is expected of its Snapshots.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use splitter_agent::compile::Diagnostic;
use splitter_agent::source::Snapshot;
use splitter_agent::source::manifests::{self, WatchHandle};
use tempfile::TempDir;
use tokio::sync::watch::Receiver;

/// For how long something is waited for that must happen; far longer than it takes.
const LONG: Duration = Duration::from_secs(60);
/// For how long it is observed that something does not happen.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

/// A Service.
pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.96.0.10\n  \
         ports:\n  - port: 80\n"
    )
}

/// A Service that cannot be read: it has no name.
pub(crate) const NAMELESS: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {}\nspec:\n  clusterIP: 10.96.0.11\n";

/// Several documents as one text.
pub(crate) fn documents(documents: &[&str]) -> String {
    documents.join("---\n")
}

/// Names of the Services in a Snapshot.
pub(crate) fn services(snapshot: &Snapshot) -> Vec<&str> {
    let names = snapshot.objects.services.keys();
    names.map(|name| name.name.as_str()).collect()
}

/// The problem of a file, which must be the only one.
pub(crate) fn file_problem<'a>(snapshot: &'a Snapshot, path: &str) -> &'a Diagnostic {
    let [problem] = snapshot.problems.as_slice() else {
        panic!("not one problem: {snapshot:#?}");
    };
    assert_eq!(problem.object.kind, "File");
    assert_eq!(problem.object.name.name, path);
    problem
}

/// A directory, to be watched.
pub(crate) struct Directory {
    place: TempDir,
}

impl Directory {
    pub(crate) fn new() -> Self {
        let place = TempDir::new().expect("a temporary directory");
        let directory = Self { place };
        fs::create_dir(directory.root()).expect("create");
        directory
    }

    /// The directory that is watched.
    pub(crate) fn root(&self) -> PathBuf {
        self.place.path().join("manifests")
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A path beside it, which is not watched.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Writes a file in place.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write");
    }

    pub(crate) fn watch(&self) -> Watched {
        watch(&self.root())
    }
}

/// The source of a directory.
pub(crate) struct Watched {
    pub(crate) snapshots: Receiver<Snapshot>,
    _handle: WatchHandle,
}

pub(crate) fn watch(path: &Path) -> Watched {
    let (snapshots, handle) = manifests::watch(path).expect("can be watched");
    Watched {
        snapshots,
        _handle: handle,
    }
}

impl Watched {
    /// The last Snapshot.
    pub(crate) fn now(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Waits for a Snapshot that is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.now();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < LONG, "never {what}: {snapshot:#?}");
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until exactly these Services are known, nothing is wrong, and nothing unread.
    pub(crate) fn until_services(&self, names: &[&str]) {
        self.until(&format!("only {names:?}"), |snapshot| {
            services(snapshot) == names && snapshot.problems.is_empty() && snapshot.complete
        });
    }

    /// Waits until there is a problem of this reason.
    pub(crate) fn until_problem(&self, reason: &str) -> Snapshot {
        self.until(reason, |snapshot| {
            snapshot
                .problems
                .iter()
                .any(|problem| problem.reason == reason)
        })
    }

    /// Observes for a while that every Snapshot has all these Services.
    pub(crate) fn keeps_services(&self, names: &[&str]) {
        let start = Instant::now();
        while start.elapsed() < SHORT {
            assert_eq!(services(&self.now()), names);
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Looks at every Snapshot of a source, by a thread of its own that misses none for
/// long, until dropped.
pub(crate) struct Observer {
    lost: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Observes whether a Service is always there.
    pub(crate) fn of(watched: &Watched, name: &'static str) -> Self {
        let snapshots = watched.snapshots.clone();
        let lost = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let (set_lost, stopped) = (Arc::clone(&lost), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !services(&snapshots.borrow()).contains(&name) {
                    set_lost.store(true, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(50));
            }
        });
        Self {
            lost,
            stop,
            thread: Some(thread),
        }
    }

    /// Whether it was lost since this was last asked.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
