//! Standings for unit tests.

use std::collections::BTreeSet;

use crate::compile::{Diagnostic, Severity};
use crate::objects::{Kind, ObjectName, ObjectReference};
use crate::report::ObjectDiagnostics;

/// How an object stands of which these things are said.
pub(super) fn state(
    name: &str,
    generation: i64,
    reasons: &[&'static str],
) -> (ObjectReference, ObjectDiagnostics) {
    let object = ObjectReference::new(Kind::TRAFFIC_SPLIT, ObjectName::new("shop", name));
    let diagnostics: BTreeSet<Diagnostic> = reasons
        .iter()
        .map(|reason| Diagnostic {
            object: object.clone(),
            severity: match *reason {
                "Accepted" => Severity::Accepted,
                "RootMissing" => Severity::Inactive,
                "LeafNotReady" => Severity::Warning,
                _ => Severity::Refused,
            },
            reason,
            field: String::new(),
            message: format!("because of {reason}"),
        })
        .collect();
    let state = ObjectDiagnostics {
        uid: format!("uid-{name}"),
        api_version: "split.smi-spec.io/v1alpha4".to_owned(),
        generation,
        weights: "v1:90,v2:10".into(),
        diagnostics: diagnostics.into_iter().collect(),
    };
    (object, state)
}
