//! What is said about an object: accepted, or what is wrong with which field, and what
//! to do about it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::few::Few;
use super::split::reference;
use crate::objects::{DecodeError, ObjectName, ObjectReference};
use crate::plan::Origin;
use crate::reason;

/// What a diagnostic means for the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
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
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Note => "note",
            Self::Inactive => "inactive",
            Self::Warning => "warning",
            Self::Refused => "refused",
        })
    }
}

/// One thing said about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

/// What has been said so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Says one thing about the object that a split comes from.
    pub(super) fn say(
        &mut self,
        origin: &Origin,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        let ObjectReference { kind, name } = reference(origin);
        self.say_of(&kind, &name, severity, reason, field, message);
    }

    /// Says one thing about any object.
    pub(super) fn say_of(
        &mut self,
        kind: &str,
        name: &ObjectName,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            object: ObjectReference {
                kind: kind.to_owned(),
                name: name.clone(),
            },
            severity,
            reason,
            field: field.into(),
            message: message.into(),
        });
    }

    /// Says of an object that nothing is wrong with it, unless more than notes was said of it.
    pub(super) fn accept(&mut self, origin: &Origin) {
        let object = reference(origin);
        let is_wrong = |said: &Diagnostic| said.object == object && said.severity != Severity::Note;
        if self.diagnostics.iter().any(is_wrong) {
            return;
        }
        self.say(
            origin,
            Severity::Accepted,
            reason::ACCEPTED,
            "",
            "accepted as written",
        );
    }

    /// Everything that was said.
    pub(super) fn into_diagnostics(self) -> Few<Arc<Diagnostic>> {
        self.diagnostics.into_iter().map(Arc::new).collect()
    }
}
