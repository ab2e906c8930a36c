//! What is said about an object: accepted, or what is wrong with which field, and what
//! to do about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::sorted_vec_set::SortedVecSet;
use crate::objects::{DecodeError, ObjectReference};
use crate::plan::Origin;
use crate::reason;

/// What a diagnostic means for the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong with it.
    Accepted,
    /// Nothing is wrong with it, but its author may want to know.
    Note,
    /// Not programmed until something else changes, for example until its root Service
    /// exists.
    Inactive,
    /// Programmed, but not quite as its author may expect.
    Warning,
    /// Not programmed; its root behaves as if the object did not exist.
    Refused,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(splitter_api::Severity::from(*self).as_str())
    }
}

/// One thing said about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "splitter_api::Diagnostic")]
pub struct Diagnostic {
    /// The object.
    pub object: ObjectReference,
    /// What it means for the object.
    pub severity: Severity,
    /// One CamelCase word, for machines.
    pub reason: &'static str,
    /// The field that is the cause, for example `spec.backends[1].weight`; empty if it
    /// is the object as a whole.
    pub field: String,
    /// What is the matter and what to do about it, in one sentence for people.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.object, self.severity, self.reason)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl From<DecodeError> for Diagnostic {
    fn from(error: DecodeError) -> Self {
        Self {
            object: error.object,
            severity: Severity::Refused,
            reason: reason::UNREADABLE,
            field: error.field.into(),
            message: error.message,
        }
    }
}

/// Diagnostics while they are gathered.
#[derive(Debug, Default)]
pub struct Diagnostics {
    gathered: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds a diagnostic of the object that a claim comes from.
    pub fn emit(
        &mut self,
        origin: &Origin,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.emit_for(origin.object(), severity, reason, field, message);
    }

    /// Adds a diagnostic of any object.
    pub fn emit_for(
        &mut self,
        object: ObjectReference,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.gathered.push(Diagnostic {
            object,
            severity,
            reason,
            field: field.into(),
            message: message.into(),
        });
    }

    /// Adds what is said of one object: of each reason the first few, and how many more there
    /// are. Each becomes a line of the log and an Event, and an object can be written so that one
    /// thing is wrong with it ten thousand times.
    pub(crate) fn append_some(&mut self, other: Self) {
        const MAX_OF_A_REASON: usize = 10;
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        let mut last: BTreeMap<_, usize> = BTreeMap::new();
        for diagnostic in other.gathered {
            let sort = (diagnostic.severity, diagnostic.reason);
            let count = counts.entry(sort).or_default();
            *count += 1;
            if *count <= MAX_OF_A_REASON {
                last.insert(sort, self.gathered.len());
                self.gathered.push(diagnostic);
            }
        }
        for (sort, count) in counts {
            let last = last
                .get(&sort)
                .and_then(|last| self.gathered.get_mut(*last));
            if let Some(last) = last.filter(|_| count > MAX_OF_A_REASON) {
                let more = count - MAX_OF_A_REASON;
                last.message += &format!(" (and {more} more like it)");
            }
        }
    }

    /// All of them, each once.
    pub(super) fn into_set(self) -> SortedVecSet<Arc<Diagnostic>> {
        self.gathered.into_iter().map(Arc::new).collect()
    }
}

impl Diagnostic {
    /// That nothing is wrong with an object.
    pub(super) fn accepted(object: ObjectReference) -> Self {
        Self {
            object,
            severity: Severity::Accepted,
            reason: reason::ACCEPTED,
            field: String::new(),
            message: "accepted as written".to_owned(),
        }
    }
}
