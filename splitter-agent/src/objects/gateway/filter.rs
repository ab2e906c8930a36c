//! What a rule or a backend does with requests, beside passing them on.

use serde_json::Value;

use super::rules::Findings;
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::unknown::is_empty;
use crate::reason;

/// What a filter does.
enum Effect {
    /// Nothing.
    None,
    /// It changes requests or answers, not where a connection goes.
    Handling(&'static str),
    /// It decides where a request goes, or whether.
    Destination(&'static str),
    /// Nobody knows.
    Unknown,
}

/// Judges the filters of a rule or backend, of which this is the path.
pub(super) fn judge(holder: &Fields, path: &str, findings: &mut Findings) {
    let filters = match field::list(holder, "filters") {
        Ok(filters) => filters,
        Err(error) => {
            findings.refuse(reason::INVALID_SPEC, error.below(path));
            return;
        }
    };
    for (index, value) in filters.iter().enumerate() {
        let path = format!("{path}.filters[{index}]");
        let fields = match field::as_object(value) {
            Ok(fields) => fields,
            Err(error) => {
                findings.refuse(reason::INVALID_SPEC, error.below(path));
                continue;
            }
        };
        let kind = fields.get("type").unwrap_or(&Value::Null);
        let say = |what: &str| {
            FieldError::new(format!("is a {} filter, {what}", bare(kind))).below(&path)
        };
        match effect(kind, fields) {
            Effect::None => {}
            Effect::Handling(what) => findings.ignore(say(what)),
            Effect::Destination(what) => {
                let error = say(what);
                let message = format!("{}; remove it", error.message);
                findings.refuse(reason::UNSUPPORTED_FIELD, FieldError { message, ..error });
            }
            Effect::Unknown => {
                let error = FieldError::new(format!(
                    "has the type {}, which splitter does not know, so it may decide where a \
                     request goes; remove it",
                    shown(kind)
                ));
                findings.refuse(reason::UNSUPPORTED_FIELD, error.below("type").below(&path));
            }
        }
    }
}

fn effect(kind: &Value, fields: &Fields) -> Effect {
    match kind.as_str().unwrap_or_default() {
        "RequestHeaderModifier" if is_nothing(fields.get("requestHeaderModifier")) => Effect::None,
        "ResponseHeaderModifier" if is_nothing(fields.get("responseHeaderModifier")) => {
            Effect::None
        }
        "RequestHeaderModifier" | "ResponseHeaderModifier" => {
            Effect::Handling("and splitter sees no headers, only connections")
        }
        "RequestMirror" if mirrors_nothing(fields.get("requestMirror")) => Effect::None,
        "RequestMirror" => {
            Effect::Handling("and splitter sees no requests that it could send twice")
        }
        "CORS" => Effect::Handling("and splitter sees no requests that it could answer"),
        "RequestRedirect" => {
            Effect::Destination("and only who reads a request can answer it with a redirect")
        }
        "URLRewrite" => {
            Effect::Destination("and only who reads a request can change its path or host")
        }
        "ExternalAuth" => {
            Effect::Destination("and only who reads a request can ask whether it is allowed")
        }
        "ExtensionRef" => {
            Effect::Destination("and splitter has no extensions that it could refer to")
        }
        _ => Effect::Unknown,
    }
}

/// Whether a modification of headers changes none.
fn is_nothing(modifier: Option<&Value>) -> bool {
    match modifier {
        None => true,
        Some(Value::Object(fields)) => fields.values().all(is_empty),
        Some(other) => other.is_null(),
    }
}

/// Whether a mirror gets no requests.
fn mirrors_nothing(mirror: Option<&Value>) -> bool {
    let zero = |value: Option<&Value>| value.and_then(field::whole) == Some(0);
    mirror.is_some_and(|mirror| {
        zero(mirror.get("percent")) || zero(mirror.pointer("/fraction/numerator"))
    })
}

/// A type for people, without quotes where it is a word.
fn bare(kind: &Value) -> String {
    kind.as_str().map_or_else(|| shown(kind), str::to_owned)
}
