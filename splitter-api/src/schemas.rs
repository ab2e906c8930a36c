//! The JSON Schemas in `docs/schemas` are what the types give.

use std::path::Path;
use std::{env, fs};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use crate::{Connections, Explanation, Status};

/// Set to anything, it makes these tests write the files instead.
const UPDATE: &str = "UPDATE_SCHEMAS";

fn check<T: JsonSchema>(name: &str) {
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let schema = generator.into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    let path = docs.join(format!("{name}.schema.json"));
    if env::var_os(UPDATE).is_some() {
        fs::create_dir_all(&docs).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/schemas/{name}.schema.json is not what the types give; renew it with \
         `{UPDATE}=1 cargo test -p splitter-api`"
    );
}

#[test]
fn the_schema_of_status_is_that_of_its_type() {
    check::<Status>("status");
}

#[test]
fn the_schema_of_connections_is_that_of_its_type() {
    check::<Connections>("connections");
}

#[test]
fn the_schema_of_explain_is_that_of_its_type() {
    check::<Explanation>("explain");
}
