//! What is found about objects: gathered from everyone who finds something, logged when it
//! changes, and put on the board.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compile::{Compiler, Diagnostic, Severity};
use crate::objects::{DecodeError, Identity, ObjectReference};
use crate::report::{Board, Standing};

use super::failures::Failures;

/// More findings at once than this that nothing is wrong are told in one line.
const MANY: usize = 100;

/// The findings about every object, by who found them; the compiler keeps its own.
pub(super) struct Findings {
    board: Board,
    /// Objects that cannot be read.
    refusals: BTreeMap<ObjectReference, (Identity, Diagnostic)>,
    /// What the source cannot read.
    problems: BTreeMap<ObjectReference, BTreeSet<Diagnostic>>,
    /// Objects of which something may have to be said.
    touched: BTreeSet<ObjectReference>,
    /// What has been said, so that it is said once.
    said: BTreeMap<ObjectReference, Arc<[Diagnostic]>>,
}

impl Findings {
    pub(super) fn new(board: Board) -> Self {
        Self {
            board,
            refusals: BTreeMap::new(),
            problems: BTreeMap::new(),
            touched: BTreeSet::new(),
            said: BTreeMap::new(),
        }
    }

    /// Something else may be found about these objects than before.
    pub(super) fn note(&mut self, objects: &BTreeSet<ObjectReference>) {
        self.touched.extend(objects.iter().cloned());
    }

    /// An object cannot be read.
    pub(super) fn refuse(&mut self, error: DecodeError) {
        let object = error.object.clone();
        let identity = Identity::clone(&error.identity);
        self.refusals
            .insert(object.clone(), (identity, error.into()));
        self.touched.insert(object);
    }

    /// An object can be read, or is gone.
    pub(super) fn accept(&mut self, object: &ObjectReference) {
        if self.refusals.remove(object).is_some() {
            self.touched.insert(object.clone());
        }
    }

    /// Everything that the source cannot read.
    pub(super) fn replace_problems(&mut self, problems: Vec<Diagnostic>) {
        replace(&mut self.problems, problems, &mut self.touched);
    }

    /// Logs what is new, and what no longer holds, and puts it on the board.
    pub(super) fn say(&mut self, compiler: &Compiler, failures: &Failures) {
        let touched = std::mem::take(&mut self.touched);
        let is_bulk = touched.len() > MANY;
        let mut accepted = 0_usize;
        let mut standings = Vec::with_capacity(touched.len());
        for object in touched {
            let found: Arc<[Diagnostic]> = self
                .found(compiler, failures, &object)
                .into_iter()
                .collect();
            let said = self.said.get(&object);
            for diagnostic in said.into_iter().flat_map(|said| said.iter()) {
                if !found.contains(diagnostic) && diagnostic.severity != Severity::Accepted {
                    tracing::info!(object = %diagnostic.object, reason = diagnostic.reason, "no longer so");
                }
            }
            for diagnostic in &*found {
                if said.is_some_and(|said| said.contains(diagnostic)) {
                    continue;
                }
                if is_bulk && diagnostic.severity == Severity::Accepted {
                    accepted += 1;
                    continue;
                }
                log(diagnostic);
            }
            let standing = (!found.is_empty()).then(|| {
                let refused = self.refusals.get(&object);
                let identity = refused.map(|(identity, _)| identity.clone());
                let identity = identity.or_else(|| compiler.identity(&object));
                let Identity {
                    api_version,
                    uid,
                    generation,
                } = identity.unwrap_or_default();
                Standing {
                    uid,
                    api_version,
                    generation,
                    weights: compiler
                        .route(&object)
                        .map_or_else(Box::default, |route| route.weights.clone()),
                    diagnostics: Arc::clone(&found),
                }
            });
            standings.push((object.clone(), standing));
            if found.is_empty() {
                self.said.remove(&object);
            } else {
                self.said.insert(object, found);
            }
        }
        if accepted > 0 {
            tracing::info!(objects = accepted, "accepted as written");
        }
        self.board.update(standings);
    }

    /// Everything that is found about an object.
    fn found(
        &self,
        compiler: &Compiler,
        failures: &Failures,
        object: &ObjectReference,
    ) -> BTreeSet<Diagnostic> {
        let compiled = compiler.diagnostics(object).into_iter();
        let refusal = self.refusals.get(object).map(|(_, diagnostic)| diagnostic);
        let problems = self.problems.get(object).into_iter().flatten();
        let mut found: BTreeSet<Diagnostic> = compiled
            .map(Arc::unwrap_or_clone)
            .chain(refusal.into_iter().chain(problems).cloned())
            .collect();
        let mut failures = failures.of(object).peekable();
        if failures.peek().is_some() {
            // What could not be published was not accepted after all.
            found.retain(|diagnostic| diagnostic.severity != Severity::Accepted);
            found.extend(failures);
        }
        found
    }
}

/// Puts diagnostics in place of others, and notes the objects that this concerns.
fn replace(
    old: &mut BTreeMap<ObjectReference, BTreeSet<Diagnostic>>,
    new: impl IntoIterator<Item = Diagnostic>,
    touched: &mut BTreeSet<ObjectReference>,
) {
    touched.extend(std::mem::take(old).into_keys());
    for diagnostic in new {
        touched.insert(diagnostic.object.clone());
        old.entry(diagnostic.object.clone())
            .or_default()
            .insert(diagnostic);
    }
}

fn log(diagnostic: &Diagnostic) {
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
