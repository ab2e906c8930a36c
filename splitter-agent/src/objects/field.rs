//! Reading fields out of JSON: absent and `null` are the same, and whoever fails says
//! where.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

/// A JSON object.
pub type Fields = Map<String, Value>;

/// What is wrong with which field. The path grows from the inside out, so that reading
/// what is right costs no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field; empty for the value itself.
    pub field: String,
    /// What is the matter and what to do about it.
    pub message: String,
}

impl FieldError {
    /// An error of the value itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            field: String::new(),
            message: message.into(),
        }
    }

    /// The same error, seen from the object that holds the value as `name`.
    #[must_use]
    pub fn below(self, name: impl fmt::Display) -> Self {
        let field = if self.field.is_empty() {
            name.to_string()
        } else if self.field.starts_with('[') {
            format!("{name}{}", self.field)
        } else {
            format!("{name}.{}", self.field)
        };
        Self { field, ..self }
    }

    /// The same error, seen from the list that holds the value at `index`.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        self.below(format_args!("[{index}]"))
    }
}

/// A value for people: as JSON, not longer than a line.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    let text = inert(&text).into_owned();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// What an author wrote, for people: in quotes, not longer than a line.
pub(crate) fn quoted(text: &str) -> String {
    shown(&Value::from(text))
}

/// Text for people: what a terminal would obey, or what would show the rest in another
/// order or on another line, is written as JSON escapes it.
pub(crate) fn inert(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_active(character) {
            escaped += &format!("\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Controls, line separators, and marks of direction.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The value of a field, if it is there and not `null`.
pub(super) fn present<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// The value itself as an object.
pub(super) fn as_object(value: &Value) -> Result<&Fields, FieldError> {
    value
        .as_object()
        .ok_or_else(|| wrong_type(value, "an object"))
}

/// A field that is an object.
pub(super) fn object<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a Fields>, FieldError> {
    present(fields, name)
        .map(|value| as_object(value).map_err(|error| error.below(name)))
        .transpose()
}

/// A field that is a list; empty if absent.
pub(super) fn list<'a>(fields: &'a Fields, name: &str) -> Result<&'a [Value], FieldError> {
    match present(fields, name) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(value) => Err(wrong_type(value, "a list").below(name)),
    }
}

/// A field that is text.
pub(super) fn text<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a str>, FieldError> {
    match present(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(value) => Err(wrong_type(value, "a string").below(name)),
    }
}

/// A field that is true or false.
pub(super) fn boolean(fields: &Fields, name: &str) -> Result<Option<bool>, FieldError> {
    match present(fields, name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(value) => Err(wrong_type(value, "true or false").below(name)),
    }
}

/// The items of a list, each read by `read`.
pub(super) fn each<T>(
    fields: &Fields,
    name: &str,
    read: impl Fn(&Value) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    list(fields, name)?
        .iter()
        .enumerate()
        .map(|(index, item)| read(item).map_err(|error| error.at(index).below(name)))
        .collect()
}

/// A whole number, also in the form `80.0`.
pub(super) fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        // 2^53: up to here every whole number is a float of its own.
        (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
    })
}

/// A port number that can be dialled.
pub(super) fn port(value: &Value) -> Option<u16> {
    let port = u16::try_from(whole(value)?).ok()?;
    (port != 0).then_some(port)
}

fn wrong_type(value: &Value, wanted: &str) -> FieldError {
    FieldError::new(format!("is {}; write {wanted}", shown(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => fields,
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let fields = fields(json!({"list": null, "text": null, "flag": null, "object": null}));
        assert_eq!(list(&fields, "list"), Ok(&[][..]));
        assert_eq!(text(&fields, "text"), Ok(None));
        assert_eq!(boolean(&fields, "flag"), Ok(None));
        assert_eq!(object(&fields, "object"), Ok(None));
        assert_eq!(text(&fields, "nowhere"), Ok(None));
    }

    #[test]
    fn an_error_names_the_whole_path() {
        let fields = fields(json!({"ports": [{"name": "a"}, {"name": 7}]}));
        let error = each(&fields, "ports", |item| {
            text(as_object(item)?, "name").map(|_| ())
        })
        .unwrap_err()
        .below("spec");
        assert_eq!(error.field, "spec.ports[1].name");
        assert_eq!(error.message, "is 7; write a string");
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let text = shown(&Value::String("ü".repeat(500)));
        assert_eq!(text.chars().count(), 61);
    }

    #[test]
    fn nothing_shown_controls_a_terminal_or_its_direction() {
        let text = "a\u{1b}[2J\u{7f}\u{9b}\n\u{202e}\u{2066}\u{200f}\u{2028}ü";
        assert_eq!(
            inert(text),
            "a\\u001b[2J\\u007f\\u009b\\u000a\\u202e\\u2066\\u200f\\u2028ü"
        );
        assert!(!shown(&Value::from(text)).contains(is_active));
        assert!(matches!(inert("plain ü"), Cow::Borrowed("plain ü")));
    }

    #[test]
    fn ports_are_whole_and_in_range() {
        assert_eq!(port(&json!(80)), Some(80));
        assert_eq!(port(&json!(80.0)), Some(80));
        for bad in [
            json!(0),
            json!(65536),
            json!(-1),
            json!(80.5),
            json!("80"),
            json!(1e300),
        ] {
            assert_eq!(port(&bad), None, "{bad}");
        }
    }
}
