//! The objects of all files as one, and what becomes of those that are given twice.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::content::{DocumentPlace, PlacedObject};
use super::file::FileState;
use crate::compile::{Diagnostic, Severity};
use crate::objects::{Kind, Object, ObjectName, ObjectReference, Objects, inert};
use crate::reason;

type Files = BTreeMap<PathBuf, FileState>;

/// All objects; of those with one name, the first. A file that is gone yields to all
/// others, which may have taken over its content.
pub(super) fn merge(files: &Files, problems: &mut Vec<Diagnostic>) -> Objects {
    let mut objects = Objects::default();
    let mut first_places = None;
    for (path, placed) in objects_of(files, false) {
        if !objects.contains(&placed.object) {
            objects.insert(placed.object.clone());
            continue;
        }
        let first_places = first_places.get_or_insert_with(|| first_places_of(files));
        if let Some(&first) = first_places.get(&key(&placed.object)) {
            problems.push(duplicate(placed, path, first));
        }
    }
    for (_, placed) in objects_of(files, true) {
        if !objects.contains(&placed.object) {
            objects.insert(placed.object.clone());
        }
    }
    objects.refused = refused_in(files).collect();
    objects
}

/// What the files give that cannot be read.
fn refused_in(files: &Files) -> impl Iterator<Item = ObjectReference> {
    let problems = files
        .values()
        .filter_map(|file| file.good.as_ref())
        .flat_map(|good| &good.problems);
    problems
        .filter(|problem| problem.severity == Severity::Refused)
        .map(|problem| problem.object.clone())
}

/// The objects of all files that are, or are not, departing, in their order.
fn objects_of(files: &Files, departing: bool) -> impl Iterator<Item = (&Path, &PlacedObject)> {
    let files = files
        .iter()
        .filter(move |(_, file)| file.departing.is_some() == departing);
    files.flat_map(|(path, file)| {
        let objects = file.good.iter().flat_map(|good| &good.objects);
        objects.map(move |placed| (path.as_path(), placed))
    })
}

type Key<'files> = (Kind, &'files ObjectName);

fn first_places_of(files: &Files) -> HashMap<Key<'_>, (&Path, DocumentPlace)> {
    let mut places = HashMap::new();
    for (path, placed) in objects_of(files, false) {
        places
            .entry(key(&placed.object))
            .or_insert((path, placed.place));
    }
    places
}

const fn key(object: &Object) -> Key<'_> {
    (object.kind(), object.name())
}

fn duplicate(
    placed: &PlacedObject,
    path: &Path,
    (first, place): (&Path, DocumentPlace),
) -> Diagnostic {
    Diagnostic {
        object: placed.object.reference(),
        severity: Severity::Refused,
        reason: reason::DUPLICATE_OBJECT,
        field: String::new(),
        message: format!(
            "{} {} gives it again: the one of {} {place} is used; remove one of the two",
            inert(&path.display().to_string()),
            placed.place,
            inert(&first.display().to_string()),
        ),
    }
}
