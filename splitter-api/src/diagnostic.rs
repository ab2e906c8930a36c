//! What the agent says about an object.

use serde::{Deserialize, Serialize};

use crate::word::words;

/// A finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diagnostic {
    /// The object.
    pub object: ObjectReference,
    /// What it means for the object.
    pub severity: Severity,
    /// The reason in one CamelCase word, for machines; Events and conditions use the same words.
    pub reason: String,
    /// Path of the field that is the cause, for example `spec.backends[1].weight`; empty if the cause
    /// is the object as a whole.
    pub field: String,
    /// What is wrong and what to do about it, in one sentence for people.
    pub message: String,
}

/// An object of the cluster, or a file that objects are read from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObjectReference {
    /// Kind, for example `TrafficSplit`.
    pub kind: String,
    /// Namespace; empty if the object has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

words! {
    /// What a diagnostic means for its object, from best to worst.
    pub enum Severity {
        /// Nothing is wrong with it.
        Accepted = "accepted",
        /// Nothing is wrong with it, but its author may want to know.
        Note = "note",
        /// Not programmed until something else changes, for example until its root Service exists.
        Inactive = "inactive",
        /// Programmed, but not quite as its author may expect.
        Warning = "warning",
        /// Not programmed; its root behaves as if the object did not exist.
        Refused = "refused",
    }
}
