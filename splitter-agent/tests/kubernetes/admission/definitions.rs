//! Definitions of TrafficSplits: the project's, and such as other tools bring.

use serde_json::{Value, json};
use testbed::fixtures::manifests::{Version, definition, schema_of_others};

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
            with_schemas(
                &["v1alpha2", "v1alpha3", "v1alpha4"].map(|it| (it, schema_of_others(&number))),
            ),
        ),
        // linkerd-smi: int or string in v1alpha1, beside numbers in v1alpha2.
        (
            "quantities",
            with_schemas(&[
                ("v1alpha2", schema_of_others(&number)),
                ("v1alpha1", schema_of_others(&either)),
            ]),
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
