//! What a manifest says: its objects, and what is wrong with those that cannot be used.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use serde_json::Value;
use tracing::debug;

use super::documents::{self, Document, Syntax, SyntaxError};
use crate::compile::Diagnostic;
use crate::objects::{self, Object};

/// The content of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Its objects, in their order.
    pub(super) objects: Vec<PlacedObject>,
    /// What is wrong with objects of the file that are not among `objects`.
    pub(super) problems: Vec<Diagnostic>,
}

/// An object, and where its file says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlacedObject {
    /// The object.
    pub(super) object: Object,
    /// Where it is.
    pub(super) place: Place,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The line where the document begins.
    line: u64,
    /// Which item of a list, from 1.
    item: Option<usize>,
}

impl fmt::Display for Place {
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
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SyntaxError> {
        let syntax = if path.extension() == Some(OsStr::new("json")) {
            Syntax::Json
        } else {
            Syntax::Yaml
        };
        let mut content = Self {
            objects: Vec::new(),
            problems: Vec::new(),
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
            content.add(path, Place { line, item: None }, value);
        }
        Ok(content)
    }

    /// Adds an object, or each item of a list (lists may be nested).
    fn add(&mut self, path: &Path, place: Place, value: Value) {
        match into_items(value) {
            Err(object) => self.decode(path, place, object),
            Ok(items) => {
                for (index, value) in items.into_iter().enumerate() {
                    let item = place.item.or(Some(index + 1));
                    self.add(path, Place { item, ..place }, value);
                }
            }
        }
    }

    fn decode(&mut self, path: &Path, place: Place, value: Value) {
        let kind = text(&value, "kind").to_owned();
        match objects::decode(value) {
            Ok(Some(object)) => self.objects.push(PlacedObject { object, place }),
            Ok(None) => debug!(file = %path.display(), %place, kind, "kind is not used, ignored"),
            Err(error) => {
                let mut problem = Diagnostic::from(error);
                problem.message += &format!(" ({} {place})", path.display());
                self.problems.push(problem);
            }
        }
    }
}

/// The items of a list, or the value back if it is none. Items of a list of one kind
/// (`ServiceList`) may leave out what the list says of all of them.
fn into_items(mut value: Value) -> Result<Vec<Value>, Value> {
    let Some(kind) = text(&value, "kind").strip_suffix("List").map(str::to_owned) else {
        return Err(value);
    };
    let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else {
        return Err(value);
    };
    let mut items = items;
    if !kind.is_empty() {
        let version = text(&value, "apiVersion").to_owned();
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("kind").or_insert_with(|| kind.clone().into());
            item.entry("apiVersion")
                .or_insert_with(|| version.clone().into());
        }
    }
    Ok(items)
}

/// A field as text; empty if it is none.
fn text<'value>(value: &'value Value, field: &str) -> &'value str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
