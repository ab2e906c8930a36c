//! What rules ask for that a connection cannot honour.

use serde_json::Value;

use super::{Changes, Demand, List};
use crate::objects::field::{self, Fields, shown};

/// What a field of a condition asks for that a connection does not show; `None` if it asks for
/// nothing of the sort.
pub(super) fn restriction(list: List, name: &str, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let of_request = |what: &str| Some(format!("chooses by {what} of a request"));
    let is_filled = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    match (list, name) {
        (_, "port" | "sourceLabels" | "sourceNamespace" | "gateways")
        | (List::Http, "name" | "statPrefix" | "ignoreUriCase")
        | (List::Tls, "sniHosts") => None,
        (List::Http, "uri") if is_any_path(value) => None,
        (List::Http, _) if !is_filled => None,
        (List::Http, "uri") => of_request("the path"),
        (List::Http, "scheme") => of_request("the scheme"),
        (List::Http, "method") => of_request("the method"),
        (List::Http, "authority") => of_request("the Host header"),
        (List::Http, "headers" | "withoutHeaders") => {
            let mut names = value.as_object().into_iter().flat_map(Fields::keys);
            let first = names.next().map(|name| field::inert(name));
            let named = first.map_or_else(String::new, |name| format!(" ({name})"));
            Some(format!("chooses by the headers of a request{named}"))
        }
        (List::Http, "queryParams") => of_request("the query"),
        (List::Tls | List::Tcp, "destinationSubnets" | "sourceSubnet") if !is_filled => None,
        (List::Tls | List::Tcp, "destinationSubnets") => {
            Some("chooses by the address that was dialled, which is always that of the host".into())
        }
        (List::Tls | List::Tcp, "sourceSubnet") => {
            Some("chooses by the client's address, which Istio ignores".into())
        }
        _ => Some("is not a field of a match, and may restrict it".to_owned()),
    }
}

/// Whether a match on the path is met by every path.
fn is_any_path(uri: &Value) -> bool {
    let Some(uri) = uri.as_object() else {
        return false;
    };
    let mut given = uri.iter().filter(|(_, value)| !value.is_null());
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some((how, value)), None) => {
            how == "prefix" && value == "/" || how == "regex" && value == ".*"
        }
        _ => false,
    }
}

/// What an HTTP rule asks for beside its destinations. What asks for nothing is left out.
pub(super) fn demands(rule: &Fields, field: &str) -> Vec<Demand> {
    let mut demands = Vec::new();
    let mut demand = |name: &str, changes, what: String| {
        demands.push(Demand {
            field: format!("{field}.{name}"),
            changes,
            what,
        });
    };
    for (name, what) in [
        ("redirect", "answers requests with a redirect"),
        ("directResponse", "answers requests itself"),
        ("rewrite", "rewrites requests"),
    ] {
        if field::present(rule, name).is_some() {
            demand(name, Changes::Where, what.to_owned());
        }
    }
    if let Some(fault) = field::present(rule, "fault") {
        for name in ["delay", "abort"] {
            if let Some(of_kind) = fault.get(name).filter(|it| !it.is_null())
                && is_fault(of_kind)
            {
                let name = format!("fault.{name}");
                demand(&name, Changes::Where, "injects faults into requests".into());
            }
        }
        if !fault.is_object() {
            demand(
                "fault",
                Changes::Where,
                "injects faults into requests".into(),
            );
        }
    }
    if let Some(timeout) = field::present(rule, "timeout")
        && !is_no_time(timeout)
    {
        let what = format!("is {}, and limits the time of a request", shown(timeout));
        demand("timeout", Changes::How, what);
    }
    if let Some(retries) = field::present(rule, "retries") {
        // Absent is 0, as in every message of this API.
        let attempts = retries.get("attempts").filter(|it| !it.is_null());
        let is_off = retries.is_object() && attempts.is_none_or(|it| field::whole(it) == Some(0));
        if !is_off {
            demand("retries", Changes::How, "sends requests again".into());
        }
    }
    for (name, what) in mirrors(rule) {
        demand(&name, Changes::How, what);
    }
    if field::present(rule, "corsPolicy").is_some_and(says_something) {
        let what = "answers requests of other origins";
        demand("corsPolicy", Changes::How, what.into());
    }
    const EDITS: &str = "changes headers of requests or answers";
    if field::present(rule, "headers").is_some_and(says_something) {
        demand("headers", Changes::How, EDITS.into());
    }
    let route = rule.get("route").and_then(Value::as_array);
    for (index, destination) in route.into_iter().flatten().enumerate() {
        if destination.get("headers").is_some_and(says_something) {
            let name = format!("route[{index}].headers");
            demand(&name, Changes::How, EDITS.into());
        }
    }
    demands
}

/// Whether there is anything in it but empty objects and lists.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(fields) => fields.values().any(says_something),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// A fault without a percentage is none (`HTTPFaultInjection` in Istio's API).
fn is_fault(fault: &Value) -> bool {
    let percentage = fault.get("percentage").filter(|it| !it.is_null());
    let percent = fault.get("percent").filter(|it| !it.is_null());
    !fault.is_object() || percentage.is_some_and(is_some_percentage) || percent.is_some_and(is_some)
}

/// Whether `{value: 10}` is above 0; what cannot be read counts as such.
fn is_some_percentage(percentage: &Value) -> bool {
    match percentage.get("value") {
        None | Some(Value::Null) => !percentage.is_object(),
        Some(value) => is_some(value),
    }
}

fn is_some(value: &Value) -> bool {
    value.as_f64() != Some(0.0)
}

/// Requests that are sent to somebody else as well.
fn mirrors(rule: &Fields) -> Vec<(String, String)> {
    const WHAT: &str = "sends copies of requests to another host";
    let mut found = Vec::new();
    if field::present(rule, "mirror").is_some() {
        let percentage = field::present(rule, "mirrorPercentage");
        let percent = ["mirrorPercent", "mirror_percent"];
        let percent = percent.iter().find_map(|name| field::present(rule, name));
        let is_on = match (percentage, percent) {
            (Some(percentage), _) => is_some_percentage(percentage),
            (None, Some(percent)) => is_some(percent),
            (None, None) => true,
        };
        if is_on {
            found.push(("mirror".to_owned(), WHAT.to_owned()));
        }
    }
    match field::present(rule, "mirrors") {
        None => {}
        Some(Value::Array(mirrors)) => {
            for (index, mirror) in mirrors.iter().enumerate() {
                let percentage = mirror.get("percentage").filter(|it| !it.is_null());
                if percentage.is_none_or(is_some_percentage) {
                    found.push((format!("mirrors[{index}]"), WHAT.to_owned()));
                }
            }
        }
        Some(_) => found.push(("mirrors".to_owned(), WHAT.to_owned())),
    }
    found
}

/// Whether a duration is 0, in whatever unit.
fn is_no_time(duration: &Value) -> bool {
    duration.as_str().is_some_and(|text| {
        text.contains('0')
            && !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    })
}
