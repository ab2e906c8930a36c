//! The conditions of a route for one of its parents (Gateway API, `RouteParentStatus`), with the
//! reasons that the API has for them.

use super::conditions::{Condition, Truth, text};
use crate::compile::{Diagnostic, Severity};
use crate::reason;

/// Nothing is wrong; it just is not so far.
const PENDING: &str = "Pending";

/// The conditions for the parent of this place in the list, given what is said of the route:
///
/// - `Accepted`: it asks for something that can be done, of a Service that is there; and unless it
///   has lost it to an older route, that is done.
/// - `ResolvedRefs`: its backends are Services that exist, and have the ports that it names.
/// - `splitter.dev/Programmed`: it is in the maps.
/// - `splitter.dev/ConnectionGranularity`, of kinds that are about requests, once it is in the maps.
/// - `splitter.dev/Ignored`: something that it says has no effect, as it allows or the API has it.
/// - `splitter.dev/Degraded`: anything else is not as its author may expect.
pub(super) fn conditions(
    parent: usize,
    is_by_request: bool,
    diagnostics: &[Diagnostic],
) -> Vec<Condition> {
    let own = format!("spec.parentRefs[{parent}]");
    let is_of_parent = |it: &&Diagnostic| {
        let rest = it.field.strip_prefix(&own);
        !it.field.starts_with("spec.parentRefs[")
            || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let said = Said(diagnostics.iter().filter(is_of_parent).collect());
    let programmed = said.programmed();
    let is_programmed = programmed.status == Truth::True;
    let accepted = said.accepted();
    let mut conditions = vec![said.resolved_refs(is_programmed), programmed];
    conditions.insert(0, accepted);
    if is_by_request && is_programmed {
        conditions.push(Condition {
            name: "splitter.dev/ConnectionGranularity",
            status: Truth::True,
            reason: "PerConnection",
            message: "weights apply to connections, not to requests: a client that sends many \
                      requests on one connection sends all of them to one backend"
                .to_owned(),
        });
    }
    conditions.extend(said.ignored());
    conditions.extend(said.degraded());
    conditions
}

/// What is said of a route and one of its parents.
struct Said<'a>(Vec<&'a Diagnostic>);

impl Said<'_> {
    fn of(&self, is_wanted: impl Fn(&Diagnostic) -> bool) -> Vec<&Diagnostic> {
        self.0.iter().copied().filter(|it| is_wanted(it)).collect()
    }

    fn accepted(&self) -> Condition {
        let name = "Accepted";
        let mut faults = self.of(|it| {
            matches!(it.severity, Severity::Refused | Severity::Inactive)
                && !is_pending(it.reason)
                && it.reason != reason::SUPERSEDED
        });
        faults.sort_by_key(|it| std::cmp::Reverse(it.severity));
        if let Some(worst) = faults.first() {
            return Condition {
                name,
                status: Truth::False,
                reason: reason_of_refusal(worst.reason),
                message: text(&faults),
            };
        }
        let pending = self.of(|it| is_pending(it.reason));
        if !pending.is_empty() {
            return Condition {
                name,
                status: Truth::Unknown,
                reason: PENDING,
                message: text(&pending),
            };
        }
        holds(name, reason::ACCEPTED, String::new())
    }

    fn resolved_refs(&self, is_programmed: bool) -> Condition {
        let name = "ResolvedRefs";
        let faults = self.of(|it| reason_of_reference(it.reason).is_some());
        if let Some(reason) = faults.first().and_then(|it| reason_of_reference(it.reason)) {
            return Condition {
                name,
                status: Truth::False,
                reason,
                message: text(&faults),
            };
        }
        if !is_programmed || !self.of(|it| it.reason == reason::NOT_KNOWN_YET).is_empty() {
            return Condition {
                name,
                status: Truth::Unknown,
                reason: PENDING,
                message: "backends are looked up once the route is in force".to_owned(),
            };
        }
        holds(name, "ResolvedRefs", String::new())
    }

    fn programmed(&self) -> Condition {
        let name = "splitter.dev/Programmed";
        let mut faults =
            self.of(|it| matches!(it.severity, Severity::Refused | Severity::Inactive));
        faults.sort_by_key(|it| std::cmp::Reverse(it.severity));
        match faults.first() {
            Some(worst) => Condition {
                name,
                status: Truth::False,
                reason: worst.reason,
                message: text(&faults),
            },
            None => holds(name, "Programmed", String::new()),
        }
    }

    fn ignored(&self) -> Option<Condition> {
        let ignored = self.of(|it| is_ignored(it.reason));
        let worst = ignored.iter().max_by_key(|it| it.severity)?;
        Some(holds("splitter.dev/Ignored", worst.reason, text(&ignored)))
    }

    fn degraded(&self) -> Option<Condition> {
        let warnings = self.of(|it| {
            it.severity == Severity::Warning
                && !is_ignored(it.reason)
                && !is_pending(it.reason)
                && reason_of_reference(it.reason).is_none()
        });
        let first = warnings.first()?;
        Some(holds(
            "splitter.dev/Degraded",
            first.reason,
            text(&warnings),
        ))
    }
}

fn holds(name: &'static str, reason: &'static str, message: String) -> Condition {
    Condition {
        name,
        status: Truth::True,
        reason,
        message,
    }
}

/// Whether it is only a matter of time.
fn is_pending(reason: &str) -> bool {
    matches!(
        reason,
        reason::NOT_KNOWN_YET | reason::NOT_PUBLISHED | reason::ROOT_WITHOUT_CLUSTER_IP
    )
}

/// Whether something that stands in the object has no effect.
fn is_ignored(reason: &str) -> bool {
    matches!(
        reason,
        reason::UNSUPPORTED_IGNORED
            | reason::HOSTNAMES_IGNORED
            | reason::UNKNOWN_ANNOTATION
            | reason::INVALID_ANNOTATION
    )
}

/// The reason of `Accepted` for one of ours (`RouteConditionReason`; `Conflicted` is GEP-1294's).
fn reason_of_refusal(reason: &str) -> &'static str {
    match reason {
        reason::CONFLICTED | reason::ROOT_TAKEN => "Conflicted",
        reason::ROOT_MISSING | reason::ROOT_PORT_MISSING | reason::INVALID_ROOT => {
            "NoMatchingParent"
        }
        _ => "UnsupportedValue",
    }
}

/// The reason of `ResolvedRefs` for one of ours; `None` for one that is about something else.
fn reason_of_reference(reason: &str) -> Option<&'static str> {
    Some(match reason {
        reason::INVALID_BACKEND_KIND => "InvalidKind",
        reason::REF_NOT_PERMITTED => "RefNotPermitted",
        reason::LEAF_SERVICE_MISSING
        | reason::LEAF_PORT_MISSING
        | reason::INVALID_BACKEND_NAME
        | reason::NO_LEAF_SERVICE
        | reason::NO_LEAF_PORT => "BackendNotFound",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Kind, ObjectName, ObjectReference};

    fn summary(said: &[(Severity, &'static str, &str)]) -> Vec<String> {
        let object = ObjectReference::new(Kind::TCP_ROUTE, ObjectName::new("shop", "web"));
        let diagnostics: Vec<Diagnostic> = said
            .iter()
            .map(|(severity, reason, field)| Diagnostic {
                object: object.clone(),
                severity: *severity,
                reason,
                field: (*field).to_owned(),
                message: format!("is {reason}"),
            })
            .collect();
        let conditions = conditions(1, false, &diagnostics).into_iter();
        conditions
            .map(|it| {
                let name = it.name.trim_start_matches("splitter.dev/");
                format!("{name}={} {}", it.status.name(), it.reason)
            })
            .collect()
    }

    const ALL_WELL: [&str; 3] = [
        "Accepted=True Accepted",
        "ResolvedRefs=True ResolvedRefs",
        "Programmed=True Programmed",
    ];

    #[test]
    fn reasons_are_those_of_the_api() {
        use Severity::{Accepted, Inactive, Note, Refused, Warning};
        let parent = "spec.parentRefs[1]";
        let backend = "spec.rules[0].backendRefs[0]";
        for (severity, reason, field, expected) in [
            (Accepted, "Accepted", "", ALL_WELL),
            (Note, reason::NODE_LOCAL, parent, ALL_WELL),
            (
                Inactive,
                reason::ROOT_MISSING,
                parent,
                [
                    "Accepted=False NoMatchingParent",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False RootMissing",
                ],
            ),
            (
                Inactive,
                reason::ROOT_PORT_MISSING,
                parent,
                [
                    "Accepted=False NoMatchingParent",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False RootPortMissing",
                ],
            ),
            (
                Inactive,
                reason::ROOT_HEADLESS,
                parent,
                [
                    "Accepted=False UnsupportedValue",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False RootHeadless",
                ],
            ),
            (
                Inactive,
                reason::ROOT_WITHOUT_CLUSTER_IP,
                parent,
                [
                    "Accepted=Unknown Pending",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False RootWithoutClusterIP",
                ],
            ),
            (
                Refused,
                reason::MATCHES_UNSUPPORTED,
                "spec.rules[0].matches[0].headers",
                [
                    "Accepted=False UnsupportedValue",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False MatchesUnsupported",
                ],
            ),
            (
                Refused,
                reason::CONFLICTED,
                parent,
                [
                    "Accepted=False Conflicted",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False Conflicted",
                ],
            ),
            (
                Inactive,
                reason::SUPERSEDED,
                parent,
                [
                    "Accepted=True Accepted",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False Superseded",
                ],
            ),
            (
                Refused,
                reason::NOT_PUBLISHED,
                "",
                [
                    "Accepted=Unknown Pending",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=False NotPublished",
                ],
            ),
            (
                Warning,
                reason::NOT_KNOWN_YET,
                backend,
                [
                    "Accepted=Unknown Pending",
                    "ResolvedRefs=Unknown Pending",
                    "Programmed=True Programmed",
                ],
            ),
            (
                Warning,
                reason::LEAF_SERVICE_MISSING,
                backend,
                [
                    "Accepted=True Accepted",
                    "ResolvedRefs=False BackendNotFound",
                    "Programmed=True Programmed",
                ],
            ),
            (
                Warning,
                reason::INVALID_BACKEND_KIND,
                backend,
                [
                    "Accepted=True Accepted",
                    "ResolvedRefs=False InvalidKind",
                    "Programmed=True Programmed",
                ],
            ),
        ] {
            assert_eq!(summary(&[(severity, reason, field)]), expected, "{reason}");
        }
    }

    #[test]
    fn what_has_no_effect_and_what_is_not_as_expected_are_told_apart() {
        let warning = |reason| (Severity::Warning, reason, "");
        let said = summary(&[
            warning(reason::UNSUPPORTED_IGNORED),
            warning(reason::NO_READY_ENDPOINTS),
            (Severity::Note, reason::HOSTNAMES_IGNORED, "spec.hostnames"),
        ]);
        assert_eq!(said[..3], ALL_WELL);
        assert_eq!(
            said[3..],
            [
                "Ignored=True UnsupportedIgnored",
                "Degraded=True NoReadyEndpoints"
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_another_parent_does_not_matter() {
        for field in [
            "spec.parentRefs[0]",
            "spec.parentRefs[11]",
            "spec.parentRefs[0].port",
        ] {
            let said = [(Severity::Inactive, reason::ROOT_MISSING, field)];
            assert_eq!(summary(&said), ALL_WELL, "{field}");
        }
        for field in [
            "spec.parentRefs[1]",
            "spec.parentRefs[1].port",
            "spec.rules",
        ] {
            let said = [(Severity::Refused, reason::INVALID_ROOT, field)];
            assert_ne!(summary(&said), ALL_WELL, "{field}");
        }
    }

    #[test]
    fn a_route_for_requests_says_that_weights_are_for_connections() {
        let count = |is_by_request| conditions(0, is_by_request, &[]).len();
        assert_eq!((count(false), count(true)), (3, 4));
    }
}
