//! What a manifest says: its objects, and what is wrong with those that cannot be used.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use tracing::debug;

use super::documents::{self, Document, Syntax, SyntaxError};
use super::offline::{UnreadKind, WrittenRoute};
use crate::compile::{Diagnostic, Severity};
use crate::objects::{self, Kind, Object, inert, shown};
use crate::reason;

/// The content of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Its objects, in their order.
    pub(super) objects: Vec<PlacedObject>,
    /// What is wrong with objects of the file that are not among `objects`.
    pub(super) problems: Vec<Diagnostic>,
    /// How many objects there are of each kind that is not read.
    pub(super) unread: BTreeMap<UnreadKind, usize>,
    /// The objects that ask for splits as they are written, if that was asked for.
    pub(super) routes: Vec<WrittenRoute>,
}

/// Whether objects that ask for splits are kept as they are written, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Keep {
    /// Only what the agent needs of them.
    #[default]
    Objects,
    /// The whole of them.
    Routes,
}

/// An object, and where its file says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlacedObject {
    /// The object.
    pub(super) object: Object,
    /// Where it is.
    pub(super) place: DocumentPlace,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DocumentPlace {
    /// The line where the document begins.
    line: u64,
    /// Which item of a list, from 1.
    item: Option<usize>,
}

impl fmt::Display for DocumentPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        Ok(())
    }
}

impl Content {
    /// Reads the text of a file. `path` tells its syntax, and is how reports name it.
    pub(super) fn parse(path: &Path, bytes: &[u8], keep: Keep) -> Result<Self, SyntaxError> {
        let syntax = if path.extension() == Some(OsStr::new("json")) {
            Syntax::Json
        } else {
            Syntax::Yaml
        };
        let mut content = Self {
            objects: Vec::new(),
            problems: Vec::new(),
            unread: BTreeMap::new(),
            routes: Vec::new(),
        };
        let documents = documents::parse(bytes, syntax)?;
        if let Some(other) = documents
            .iter()
            .find(|document| !document.value.is_object())
        {
            // Not a manifest at all, or the beginning of one.
            return Err(SyntaxError {
                position: Some((other.line, 1)),
                message: "a document is not a mapping of field names to values".to_owned(),
            });
        }
        for Document { line, value } in documents {
            content.add(path, DocumentPlace { line, item: None }, value, keep);
        }
        Ok(content)
    }

    /// Adds an object, or each item of a list (lists may be nested).
    fn add(&mut self, path: &Path, place: DocumentPlace, value: Value, keep: Keep) {
        match into_items(value) {
            Err(object) => self.decode(path, place, object, keep),
            Ok(items) => {
                for (index, value) in items.into_iter().enumerate() {
                    let item = place.item.or(Some(index + 1));
                    self.add(path, DocumentPlace { item, ..place }, value, keep);
                }
            }
        }
    }

    fn decode(&mut self, path: &Path, place: DocumentPlace, value: Value, keep: Keep) {
        let kind = UnreadKind::of(&value);
        let (api_version, name) = (text(&value, "apiVersion"), text(&value, "kind"));
        let is_route = Kind::of(api_version, name).is_some_and(Kind::is_route);
        let slip = slip(&value);
        if keep == Keep::Routes && is_route {
            self.routes.push(WrittenRoute {
                value: value.clone(),
                place: shown_place(path, place),
            });
        }
        let is_none = value.is_null()
            || place.item.is_none() && is_absent(&value, "apiVersion") && is_absent(&value, "kind");
        // Only an empty document is no mistake, and those are left out already.
        let value = if value.is_null() { json!({}) } else { value };
        match objects::decode(value) {
            Ok(Some(object)) => self.objects.push(PlacedObject { object, place }),
            Ok(None) => {
                let file = inert(&path.to_string_lossy()).into_owned();
                debug!(%file, %place, %kind, "kind is not used, ignored");
                *self.unread.entry(kind).or_default() += 1;
                self.problems.extend(slip.map(|mut slip| {
                    slip.message += &format!(" ({})", shown_place(path, place));
                    slip
                }));
            }
            Err(error) => {
                let mut problem = Diagnostic::from(error);
                if is_none {
                    // Values of Helm and the like, among manifests: no reason to fail.
                    problem.severity = Severity::Warning;
                    problem.reason = reason::NOT_AN_OBJECT;
                    problem.field = String::new();
                    problem.message = "has neither apiVersion nor kind, so it is not read; write \
                                       both if it is meant to be a Kubernetes object"
                        .to_owned();
                }
                problem.message += &format!(" ({})", shown_place(path, place));
                self.problems.push(problem);
            }
        }
    }
}

/// A place in a file, for people.
fn shown_place(path: &Path, place: DocumentPlace) -> String {
    format!("{} {place}", inert(&path.display().to_string()))
}

/// The items of a list, or the value back if it is none that is unpacked. Items of a list
/// of one kind (`ServiceList`) may leave out what the list says of all of them.
fn into_items(mut value: Value) -> Result<Vec<Value>, Value> {
    let version = text(&value, "apiVersion").to_owned();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = text(&value, "kind");
    let item_kind = Kind::all().find(|item| {
        item.resource.group == group && kind.strip_suffix("List") == Some(item.name())
    });
    if item_kind.is_none() && (group, kind) != ("", "List") {
        return Err(value);
    }
    let mut items = match value.get_mut("items").map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items,
        // What it says of itself when it is read tells what is wrong.
        Some(other) => vec![other],
    };
    if let Some(kind) = item_kind {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("kind").or_insert_with(|| kind.name().into());
            item.entry("apiVersion")
                .or_insert_with(|| version.clone().into());
        }
    }
    Ok(items)
}

/// What is to be said of an object that would be read, but for a slip in its `apiVersion`.
fn slip(value: &Value) -> Option<Diagnostic> {
    let (api_version, name) = (text(value, "apiVersion"), text(value, "kind"));
    if Kind::of(api_version, name).is_some() {
        return None;
    }
    let meant = Kind::meant_by(api_version, name)?;
    Some(Diagnostic {
        object: objects::reference_of(value.as_object()?),
        severity: Severity::Warning,
        reason: reason::UNKNOWN_API_VERSION,
        field: "apiVersion".to_owned(),
        message: format!(
            "{} has no {meant}, so it is not read; write {}",
            shown(&Value::from(api_version)),
            meant.api_version()
        ),
    })
}

/// Whether a field is not there, `null` or empty.
fn is_absent(value: &Value, field: &str) -> bool {
    let value = value.get(field);
    value.is_none_or(|value| value.is_null() || value.as_str() == Some(""))
}

/// A field as text; empty if it is none.
fn text<'value>(value: &'value Value, field: &str) -> &'value str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
