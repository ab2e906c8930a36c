//! Which requests a rule is for. Of a connection nothing is known that a request carries, so only a
//! rule for all of them can be honoured.

use serde_json::Value;

use super::rules::{Findings, RouteKind, unknown};
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::unknown::is_empty;
use crate::reason;

/// Refuses every match of a rule, of which this is the path, that leaves a request out.
pub(super) fn judge(rule: &Fields, path: &str, kind: RouteKind, findings: &mut Findings) {
    let judge_match = match kind {
        RouteKind::Http => of_http,
        RouteKind::Grpc => of_grpc,
        RouteKind::Tls | RouteKind::Tcp | RouteKind::Udp => return,
    };
    let matches = match field::list(rule, "matches") {
        Ok(matches) => matches,
        Err(error) => {
            findings.refuse(reason::INVALID_SPEC, error.below(path));
            return;
        }
    };
    for (index, value) in matches.iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        match field::as_object(value) {
            Ok(fields) => judge_match(fields, &path, findings),
            Err(error) => findings.refuse(reason::INVALID_SPEC, error.below(path)),
        }
    }
}

fn of_http(fields: &Fields, path: &str, findings: &mut Findings) {
    if let Some(value) = field::present(fields, "path")
        && !is_any_path(value)
    {
        refuse(value, "path", "path", path, findings);
    }
    for (name, what) in [
        ("headers", "header"),
        ("queryParams", "query"),
        ("method", "method"),
    ] {
        if let Some(value) = fields.get(name).filter(|value| !is_empty(value)) {
            refuse(value, name, what, path, findings);
        }
    }
    refuse_unknown(
        fields,
        &["path", "headers", "queryParams", "method"],
        path,
        findings,
    );
}

fn of_grpc(fields: &Fields, path: &str, findings: &mut Findings) {
    if let Some(value) = field::present(fields, "method")
        && !is_any_method(value)
    {
        refuse(value, "method", "method", path, findings);
    }
    if let Some(value) = fields.get("headers").filter(|value| !is_empty(value)) {
        refuse(value, "headers", "header", path, findings);
    }
    refuse_unknown(fields, &["method", "headers"], path, findings);
}

/// Whether it is the prefix of every path, which is also the default.
fn is_any_path(value: &Value) -> bool {
    let Some(fields) = value.as_object() else {
        return false;
    };
    let is = |name: &str, default: &str| {
        field::present(fields, name).is_none_or(|value| value == default)
    };
    is("type", "PathPrefix") && is("value", "/") && unknown(fields, &["type", "value"]).is_empty()
}

/// Whether it names neither a service nor a method.
fn is_any_method(value: &Value) -> bool {
    let Some(fields) = value.as_object() else {
        return false;
    };
    let is_absent = |name: &str| fields.get(name).is_none_or(is_empty);
    is_absent("service")
        && is_absent("method")
        && unknown(fields, &["type", "service", "method"]).is_empty()
}

fn refuse(value: &Value, name: &str, what: &str, path: &str, findings: &mut Findings) {
    let error = FieldError::new(format!(
        "is {}, which chooses by the {what} of a request, and splitter splits connections; remove \
         it to split all of them",
        shown(value)
    ));
    findings.refuse(reason::MATCHES_UNSUPPORTED, error.below(name).below(path));
}

fn refuse_unknown(fields: &Fields, known: &[&str], path: &str, findings: &mut Findings) {
    for error in unknown(fields, known) {
        findings.refuse(reason::UNKNOWN_RESTRICTION, error.below(path));
    }
}
