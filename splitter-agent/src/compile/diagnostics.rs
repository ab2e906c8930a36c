//! What is said about an object: accepted, or what is wrong with which field, and what
//! to do about it.

use std::fmt;

use serde::Serialize;

use crate::objects::ObjectReference;

/// What a diagnostic means for the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// In force as written.
    Accepted,
    /// Not in force until something else changes, for example until its root Service
    /// exists.
    Inactive,
    /// In force, but not quite as its author may expect.
    Warning,
    /// Not in force; its root behaves as if the object did not exist.
    Refused,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
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
