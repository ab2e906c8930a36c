//! From what is found about objects to the store of diagnostics, and to the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compile::{Compiler, Diagnostic, Severity};
use crate::objects::{DecodeError, Identity, ObjectReference};
use crate::report::{DiagnosticChange, DiagnosticStore, Producer};

use super::failures::Failures;

/// More objects at once than this that are accepted are logged in one line.
const BULK_THRESHOLD: usize = 100;

/// Diagnostics since the last publication; reported after the next one.
pub(super) struct Findings {
    store: DiagnosticStore,
    /// Objects that cannot be read.
    refused: BTreeSet<ObjectReference>,
    /// Those of them that cannot be read since the last publication, or can be again.
    decoded: BTreeMap<ObjectReference, Option<DecodeError>>,
    /// What the source cannot read, if that changed.
    problems: Option<Vec<Diagnostic>>,
}

impl Findings {
    pub(super) fn new(store: DiagnosticStore) -> Self {
        Self {
            store,
            refused: BTreeSet::new(),
            decoded: BTreeMap::new(),
            problems: None,
        }
    }

    /// An object cannot be read.
    pub(super) fn refuse(&mut self, error: DecodeError) {
        self.refused.insert(error.object.clone());
        self.decoded.insert(error.object.clone(), Some(error));
    }

    /// An object can be read, or is gone.
    pub(super) fn accept(&mut self, object: &ObjectReference) {
        if self.refused.remove(object) {
            self.decoded.insert(object.clone(), None);
        }
    }

    /// Everything that the source cannot read.
    pub(super) fn replace_problems(&mut self, problems: Vec<Diagnostic>) {
        self.problems = Some(problems);
    }

    /// Brings the store to what is found: about objects that were read or could not be, and about
    /// those of which the compiler or the publisher tells something else than before.
    pub(super) fn publish(
        &mut self,
        objects: &BTreeSet<ObjectReference>,
        compiler: &Compiler,
        failures: &Failures,
    ) {
        let mut edit = self.store.edit();
        let mut identities = BTreeMap::new();
        for (object, error) in std::mem::take(&mut self.decoded) {
            if let Some(error) = &error {
                identities.insert(object.clone(), Identity::clone(&error.identity));
            }
            let diagnostic = error.map(Diagnostic::from);
            edit.set(Producer::Decoder, &object, diagnostic);
        }
        if let Some(problems) = self.problems.take() {
            edit.set_all(Producer::Source, problems);
        }
        for object in objects {
            let compiled = compiler.diagnostics(object).into_iter();
            let compiled = compiled.map(Arc::unwrap_or_clone);
            edit.set(Producer::Compiler, object, compiled);
            edit.set(Producer::Publisher, object, failures.of(object));
            if let Some(identity) = compiler.identity(object) {
                let weights = compiler.route(object).map(|route| route.weights.clone());
                edit.describe(object, identity, weights.unwrap_or_default());
            }
        }
        for (object, identity) in identities {
            edit.describe(&object, identity, Box::default());
        }
        log(&edit.commit());
    }
}

/// Logs what is new, and what no longer holds.
fn log(changes: &[DiagnosticChange]) {
    let is_bulk = changes.len() > BULK_THRESHOLD;
    let mut accepted = 0_usize;
    for DiagnosticChange { before, after } in changes {
        for cleared in before.iter().filter(|it| !after.contains(it)) {
            if cleared.severity != Severity::Accepted {
                tracing::info!(
                    object = %cleared.object, reason = cleared.reason, "condition cleared"
                );
            }
        }
        for new in after.iter().filter(|it| !before.contains(it)) {
            if is_bulk && new.severity == Severity::Accepted {
                accepted += 1;
            } else {
                log_diagnostic(new);
            }
        }
    }
    if accepted > 0 {
        tracing::info!(objects = accepted, "accepted as written");
    }
}

fn log_diagnostic(diagnostic: &Diagnostic) {
    let Diagnostic {
        object,
        severity,
        reason,
        field,
        message,
    } = diagnostic;
    match severity {
        Severity::Accepted | Severity::Note | Severity::Inactive => {
            tracing::info!(%object, %severity, reason, field, "{message}");
        }
        Severity::Warning | Severity::Refused => {
            tracing::warn!(%object, %severity, reason, field, "{message}");
        }
    }
}
