//! The conditions of an object that asks for splits, in the words of the Gateway API
//! (`gateway.networking.k8s.io`, `RouteConditionType`).

use crate::compile::{Diagnostic, Severity};
use crate::reason;

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Its `type`.
    pub(super) name: &'static str,
    pub(super) status: Truth,
    /// One CamelCase word, for machines.
    pub(super) reason: &'static str,
    /// Everything that is wrong, for people.
    pub(super) message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    /// As `status` of a condition has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The conditions that follow from the diagnostics of an object:
///
/// - `Accepted`: it asks for something that can be done.
/// - `ResolvedRefs`: the Services that it names exist, fit and have endpoints; unknown while they
///   cannot be followed.
/// - `Programmed`: its split is in the maps.
/// - `PartiallyInvalid`, only while it is true: part of it has no effect.
pub(super) fn of(diagnostics: &[Diagnostic]) -> Vec<Condition> {
    let is_refused = |it: &&Diagnostic| it.severity == Severity::Refused;
    let is_faulty = |it: &&Diagnostic| it.severity > Severity::Note;
    let unresolved = |it: &&Diagnostic| is_faulty(it) && reason::is_about_references(it.reason);
    let conditions = [
        holds_without(
            "Accepted",
            reason::ACCEPTED,
            diagnostics
                .iter()
                .filter(is_refused)
                .filter(|it| it.reason != reason::NOT_PUBLISHED),
        ),
        holds_without(
            "ResolvedRefs",
            "ResolvedRefs",
            diagnostics.iter().filter(unresolved),
        ),
        holds_without(
            "Programmed",
            "Programmed",
            diagnostics
                .iter()
                .filter(|it| matches!(it.severity, Severity::Refused | Severity::Inactive)),
        ),
    ];
    let partial = diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Warning && !unresolved(it));
    let partial = holds_without("PartiallyInvalid", "", partial);
    let partial = (partial.status == Truth::False).then_some(Condition {
        status: Truth::True,
        ..partial
    });
    conditions.into_iter().chain(partial).collect()
}

/// A condition that is true if there are none of these faults.
fn holds_without<'a>(
    name: &'static str,
    good: &'static str,
    faults: impl Iterator<Item = &'a Diagnostic>,
) -> Condition {
    let faults: Vec<&Diagnostic> = faults.collect();
    let Some(worst) = faults.iter().max_by_key(|fault| fault.severity) else {
        return Condition {
            name,
            status: Truth::True,
            reason: good,
            message: String::new(),
        };
    };
    let is_unknown = faults
        .iter()
        .all(|fault| fault.reason == reason::NOT_KNOWN_YET);
    Condition {
        name,
        status: if is_unknown {
            Truth::Unknown
        } else {
            Truth::False
        },
        reason: worst.reason,
        message: text(&faults),
    }
}

/// What is said, for people, in one text.
pub(super) fn text(said: &[&Diagnostic]) -> String {
    let messages = said
        .iter()
        .map(|Diagnostic { field, message, .. }| match field.as_str() {
            "" => message.clone(),
            field => format!("{field}: {message}"),
        });
    messages.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Kind, ObjectName, ObjectReference};

    fn summary(found: &[(Severity, &'static str)]) -> Vec<String> {
        let object = ObjectReference::new(Kind::TRAFFIC_SPLIT, ObjectName::new("shop", "web"));
        let diagnostics: Vec<Diagnostic> = found
            .iter()
            .map(|(severity, reason)| Diagnostic {
                object: object.clone(),
                severity: *severity,
                reason,
                field: "spec".to_owned(),
                message: "is wrong".to_owned(),
            })
            .collect();
        let conditions = of(&diagnostics).into_iter();
        conditions
            .map(|it| format!("{}={} {}", it.name, it.status.name(), it.reason))
            .collect()
    }

    #[test]
    fn an_accepted_object_has_three_true_conditions() {
        let expected = [
            "Accepted=True Accepted",
            "ResolvedRefs=True ResolvedRefs",
            "Programmed=True Programmed",
        ];
        assert_eq!(summary(&[(Severity::Accepted, "Accepted")]), expected);
        assert_eq!(
            summary(&[(Severity::Note, reason::ROOT_WITHOUT_ENDPOINTS)]),
            expected
        );
    }

    #[test]
    fn each_fault_shows_in_the_condition_that_it_is_about() {
        assert_eq!(
            summary(&[(Severity::Inactive, reason::ROOT_MISSING)]),
            [
                "Accepted=True Accepted",
                "ResolvedRefs=False RootMissing",
                "Programmed=False RootMissing",
            ]
        );
        assert_eq!(
            summary(&[(Severity::Warning, reason::LEAF_SERVICE_MISSING)])[1..],
            [
                "ResolvedRefs=False LeafServiceMissing",
                "Programmed=True Programmed"
            ]
        );
        assert_eq!(
            summary(&[(Severity::Warning, reason::UNKNOWN_FIELD)])[1..],
            [
                "ResolvedRefs=True ResolvedRefs",
                "Programmed=True Programmed",
                "PartiallyInvalid=True UnknownField",
            ]
        );
        assert_eq!(
            summary(&[(Severity::Refused, reason::INVALID_WEIGHT)]),
            [
                "Accepted=False InvalidWeight",
                "ResolvedRefs=True ResolvedRefs",
                "Programmed=False InvalidWeight",
            ]
        );
        assert_eq!(
            summary(&[(Severity::Refused, reason::NOT_PUBLISHED)]),
            [
                "Accepted=True Accepted",
                "ResolvedRefs=True ResolvedRefs",
                "Programmed=False NotPublished",
            ]
        );
    }

    #[test]
    fn what_cannot_be_followed_is_unknown_not_false() {
        let unknown = summary(&[(Severity::Inactive, reason::NOT_KNOWN_YET)]);
        assert_eq!(unknown[1], "ResolvedRefs=Unknown NotKnownYet");
    }
}
