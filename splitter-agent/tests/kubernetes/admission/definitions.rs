//! Definitions of TrafficSplits: the project's, and such as other tools bring.

use serde_json::{Value, json};
use testbed::fixtures::manifests::{Version, definition};

/// The project's own.
pub(super) fn own() -> Value {
    let text = include_str!("../../../../deploy/crd/trafficsplits.yaml");
    serde_saphyr::from_str(text).expect("YAML")
}

/// Whatever is called a TrafficSplit.
pub(super) fn permissive() -> Value {
    let stored = super::VERSIONS.last().expect("versions");
    definition(&super::VERSIONS.map(Version::permissive), stored)
}

/// Those of others, with their names.
pub(super) fn strangers() -> Vec<(&'static str, Value)> {
    let number = json!({"type": "number"});
    let either = json!({"x-kubernetes-int-or-string": true});
    vec![
        ("permissive", permissive()),
        // Open Service Mesh, osm-edge, SMI SDK: any number.
        (
            "numbers",
            with_schemas(&["v1alpha2", "v1alpha3", "v1alpha4"].map(|it| (it, schema(&number)))),
        ),
        // linkerd-smi: int or string in v1alpha1, beside numbers in v1alpha2.
        (
            "quantities",
            with_schemas(&[("v1alpha2", schema(&number)), ("v1alpha1", schema(&either))]),
        ),
    ]
}

/// The last version is stored.
fn with_schemas(schemas: &[(&str, Value)]) -> Value {
    let versions: Vec<Version<'_>> = schemas
        .iter()
        .map(|(name, schema)| Version {
            schema: schema.clone(),
            ..Version::permissive(name)
        })
        .collect();
    definition(&versions, schemas.last().expect("versions").0)
}

/// With weights of this schema; a spec is not asked for, nor that a list has items.
fn schema(weight: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": {
        "type": "object", "required": ["service", "backends"],
        "properties": {
            "service": {"type": "string"},
            "matches": {"type": "array", "items": {
                "type": "object", "required": ["kind", "name"],
                "properties": {
                    "kind": {"type": "string", "enum": ["HTTPRouteGroup"]},
                    "name": {"type": "string"},
                },
            }},
            "backends": {"type": "array", "items": {
                "type": "object", "required": ["service", "weight"],
                "properties": {"service": {"type": "string"}, "weight": weight},
            }},
        },
    }}})
}
