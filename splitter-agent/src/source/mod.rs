//! Where objects come from.

pub mod manifests;

use std::sync::Arc;

use crate::compile::Diagnostic;
use crate::objects::Objects;

/// What a source knows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every object that it could read.
    pub objects: Arc<Objects>,
    /// What is wrong with what it could not read.
    pub problems: Vec<Diagnostic>,
    /// Whether everything that exists has been read at least once. Until then absence
    /// proves nothing: what is in force but not in `objects` must stay.
    pub complete: bool,
}
