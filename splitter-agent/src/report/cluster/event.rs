//! What an Event says, and what it is called.

use k8s_openapi::api::core::v1::ObjectReference as Regarding;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::REPORTER;
use crate::compile::{Diagnostic, Severity};
use crate::objects::ObjectName;
use crate::report::ObjectDiagnostics;

/// Most bytes of a note, as the API server has it.
const MOST_NOTE: usize = 1024;
/// Most bytes of a reporting instance and of a reason.
const MOST_WORD: usize = 128;
/// Most bytes of the name of an object.
const MOST_NAME: usize = 253;

/// Namespace and name of the Event about a finding. They are derived from the finding, so that
/// every agent gives it the same name, and the API server refuses a second one.
pub(super) fn name(state: &ObjectDiagnostics, diagnostic: &Diagnostic) -> ObjectName {
    let digest = digest(&[
        &state.uid,
        &state.generation.to_string(),
        diagnostic.reason,
        &diagnostic.field,
        &diagnostic.message,
    ]);
    let object = &diagnostic.object.name;
    let stem = cut(&object.name, MOST_NAME - 17).trim_end_matches(['.', '-']);
    ObjectName::new(object.namespace.as_str(), format!("{stem}.{digest:016x}"))
}

/// What is said again within a minute when only the message is another: one digest for the
/// same reason about the same field of the same generation of an object.
pub(super) fn slot(state: &ObjectDiagnostics, diagnostic: &Diagnostic) -> u64 {
    digest(&[
        &state.uid,
        &state.generation.to_string(),
        diagnostic.reason,
        &diagnostic.field,
    ])
}

/// The Event about a finding.
pub(super) fn event(
    name: &ObjectName,
    state: &ObjectDiagnostics,
    diagnostic: &Diagnostic,
    instance: &str,
    now: Timestamp,
) -> Event {
    let Diagnostic {
        object,
        severity,
        reason,
        field,
        message,
    } = diagnostic;
    let kind = match severity {
        Severity::Accepted | Severity::Note => "Normal",
        Severity::Inactive | Severity::Warning | Severity::Refused => "Warning",
    };
    let note = if field.is_empty() {
        message.clone()
    } else {
        format!("{field}: {message}")
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(kind.to_owned()),
        action: Some("Split".to_owned()),
        reason: Some(cut(reason, MOST_WORD).to_owned()),
        note: Some(cut(&note, MOST_NOTE).to_owned()),
        regarding: Some(Regarding {
            api_version: some(&state.api_version),
            kind: Some(object.kind.clone()),
            namespace: Some(object.name.namespace.clone()),
            name: Some(object.name.name.clone()),
            uid: some(&state.uid),
            // Not the field: kubectl shows it in front of the note, which begins with it
            // for those who show the note alone.
            ..Regarding::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(cut(instance, MOST_WORD).to_owned()),
        ..Event::default()
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The beginning of a text, up to so many bytes and no part of a character.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// FNV-1a over texts and their lengths: the same in every process and every version of the
/// agent, which the standard library's hashes do not promise.
fn digest(texts: &[&str]) -> u64 {
    let step = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    texts.iter().fold(0xcbf2_9ce4_8422_2325, |state, text| {
        let state = text.as_bytes().iter().fold(state, step);
        (text.len() as u64).to_le_bytes().iter().fold(state, step)
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn finding(name: &str) -> (ObjectDiagnostics, Diagnostic) {
        let (_, state) = sample::state(name, 1, &["RootMissing"]);
        let diagnostic = state.diagnostics.first().expect("a finding").clone();
        (state, diagnostic)
    }

    #[test]
    fn the_same_finding_has_the_same_name_and_another_another() {
        let (state, diagnostic) = finding("books");
        let first = name(&state, &diagnostic);
        assert_eq!(first, name(&state, &diagnostic));
        let mut later = state.clone();
        later.generation += 1;
        let mut recreated = state.clone();
        recreated.uid.push('x');
        assert_ne!(first, name(&later, &diagnostic));
        assert_ne!(first, name(&recreated, &diagnostic));
        let mut worded = diagnostic.clone();
        worded.message.push('x');
        assert_ne!(first, name(&state, &worded));
        assert_eq!(slot(&state, &diagnostic), slot(&state, &worded));
        let mut moved = diagnostic;
        moved.field = "spec.service".to_owned();
        assert_ne!(first, name(&state, &moved));
    }

    #[test]
    fn names_of_other_agents_stay_what_they_are() {
        // Agents of two versions must agree, or every Event is written twice during an upgrade.
        assert_eq!(digest(&[]), 0xcbf2_9ce4_8422_2325);
        let (state, diagnostic) = finding("books");
        assert_eq!(name(&state, &diagnostic).name, "books.3388a8fb023ee35d",);
    }

    #[test]
    fn the_longest_name_of_an_object_still_gives_a_valid_name() {
        let label = "a".repeat(58);
        let long = [label.as_str(), &label, &label, &label, "b"].join(".");
        for long in [
            long.clone(),
            format!("{long}{}", "c".repeat(253 - long.len())),
        ] {
            let (state, diagnostic) = finding(&long);
            let name = name(&state, &diagnostic).name;
            assert!(name.len() <= MOST_NAME, "{}", name.len());
            assert!(!name.contains("..") && !name.contains("-."), "{name}");
        }
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let (state, mut diagnostic) = finding("books");
        diagnostic.field = "f".to_owned();
        diagnostic.message = "ü".repeat(1000);
        let name = name(&state, &diagnostic);
        let now = Timestamp::UNIX_EPOCH;
        let event = event(&name, &state, &diagnostic, "agent", now);
        let note = event.note.expect("a note");
        assert_eq!(note.len(), 1023, "1024 would end within a character");
        assert!(note.starts_with("f: ü") && note.ends_with('ü'));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
