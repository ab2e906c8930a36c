//! Annotations of splitter's own on objects that ask for splits.

use serde_json::Value;

use super::field::{Fields, inert};

/// What their keys begin with.
const PREFIX: &str = "splitter.dev/";

/// Fields of `metadata` that are almost an annotation that is known of the kind: of our prefix with
/// a name that there is not, of our name with another prefix, or written as a label. For example
/// `annotations[splitter.dev/on-no-endpoint]`.
pub(super) fn mistaken(metadata: &Fields, known: &[&str]) -> Box<[String]> {
    let keys = |field: &'static str| {
        let fields = metadata.get(field).and_then(Value::as_object);
        fields.into_iter().flat_map(Fields::keys)
    };
    let name = |key: &str| key.rsplit('/').next().map(str::to_owned);
    let looks_ours =
        |key: &str| key.starts_with(PREFIX) || known.iter().any(|known| name(known) == name(key));
    let annotations =
        keys("annotations").filter(|key| looks_ours(key) && !known.contains(&key.as_str()));
    let labels = keys("labels").filter(|key| looks_ours(key));
    let shown = |key: &str| inert(&key.chars().take(100).collect::<String>()).into_owned();
    annotations
        .map(|key| format!("annotations[{}]", shown(key)))
        .chain(labels.map(|key| format!("labels[{}]", shown(key))))
        .take(8)
        .collect()
}
