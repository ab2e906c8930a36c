//! Judges manifests without a cluster: what the agent would say of them, what the API server
//! would, and what there is in them that neither reads.
//!
//! Manifests in a repository lack what a cluster adds, so `completion` adds it first. Judging
//! goes on past what is refused or missing, so that one run tells everything that is wrong.

mod completion;
mod definition;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;
use serde_json::Value;

pub use completion::Assumed;

use crate::compile::{Diagnostic, Settings, Severity, compile};
use crate::objects::{DecodeError, Object, ObjectReference, Objects, decode};
use crate::reason;
use crate::route::RouteObject;
use crate::source::manifests::{Reading, UnreadKind, WrittenRoute};

/// What can be said of a leaf whatever becomes of its split.
const OF_LEAVES: [&str; 11] = [
    reason::REF_NOT_PERMITTED,
    reason::HOST_NOT_FOUND,
    reason::SUBSET_NOT_FOUND,
    reason::LEAF_SERVICE_MISSING,
    reason::LEAF_PORT_MISSING,
    reason::NO_LEAF_SERVICE,
    reason::NO_LEAF_PORT,
    reason::INVALID_BACKEND_NAME,
    reason::INVALID_BACKEND_KIND,
    reason::BACKEND_IN_OTHER_NAMESPACE,
    reason::DUPLICATE_BACKEND,
];

/// The judgement on manifests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Whether anything is refused.
    pub refused: bool,
    /// How many objects asked splitter for splits, readable or not.
    pub splits: usize,
    /// Everything that is said, by object.
    pub diagnostics: Vec<Diagnostic>,
    /// What was taken to be there although the manifests do not have it.
    pub assumed: Assumed,
    /// The kinds that were given and not read, or not for splitter.
    pub not_read: Vec<Unread>,
}

/// Objects of a kind that is not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The kind.
    #[serde(flatten)]
    pub kind: UnreadKind,
    /// How many there were.
    pub count: usize,
}

impl Verdict {
    /// Whether nothing at all is wrong: no warning, and nothing that waits for something else.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.diagnostics
            .iter()
            .all(|diagnostic| diagnostic.severity <= Severity::Note)
    }
}

/// Judges what was read.
#[must_use]
pub fn judge(reading: &Reading, settings: &Settings) -> Verdict {
    let mut objects = Objects::clone(&reading.snapshot.objects);
    let assumed = completion::complete(&mut objects, settings);
    let mut diagnostics: BTreeSet<Diagnostic> = reading.snapshot.problems.iter().cloned().collect();
    diagnostics.extend(compile(&objects, settings).diagnostics);
    let mut by_version: Vec<Diagnostic> = reading.routes.iter().flat_map(in_version).collect();
    {
        let refused = diagnostics
            .iter()
            .filter(|other| other.severity == Severity::Refused);
        let unreadable: HashSet<&ObjectReference> = refused
            .clone()
            .filter(|other| other.reason == reason::UNREADABLE)
            .map(|other| &other.object)
            .collect();
        let refused: HashSet<(&ObjectReference, &str)> = refused
            .map(|other| (&other.object, &*other.field))
            .collect();
        by_version.retain(|diagnostic| {
            let field = (&diagnostic.object, &*diagnostic.field);
            !unreadable.contains(&diagnostic.object) && !refused.contains(&field)
        });
    }
    diagnostics.extend(by_version);
    let rest = judge_rest(objects, &diagnostics, settings);
    diagnostics.extend(rest);
    let faulty: BTreeSet<ObjectReference> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity > Severity::Note)
        .map(|diagnostic| diagnostic.object.clone())
        .collect();
    diagnostics.retain(|diagnostic| {
        diagnostic.severity != Severity::Accepted || !faulty.contains(&diagnostic.object)
    });
    // Routes for others are theirs to judge.
    let told: HashSet<&ObjectReference> = diagnostics.iter().map(|it| &it.object).collect();
    let is_for_others = |route: &&RouteObject| {
        !route.content.is_for_splitter() && !told.contains(&route.reference())
    };
    let for_others = reading.snapshot.objects.routes.values();
    let mut not_read = reading.unread.clone();
    let mut splits = reading.routes.len();
    for route in for_others.filter(is_for_others) {
        let kind = UnreadKind {
            kind: route.kind.name().to_owned(),
            api_version: route.identity.api_version.clone(),
        };
        *not_read.entry(kind).or_default() += 1;
        splits = splits.saturating_sub(1);
    }
    Verdict {
        refused: diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Refused),
        splits,
        diagnostics: diagnostics.into_iter().collect(),
        assumed,
        not_read: unread(&not_read),
    }
}

fn unread(kinds: &BTreeMap<UnreadKind, usize>) -> Vec<Unread> {
    let kinds = kinds.iter();
    kinds
        .map(|(kind, count)| Unread {
            kind: kind.clone(),
            count: *count,
        })
        .collect()
}

/// What the definition of its kind says of an object in the version that it is written in.
fn in_version(route: &WrittenRoute) -> Vec<Diagnostic> {
    let Ok(Some(object)) = decode(route.value.clone()) else {
        return Vec::new();
    };
    // What an API server gave out it also takes back, as long as the field stays as it is.
    let is_stored = route.value.pointer("/metadata/resourceVersion").is_some();
    definition::violations(object.kind(), &route.value)
        .into_iter()
        .map(|violation| Diagnostic {
            object: object.reference(),
            severity: if is_stored {
                Severity::Warning
            } else {
                Severity::Refused
            },
            reason: reason::INVALID_IN_VERSION,
            field: violation.field,
            message: format!("{} ({})", violation.message, route.place),
        })
        .collect()
}

/// What is wrong with the leaves of objects that are refused or wait for their root.
fn judge_rest(
    mut objects: Objects,
    said: &BTreeSet<Diagnostic>,
    settings: &Settings,
) -> Vec<Diagnostic> {
    let stopped: BTreeSet<&ObjectReference> = said
        .iter()
        .filter(|diagnostic| matches!(diagnostic.severity, Severity::Refused | Severity::Inactive))
        .map(|diagnostic| &diagnostic.object)
        .collect();
    if stopped.is_empty() {
        return Vec::new();
    }
    let known: HashSet<(&ObjectReference, &str, &str)> = said
        .iter()
        .map(|diagnostic| (&diagnostic.object, diagnostic.reason, &*diagnostic.field))
        .collect();
    // Backends of one name that differ in a field that is not known are not one backend.
    let differing: HashSet<&ObjectReference> = said
        .iter()
        .filter(|diagnostic| diagnostic.reason == reason::UNKNOWN_RESTRICTION)
        .map(|diagnostic| &diagnostic.object)
        .collect();
    for route in objects.routes.values_mut() {
        if let Some(content) = route.content.without_refusals() {
            route.content = content;
        }
    }
    completion::supply_roots(&mut objects, settings);
    let mut found = compile(&objects, settings).diagnostics;
    found.retain(|diagnostic| {
        let Diagnostic {
            object,
            reason,
            field,
            ..
        } = diagnostic;
        stopped.contains(object)
            && OF_LEAVES.contains(reason)
            && !known.contains(&(object, reason, field))
            && !(*reason == reason::DUPLICATE_BACKEND && differing.contains(object))
    });
    found
}

/// An object that this module writes itself.
fn written(value: Value) -> Option<Object> {
    let read: Result<_, DecodeError> = decode(value);
    read.ok().flatten()
}
