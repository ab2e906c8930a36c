//! What is known of one file.

use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::info;

use super::content::{Content, Keep};
use super::documents::SyntaxError;
use super::reading::{SIZE_LIMIT, Stamp};
use crate::objects::inert;
use crate::reason;

/// After how long a file that is being written is a problem.
const PATIENCE: Duration = Duration::from_secs(1);
/// A file that is being written is tried again after this, then ever less often. The
/// kernel announces that a writer is done a moment before it counts it out.
const FIRST_RETRY: Duration = Duration::from_micros(100);
/// The longest time between two attempts.
const SLOWEST_RETRY: Duration = Duration::from_secs(1);

/// A file, with its last good content.
#[derive(Default)]
pub(super) struct FileState {
    /// Its last good content.
    pub(super) good: Option<Content>,
    /// Why `good` is not what the file holds now.
    pub(super) trouble: Option<Trouble>,
    /// If the file is missing: until when its content stays in effect.
    pub(super) departing: Option<Instant>,
    /// The version that was read last, good or not. None: read it whenever in doubt.
    stamp: Option<Stamp>,
    /// The result of parsing the last text of the file.
    parsed: Option<Parsed>,
    /// Set while a process writes the file.
    writing: Option<Writing>,
}

/// The result of parsing a file, so that the same text is not parsed again.
struct Parsed {
    digest: u64,
    trouble: Option<Trouble>,
}

/// A file is being written.
struct Writing {
    since: Instant,
    next_attempt: Instant,
    interval: Duration,
}

/// What is wrong with a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One CamelCase word.
    pub(super) reason: &'static str,
    /// Where in the file, if that is known.
    pub(super) field: String,
    /// What is the matter, and what to do.
    pub(super) message: String,
}

impl From<SyntaxError> for Trouble {
    fn from(error: SyntaxError) -> Self {
        let position = error.position;
        let field = position.map(|(line, column)| format!("line {line} column {column}"));
        Self {
            reason: reason::INVALID_SYNTAX,
            field: field.unwrap_or_default(),
            message: format!("{}: correct the file", error.message),
        }
    }
}

/// Each of these says whether it made a difference to anybody else.
impl FileState {
    /// The file was read as a whole.
    pub(super) fn take(
        &mut self,
        path: &Path,
        bytes: &[u8],
        stamp: Option<Stamp>,
        keep: Keep,
    ) -> bool {
        let digest = digest(bytes);
        let known = self.parsed.as_ref().filter(|known| known.digest == digest);
        if let Some(known) = known {
            let trouble = known.trouble.clone();
            return self.finish(stamp, trouble);
        }
        let (trouble, differs) = match Content::parse(path, bytes, keep) {
            Ok(content) => (None, self.replace_good(path, content)),
            Err(error) => (Some(Trouble::from(error)), false),
        };
        self.parsed = Some(Parsed {
            digest,
            trouble: trouble.clone(),
        });
        differs | self.finish(stamp, trouble)
    }

    fn replace_good(&mut self, path: &Path, content: Content) -> bool {
        let differs = self.good.as_ref() != Some(&content);
        if differs {
            info!(
                file = %inert(&path.to_string_lossy()),
                objects = content.objects.len(),
                refused = content.problems.len(),
                "manifest read"
            );
            self.good = Some(content);
        }
        differs
    }

    /// The file is too large to be read.
    pub(super) fn refuse_size(&mut self, size: u64) -> bool {
        let message =
            format!("its {size} bytes are more than the {SIZE_LIMIT} that are read: divide it");
        self.fail(reason::TOO_LARGE, message)
    }

    /// The file cannot be read.
    pub(super) fn refuse(&mut self, cause: &str) -> bool {
        let message = format!("{cause}: make it a file that this user can read, or remove it");
        self.fail(reason::UNREADABLE, message)
    }

    /// The file cannot be read now: a process is writing it.
    pub(super) fn wait_for_writer(&mut self, now: Instant) -> bool {
        let writing = self.writing.get_or_insert(Writing {
            since: now,
            next_attempt: now,
            interval: FIRST_RETRY,
        });
        writing.next_attempt = now + writing.interval;
        writing.interval = (writing.interval * 2).min(SLOWEST_RETRY);
        self.stamp = None;
        let is_back = self.departing.take().is_some();
        if now.duration_since(writing.since) < PATIENCE {
            return is_back;
        }
        let message = "a process has it open for writing: let it close the file, or replace the \
                       file by renaming a whole one over it";
        is_back
            | self.set_trouble(Some(Trouble {
                reason: reason::BEING_WRITTEN,
                field: String::new(),
                message: message.to_owned(),
            }))
    }

    /// The file is not there. With an `until` it is gone, and its content stays in effect
    /// until then unless that was settled before.
    pub(super) fn vanish(&mut self, until: Option<Instant>) -> bool {
        self.writing = None;
        self.stamp = None;
        match until {
            Some(until) if self.departing.is_none() => self.depart(until),
            _ => false,
        }
    }

    /// The file is gone; its content stays in effect until `until`.
    pub(super) fn depart(&mut self, until: Instant) -> bool {
        self.writing = None;
        self.departing.replace(until).is_none()
    }

    /// When to read the file again, if a process is writing it.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.writing.as_ref().map(|writing| writing.next_attempt)
    }

    /// Whether this is the version that was read last.
    pub(super) fn is_read(&self, stamp: Option<Stamp>) -> bool {
        self.departing.is_none() && self.stamp.is_some() && self.stamp == stamp
    }

    fn fail(&mut self, reason: &'static str, message: String) -> bool {
        let trouble = Trouble {
            reason,
            field: String::new(),
            message,
        };
        self.finish(None, Some(trouble))
    }

    fn finish(&mut self, stamp: Option<Stamp>, trouble: Option<Trouble>) -> bool {
        self.stamp = stamp;
        self.writing = None;
        let is_back = self.departing.take().is_some();
        is_back | self.set_trouble(trouble)
    }

    fn set_trouble(&mut self, trouble: Option<Trouble>) -> bool {
        let differs = self.trouble != trouble;
        self.trouble = trouble;
        differs
    }
}

/// Tells one text of a file from the next.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
