//! Many objects that claim the same root.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;

use crate::fixtures::{compiled, split, world};

/// Quadratic work for each object, or for each claim, does not end in a test's lifetime.
#[test]
fn ten_thousand_objects_may_claim_one_root() {
    const OBJECTS: usize = 10_000;
    let splits = (0..OBJECTS).map(|number| {
        let leaf = format!("leaf-{number:05}");
        let backends = [("web-1", json!(9)), (leaf.as_str(), json!(1))];
        split(&format!("split-{number:05}"), "web", &backends)
    });
    let objects: Vec<Value> = world().into_iter().chain(splits).collect();
    let compiled = compiled(objects).0;
    let severity = |name: &str| {
        let mut diagnostics = compiled.diagnostics.iter();
        let found = diagnostics.find(|it| it.object.name.name == name);
        found.map(|diagnostic| diagnostic.severity)
    };
    assert_eq!(severity("split-00000"), Some(Severity::Warning));
    assert_eq!(severity("split-09999"), Some(Severity::Refused));
    assert_eq!(compiled.plan.frontends.len(), 1);
}
