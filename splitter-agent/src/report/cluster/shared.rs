//! A status that others write to as well: a list in it, of which some entries are splitter's.
//!
//! The API server knows such a list only as a whole. So it is read, changed, and written with the
//! version that was read, which fails if somebody else has written in between.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::event::cut;
use super::parents;
use crate::objects::{CONTROLLER, StatusForm, is_service_parent};
use crate::report::ObjectDiagnostics;

/// Most bytes of a message in a condition: the Gateway API allows eight times as many.
const MAX_MESSAGE: usize = 4096;

/// Most entries of `status.parents` (`RouteStatus.parents`).
const MAX_PARENTS: usize = 32;

/// What the types of splitter's conditions begin with where others have some, too.
pub(super) const PREFIX: &str = "splitter.dev/";

/// An object as it was read, as far as its status depends on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Document {
    pub(super) resource_version: String,
    pub(super) generation: i64,
    /// `spec.parentRefs`.
    parent_refs: Vec<Value>,
    /// The list in the status.
    entries: Vec<Value>,
}

/// The list that is to be in the place of another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replacement {
    /// Its field in the status.
    pub(super) field: &'static str,
    pub(super) entries: Vec<Value>,
    /// The version of the object that has the other one.
    pub(super) resource_version: String,
}

/// The field of the status that has the list; `None` for a status that is not shared.
const fn field(form: StatusForm) -> Option<&'static str> {
    match form {
        StatusForm::Parents { .. } => Some("parents"),
        StatusForm::SharedConditions => Some("conditions"),
        StatusForm::None | StatusForm::Own => None,
    }
}

/// Whether others write to a status of this form.
pub(super) const fn is_shared(form: StatusForm) -> bool {
    field(form).is_some()
}

impl Document {
    pub(super) fn read(object: &DynamicObject, form: StatusForm) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        Self {
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            parent_refs: list(&object.data["spec"]["parentRefs"]),
            entries: field(form).map_or_else(Vec::new, |field| list(&object.data["status"][field])),
        }
    }

    /// What is to be written, so that the status says how the object stands; `None` if it does.
    pub(super) fn replacement(
        &self,
        form: StatusForm,
        state: &ObjectDiagnostics,
        at: Timestamp,
    ) -> Option<Replacement> {
        let entries = match form {
            StatusForm::Parents { is_by_request } => self.parents(is_by_request, state, at),
            StatusForm::SharedConditions => self.conditions(state, at),
            StatusForm::None | StatusForm::Own => return None,
        };
        (entries != self.entries).then(|| Replacement {
            field: field(form).unwrap_or_default(),
            entries,
            resource_version: self.resource_version.clone(),
        })
    }

    /// The parents with ours brought up to date: the entries of others stay as and where they are.
    fn parents(&self, is_by_request: bool, state: &ObjectDiagnostics, at: Timestamp) -> Vec<Value> {
        let is_ours = |entry: &Value| entry["controllerName"] == CONTROLLER;
        let mut entries: Vec<Value> = Vec::with_capacity(self.entries.len());
        let mut is_written = vec![false; self.parent_refs.len()];
        let find = |parent_ref: &Value| {
            let mut parents = self.parent_refs.iter();
            parents.position(|it| is_service_parent(it) && it == parent_ref)
        };
        let entry = |index: usize, before: &Value| {
            let conditions = parents::conditions(index, is_by_request, &state.diagnostics);
            json!({
                "parentRef": self.parent_refs.get(index),
                "controllerName": CONTROLLER,
                "conditions": written(&conditions, "", &before["conditions"], state, at),
            })
        };
        for before in &self.entries {
            if !is_ours(before) {
                entries.push(before.clone());
                continue;
            }
            // Those of parents that the route no longer has are left out.
            let Some(index) = find(&before["parentRef"]) else {
                continue;
            };
            if let Some(is_written) = is_written.get_mut(index).filter(|it| !**it) {
                *is_written = true;
                entries.push(entry(index, before));
            }
        }
        for (index, parent_ref) in self.parent_refs.iter().enumerate() {
            let is_first = find(parent_ref) == Some(index);
            let is_missing = is_written.get(index) == Some(&false);
            if is_first && is_missing && entries.len() < MAX_PARENTS {
                entries.push(entry(index, &Value::Null));
            }
        }
        entries
    }

    /// The conditions with ours brought up to date.
    fn conditions(&self, state: &ObjectDiagnostics, at: Timestamp) -> Vec<Value> {
        let is_ours = |condition: &Value| {
            let name = condition["type"].as_str();
            name.is_some_and(|name| name.starts_with(PREFIX))
        };
        let ours = conditions::of(&state.diagnostics);
        let before = Value::Array(self.entries.clone());
        let mut ours = written(&ours, PREFIX, &before, state, at);
        let mut entries = Vec::with_capacity(self.entries.len() + ours.len());
        for condition in &self.entries {
            if !is_ours(condition) {
                entries.push(condition.clone());
            } else if let Some(index) = ours.iter().position(|it| it["type"] == condition["type"]) {
                entries.push(ours.remove(index));
            }
        }
        entries.append(&mut ours);
        entries
    }
}

/// Conditions as they are written, given those that there were.
fn written(
    conditions: &[Condition],
    prefix: &str,
    before: &Value,
    state: &ObjectDiagnostics,
    at: Timestamp,
) -> Vec<Value> {
    let before = before.as_array().map_or(&[][..], Vec::as_slice);
    let conditions = conditions.iter().map(|condition| {
        let name = format!("{prefix}{}", condition.name);
        let status = condition.status.name();
        let mut same = before
            .iter()
            .filter(|it| it["type"] == *name && it["status"] == status);
        let since = same
            .next()
            .map(|it| it["lastTransitionTime"].clone())
            .filter(Value::is_string)
            .unwrap_or_else(|| json!(Time(at)));
        json!({
            "type": name,
            "status": status,
            "reason": condition.reason,
            "message": cut(&condition.message, MAX_MESSAGE),
            "lastTransitionTime": since,
            "observedGeneration": state.generation,
        })
    });
    conditions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Diagnostic, Severity};
    use crate::objects::{Kind, ObjectName, ObjectReference};

    const ROUTE: StatusForm = StatusForm::Parents {
        is_by_request: true,
    };

    fn state(generation: i64, said: &[(Severity, &'static str, &str)]) -> ObjectDiagnostics {
        let object = ObjectReference::new(Kind::HTTP_ROUTE, ObjectName::new("shop", "web"));
        let diagnostics = said.iter().map(|(severity, reason, field)| Diagnostic {
            object: object.clone(),
            severity: *severity,
            reason,
            field: (*field).to_owned(),
            message: "is said".to_owned(),
        });
        ObjectDiagnostics {
            generation,
            diagnostics: diagnostics.collect(),
            ..ObjectDiagnostics::default()
        }
    }

    fn accepted(generation: i64) -> ObjectDiagnostics {
        state(generation, &[(Severity::Accepted, "Accepted", "")])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn service(name: &str) -> Value {
        json!({"group": "", "kind": "Service", "name": name})
    }

    fn document(parent_refs: &[Value], entries: &[Value]) -> Document {
        Document {
            resource_version: "7".to_owned(),
            generation: 1,
            parent_refs: parent_refs.to_vec(),
            entries: entries.to_vec(),
        }
    }

    fn others(name: &str) -> Value {
        json!({
            "parentRef": {"name": name}, "controllerName": "example.com/gateway",
            "conditions": [{"type": "Accepted", "status": "False", "x": 1}],
        })
    }

    fn list(document: &Document, state: &ObjectDiagnostics, second: i64) -> Vec<Value> {
        let replacement = document.replacement(ROUTE, state, at(second));
        let replacement = replacement.expect("something to write");
        assert_eq!(replacement.resource_version, "7");
        replacement.entries
    }

    #[test]
    fn parents_are_copied_as_they_are_and_those_of_others_left_where_they_are() {
        // What the API would put in, if it were asked to, is not.
        let bare = json!({"kind": "Service", "group": "core", "name": "web", "port": 80});
        let gateway = json!({"name": "gate"});
        let parent_refs = [gateway.clone(), bare.clone(), service("api")];
        let mut document = document(&parent_refs, &[others("gate"), others("web")]);
        let first = list(&document, &accepted(3), 10);
        assert_eq!(first[..2], [others("gate"), others("web")]);
        let ours: Vec<_> = first[2..].iter().map(|it| &it["parentRef"]).collect();
        assert_eq!(ours, [&bare, &service("api")]);
        for entry in &first[2..] {
            assert_eq!(entry["controllerName"], CONTROLLER);
            for condition in entry["conditions"].as_array().expect("conditions") {
                assert_eq!(condition["observedGeneration"], 3);
                assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:10Z");
            }
        }
        document.entries = first.clone();
        assert_eq!(document.replacement(ROUTE, &accepted(3), at(20)), None);

        // A parent goes, another one comes.
        document.parent_refs = vec![service("api"), service("new"), service("new")];
        let second = list(&document, &accepted(4), 20);
        let parents: Vec<_> = second.iter().map(|it| &it["parentRef"]).collect();
        assert_eq!(
            parents,
            [
                &gateway,
                &json!({"name": "web"}),
                &service("api"),
                &service("new")
            ]
        );
        let since = |entry: &Value| entry["conditions"][0]["lastTransitionTime"].clone();
        assert_eq!(since(&second[2]), "1970-01-01T00:00:10Z");
        assert_eq!(since(&second[3]), "1970-01-01T00:00:20Z");

        // It is for others now.
        document.entries = second;
        document.parent_refs = vec![gateway];
        let note = state(5, &[(Severity::Note, "StatusAbandoned", "status.parents")]);
        assert_eq!(list(&document, &note, 30), [others("gate"), others("web")]);
        let untouched = super::Document {
            entries: vec![others("gate")],
            ..document
        };
        assert_eq!(untouched.replacement(ROUTE, &note, at(30)), None);
    }

    #[test]
    fn there_are_never_more_parents_than_the_api_allows() {
        let many: Vec<Value> = (0..30)
            .map(|number| others(&format!("gate-{number}")))
            .collect();
        let services: Vec<Value> = (0..5)
            .map(|number| service(&format!("web-{number}")))
            .collect();
        let entries = list(&document(&services, &many), &accepted(1), 10);
        assert_eq!(entries.len(), MAX_PARENTS);
        assert_eq!(entries[..30], many);
    }

    #[test]
    fn of_shared_conditions_only_those_of_our_prefix_are_touched() {
        let theirs = json!({"type": "Reconciled", "status": "True", "observedGeneration": "9"});
        let old = json!({"type": "splitter.dev/Old", "status": "True"});
        let mut document = document(&[], &[old, theirs.clone()]);
        let form = StatusForm::SharedConditions;
        let replacement = document.replacement(form, &accepted(2), at(10));
        let entries = replacement.expect("something to write").entries;
        let types: Vec<_> = entries.iter().map(|it| it["type"].as_str()).collect();
        assert_eq!(
            types,
            [
                Some("Reconciled"),
                Some("splitter.dev/Accepted"),
                Some("splitter.dev/ResolvedRefs"),
                Some("splitter.dev/Programmed"),
            ]
        );
        assert_eq!(entries[0], theirs);
        document.entries = entries;
        assert_eq!(document.replacement(form, &accepted(2), at(20)), None);
        let refused = state(
            3,
            &[(Severity::Refused, "UnsupportedField", "spec.http[0]")],
        );
        let replacement = document.replacement(form, &refused, at(20));
        let entries = replacement.expect("something to write").entries;
        assert_eq!(entries[1]["status"], "False");
        assert_eq!(entries[1]["lastTransitionTime"], "1970-01-01T00:00:20Z");
        assert_eq!(entries[2]["lastTransitionTime"], "1970-01-01T00:00:10Z");
        assert_eq!(entries[1]["message"], "spec.http[0]: is said");
    }
}
