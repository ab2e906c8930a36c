//! Every file of a source, and the [`Snapshot`] that they make.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::content::{Content, Keep};
use super::file::FileState;
use super::merge;
use super::reading::{self, Cause, Reading, SIZE_LIMIT};
use super::tree::Listing;
use crate::compile::{Diagnostic, Severity};
use crate::objects::{ObjectName, ObjectReference, inert};
use crate::reason;
use crate::source::Snapshot;

/// For how long a file that vanished stays in effect: many tools replace a file by
/// deleting it and writing it anew, which must not be seen as two changes.
const DEPARTURE: Duration = Duration::from_millis(25);
/// The same when the whole directory was replaced, and is being filled again.
const DEPARTURE_WITH_DIRECTORY: Duration = Duration::from_secs(1);

/// Every file that a source has read.
pub(super) struct Collection {
    /// What paths are relative to; empty where they are given as they are.
    root: PathBuf,
    keep: Keep,
    files: BTreeMap<PathBuf, FileState>,
    /// Directories that cannot be listed, and why. What is known of files below them
    /// stays.
    unreadable: BTreeMap<PathBuf, String>,
    /// Why the kernel does not watch all of it.
    unwatched: Option<String>,
    /// Whether every file had been read when the last Snapshot was taken.
    was_complete: bool,
    /// Whether anything differs from the last Snapshot.
    differs: bool,
}

impl Collection {
    /// No file yet.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            keep: Keep::default(),
            files: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            unwatched: None,
            was_complete: false,
            differs: true,
        }
    }

    /// The same, to be judged.
    pub(super) fn to_judge() -> Self {
        Self {
            keep: Keep::Routes,
            ..Self::new(Path::new(""))
        }
    }

    /// The good content of every file, by path.
    pub(super) fn contents(&self) -> impl Iterator<Item = &Content> {
        self.files.values().filter_map(|file| file.good.as_ref())
    }

    /// Whether the root can be listed.
    pub(super) fn has_root(&self) -> bool {
        !self.unreadable.contains_key(Path::new(""))
    }

    /// Says whether the kernel watches everything.
    pub(super) fn set_unwatched(&mut self, cause: Option<String>) {
        self.differs |= self.unwatched != cause;
        self.unwatched = cause;
    }

    /// Takes note of what there is now, and reads what differs; everything if `force`.
    pub(super) fn update(&mut self, listing: Listing, force: bool, now: Instant) {
        let had_root = self.has_root();
        self.differs |= self.unreadable != listing.unreadable;
        self.unreadable = listing.unreadable;
        for (path, listed) in &listing.files {
            let known = self.files.get(path);
            if force || !known.is_some_and(|file| file.is_read(listed.stamp)) {
                self.read(path, Cause::default(), now);
            }
        }
        let has_root = self.has_root();
        for (path, file) in &mut self.files {
            let is_gone = !listing.files.contains_key(path) && !is_below(path, &self.unreadable);
            let grace = match file.departing {
                // It went with its directory, which may be on its way back.
                Some(_) if had_root && !has_root => DEPARTURE_WITH_DIRECTORY,
                None if is_gone && had_root => DEPARTURE,
                None if is_gone => DEPARTURE_WITH_DIRECTORY,
                _ => continue,
            };
            self.differs |= file.depart(now + grace);
        }
    }

    /// Reads a file.
    pub(super) fn read(&mut self, path: &Path, cause: Cause, now: Instant) {
        let full_path = self.root.join(path);
        let reading = reading::read(&full_path, cause);
        if matches!(reading, Reading::Gone) {
            // Unless the file itself was removed, it may be there still where its
            // directory is now.
            let is_removed = cause.removed || full_path.parent().is_some_and(Path::is_dir);
            if let Some(file) = self.files.get_mut(path) {
                self.differs |= file.vanish(is_removed.then_some(now + DEPARTURE));
            }
            return;
        }
        let file = self.files.entry(path.to_owned()).or_default();
        self.differs |= match reading {
            Reading::Whole(bytes, stamp) => file.take(path, &bytes, Some(stamp), self.keep),
            Reading::BeingWritten => file.wait_for_writer(now),
            Reading::TooLarge(size) => file.refuse_size(size),
            Reading::Unreadable(cause) => file.refuse(&cause),
            Reading::Gone => false,
        };
    }

    /// Takes what was read from a stream, which ends only once.
    pub(super) fn take_stream(&mut self, path: &Path, content: io::Result<Vec<u8>>) {
        let file = self.files.entry(path.to_owned()).or_default();
        self.differs |= match content {
            Ok(bytes) if bytes.len() as u64 > SIZE_LIMIT => file.refuse_size(bytes.len() as u64),
            Ok(bytes) => file.take(path, &bytes, None, self.keep),
            Err(error) => file.refuse(&error.to_string()),
        };
    }

    /// When [`Self::catch_up`] is next due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let attempts = self.files.values().filter_map(FileState::next_attempt);
        let departures = self.departures().map(|(_, until)| until);
        attempts.chain(departures).min()
    }

    /// Tries files again that were being written, and lets those go that stayed away.
    pub(super) fn catch_up(&mut self, now: Instant) {
        let is_due = |file: &FileState| file.next_attempt().is_some_and(|due| due <= now);
        let files = self.files.iter().filter(|(_, file)| is_due(file));
        let retries: Vec<_> = files.map(|(path, _)| path.clone()).collect();
        for path in retries {
            self.read(&path, Cause::default(), now);
        }
        let departures = self.departures().filter(|&(_, until)| until <= now);
        let departed: Vec<_> = departures.map(|(path, _)| path.to_owned()).collect();
        for path in departed {
            info!(file = %inert(&path.to_string_lossy()), "manifest removed");
            self.files.remove(&path);
            self.differs = true;
        }
    }

    /// Whether any file is being written.
    pub(super) fn is_waiting(&self) -> bool {
        self.files
            .values()
            .any(|file| file.next_attempt().is_some())
    }

    /// What all files say together, if anything may differ from the last time.
    pub(super) fn take_snapshot(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.differs) {
            return None;
        }
        let mut problems = self.directory_problems();
        for (path, file) in &self.files {
            problems.extend(self.file_problem(path, file));
            let good = file.good.iter();
            problems.extend(good.flat_map(|good| good.problems.iter().cloned()));
        }
        let objects = merge::merge(&self.files, &mut problems);
        // Nothing can be said about a file that has just appeared and is being written,
        // which is no reason to take back what was said of all others.
        let is_settled =
            |file: &FileState| file.good.is_some() || (self.was_complete && file.trouble.is_none());
        // The root was listed once, and what is known of it stays: that is everything.
        let is_listed = |path: &Path| path == Path::new("");
        let complete = self.unreadable.keys().all(|path| is_listed(path))
            && self.files.values().all(is_settled);
        self.was_complete = complete;
        Some(Snapshot {
            objects: Arc::new(objects),
            problems,
            complete,
        })
    }

    /// Files that are gone, and until when they stay in effect.
    fn departures(&self) -> impl Iterator<Item = (&Path, Instant)> {
        let files = self.files.iter();
        files.filter_map(|(path, file)| Some((path.as_path(), file.departing?)))
    }

    fn file_problem(&self, path: &Path, file: &FileState) -> Option<Diagnostic> {
        let trouble = file.trouble.as_ref()?;
        let consequence = if file.good.is_some() {
            "its last good content stays in effect"
        } else {
            "nothing of it is in effect"
        };
        Some(Diagnostic {
            object: self.reference("File", path),
            severity: Severity::Refused,
            reason: trouble.reason,
            field: trouble.field.clone(),
            message: format!("{}; until then {consequence}", trouble.message),
        })
    }

    fn directory_problems(&self) -> Vec<Diagnostic> {
        let problem = |path: &Path, severity, reason, message| Diagnostic {
            object: self.reference("Directory", path),
            severity,
            reason,
            field: String::new(),
            message,
        };
        let unreadable = self.unreadable.iter().map(|(path, cause)| {
            let message = format!(
                "{cause}: let this user list it, or create it anew (empty, to withdraw what it \
                 held); until then what was read from it, and not deleted, stays in effect"
            );
            problem(path, Severity::Refused, reason::UNREADABLE, message)
        });
        let unwatched = self.unwatched.iter().map(|cause| {
            let message = format!(
                "{cause}: changes are noticed late; raise fs.inotify.max_user_watches (sysctl)"
            );
            problem(
                Path::new(""),
                Severity::Warning,
                reason::NOT_WATCHED,
                message,
            )
        });
        unreadable.chain(unwatched).collect()
    }

    /// How reports name a file or directory: what it is relative to takes the place of
    /// a namespace.
    fn reference(&self, kind: &str, path: &Path) -> ObjectReference {
        let (directory, name) = if self.root.as_os_str().is_empty() {
            let parent = path.parent().unwrap_or(Path::new(""));
            (parent, path.file_name().map_or(path, Path::new))
        } else {
            (self.root.as_path(), path)
        };
        let shown = |path: &Path| match path.display().to_string() {
            empty if empty.is_empty() => ".".to_owned(),
            // A file may be called anything.
            text => inert(&text).into_owned(),
        };
        ObjectReference {
            kind: kind.to_owned(),
            name: ObjectName::new(shown(directory), shown(name)),
        }
    }
}

fn is_below(path: &Path, directories: &BTreeMap<PathBuf, String>) -> bool {
    directories
        .keys()
        .any(|directory| path.starts_with(directory))
}
