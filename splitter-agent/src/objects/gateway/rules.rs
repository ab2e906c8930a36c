//! The rules of a route: which one decides, and what of it a connection cannot have.

use serde_json::Value;

use super::backend::{self, RouteBackend};
use super::{filter, matching};
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::traffic_split::Refusal;
use crate::objects::unknown;
use crate::reason;

/// What a route asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The field that lists the backends, for example `spec.rules[0].backendRefs`.
    pub backends_field: String,
    /// The backends of the rule that decides.
    pub backends: Vec<RouteBackend>,
    /// Rules that no connection comes to, since one before them takes all.
    pub unreachable: Vec<usize>,
    /// Why it cannot be done, whatever its author says.
    pub refusals: Vec<Refusal>,
    /// What it asks for beside, which does not change where a connection goes, and which a
    /// connection cannot have.
    pub unsupported: Vec<Unsupported>,
}

/// Something that a connection cannot have, and that does not change where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The field.
    pub field: String,
    /// What it asks for, and why that cannot be done, for example `is "10s", and a timeout is for a
    /// request, which a connection has many of`.
    pub why: String,
}

/// The kinds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    Http,
    Grpc,
    Tls,
    Tcp,
    Udp,
}

impl RouteKind {
    /// Whether its rules and backends have filters.
    pub(super) const fn has_filters(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }

    /// Whether it has one rule, always.
    const fn has_one_rule(self) -> bool {
        matches!(self, Self::Tls | Self::Tcp | Self::Udp)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "an HTTPRoute",
            Self::Grpc => "a GRPCRoute",
            Self::Tls => "a TLSRoute",
            Self::Tcp => "a TCPRoute",
            Self::Udp => "a UDPRoute",
        }
    }

    const fn spec_fields(self) -> &'static [&'static str] {
        match self {
            Self::Tcp | Self::Udp => &["parentRefs", "rules", "useDefaultGateways"],
            _ => &["parentRefs", "rules", "useDefaultGateways", "hostnames"],
        }
    }

    const fn rule_fields(self) -> &'static [&'static str] {
        match self {
            Self::Http => &[
                "name",
                "matches",
                "filters",
                "backendRefs",
                "timeouts",
                "retry",
                "sessionPersistence",
            ],
            Self::Grpc => &[
                "name",
                "matches",
                "filters",
                "backendRefs",
                "sessionPersistence",
            ],
            Self::Tls | Self::Tcp | Self::Udp => &["name", "backendRefs"],
        }
    }
}

/// So many things that are wrong are kept of each sort; there may be thousands.
const MOST: usize = 64;

/// What is wrong, while it is gathered.
#[derive(Debug, Default)]
pub(super) struct Findings {
    refusals: Vec<Refusal>,
    unsupported: Vec<Unsupported>,
}

impl Findings {
    /// It cannot be done, whatever its author says.
    pub(super) fn refuse(&mut self, reason: &'static str, error: FieldError) {
        if self.refusals.len() < MOST {
            self.refusals.push(Refusal::new(reason, error));
        }
    }

    /// It cannot be done, and does not change where a connection goes.
    pub(super) fn ignore(&mut self, error: FieldError) {
        let FieldError { field, message } = error;
        if self.unsupported.len() < MOST {
            self.unsupported.push(Unsupported {
                field,
                why: message,
            });
        }
    }
}

impl Rules {
    pub(super) fn read(spec: &Fields, kind: RouteKind) -> Self {
        let mut findings = Findings::default();
        for error in unknown(spec, kind.spec_fields()) {
            findings.refuse(reason::UNKNOWN_RESTRICTION, error.below("spec"));
        }
        let mut rules = Self {
            backends_field: "spec.rules".to_owned(),
            ..Self::default()
        };
        match field::list(spec, "rules") {
            Err(error) => findings.refuse(reason::INVALID_SPEC, error.below("spec")),
            Ok([]) if kind.has_one_rule() => {
                let error = FieldError::new(format!("is empty; {} has one rule", kind.name()));
                findings.refuse(reason::INVALID_SPEC, error.below("rules").below("spec"));
            }
            Ok([_, _, ..]) if kind.has_one_rule() => {
                let error = FieldError::new(format!(
                    "has more than one rule, and {} has one; remove the others",
                    kind.name()
                ));
                findings.refuse(reason::INVALID_SPEC, error.below("rules").below("spec"));
            }
            Ok(values) => rules.read_all(values, kind, &mut findings),
        }
        Self {
            refusals: findings.refusals,
            unsupported: findings.unsupported,
            ..rules
        }
    }

    /// The rules, of which the first that takes every connection decides. One that takes only some
    /// comes before it wherever it stands (`HTTPRouteRule.matches`: the most specific match wins).
    fn read_all(&mut self, values: &[Value], kind: RouteKind, findings: &mut Findings) {
        let mut decides = None;
        for (index, value) in values.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            let rule = match field::as_object(value) {
                Ok(rule) => rule,
                Err(error) => {
                    findings.refuse(reason::INVALID_SPEC, error.below(path));
                    continue;
                }
            };
            // What a field that is not known is for is not known either: it may well make this
            // rule the first for some connections.
            let unknown = unknown(rule, kind.rule_fields());
            let is_known = unknown.is_empty();
            for error in unknown {
                findings.refuse(reason::UNKNOWN_RESTRICTION, error.below(&path));
            }
            matching::judge(rule, &path, kind, findings);
            if decides.is_none() {
                decides = Some(index);
                self.read_rule(rule, &path, kind, findings);
            } else if is_known {
                self.unreachable.push(index);
            }
        }
    }

    fn read_rule(&mut self, rule: &Fields, path: &str, kind: RouteKind, findings: &mut Findings) {
        if kind.has_filters() {
            filter::judge(rule, path, findings);
            judge_persistence(rule, path, findings);
        }
        if kind == RouteKind::Http {
            judge_timeouts(rule, path, findings);
            judge_retry(rule, path, findings);
        }
        self.backends_field = format!("{path}.backendRefs");
        self.backends = backend::read_all(rule, path, kind, findings);
    }
}

/// Fields with a value that are not among those that are known. Of what they are for nothing is
/// known, so the route may mean another split than what is left without them.
pub(super) fn unknown(fields: &Fields, known: &[&str]) -> Vec<FieldError> {
    let unknown = fields
        .iter()
        .filter(|(name, value)| !known.contains(&name.as_str()) && !unknown::is_empty(value));
    unknown
        .take(MOST)
        .map(|(name, value)| {
            FieldError::new(format!(
                "is {}, and splitter does not know the field, which may say for whom or for what \
                 the route is; remove it",
                shown(value)
            ))
            .below(unknown::below("", name))
        })
        .collect()
}

/// Sessions would choose the backend by what a request carries.
fn judge_persistence(rule: &Fields, path: &str, findings: &mut Findings) {
    let value = field::present(rule, "sessionPersistence");
    if let Some(value) = value.filter(|value| !unknown::is_empty(value)) {
        let error = FieldError::new(format!(
            "is {}, and a session is kept by a cookie or header, which only a request has; remove it",
            shown(value)
        ));
        findings.refuse(
            reason::UNSUPPORTED_FIELD,
            error.below("sessionPersistence").below(path),
        );
    }
}

fn judge_timeouts(rule: &Fields, path: &str, findings: &mut Findings) {
    let timeouts = match field::object(rule, "timeouts") {
        Ok(timeouts) => timeouts,
        Err(error) => {
            findings.refuse(reason::INVALID_SPEC, error.below(path));
            return;
        }
    };
    for (name, value) in timeouts.into_iter().flatten() {
        // 0 is no timeout.
        let is_off = value.is_null() || value.as_str().is_some_and(is_zero_duration);
        if !is_off {
            let error = FieldError::new(format!(
                "is {}, and a timeout is for a request, of which a connection carries many",
                shown(value)
            ));
            let name = unknown::below("", name);
            findings.ignore(error.below(name).below("timeouts").below(path));
        }
    }
}

fn judge_retry(rule: &Fields, path: &str, findings: &mut Findings) {
    let Some(value) = field::present(rule, "retry").filter(|value| !unknown::is_empty(value))
    else {
        return;
    };
    let attempts = value.get("attempts").and_then(field::whole);
    if attempts == Some(0) {
        return;
    }
    let error = FieldError::new(format!(
        "is {}, and only a request can be tried again, not a connection",
        shown(value)
    ));
    findings.ignore(error.below("retry").below(path));
}

/// Whether a duration (GEP-2257), such as `1h30m`, is none.
fn is_zero_duration(text: &str) -> bool {
    let is_of_duration = |byte: u8| byte == b'0' || matches!(byte, b'h' | b'm' | b's');
    text.starts_with('0') && text.bytes().all(is_of_duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_told_from_other_durations() {
        for zero in ["0s", "0h", "0ms", "0h0m0s", "00s"] {
            assert!(is_zero_duration(zero), "{zero}");
        }
        for other in ["1s", "0s1ms", "10s", "", "s", "0.0s", "zero"] {
            assert!(!is_zero_duration(other), "{other}");
        }
    }
}
