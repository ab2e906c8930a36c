//! Istio's kinds (`networking.istio.io`): VirtualServices say which host gets which share of the
//! connections to another, DestinationRules what the subsets of a host are.

pub(crate) mod destination_rule;
pub(crate) mod virtual_service;

use super::field::{self, FieldError, Fields, inert};
use super::unknown;

/// The group of all of them.
const GROUP: &str = "networking.istio.io";

/// Their versions, which have one form in common.
const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// A list of texts.
fn texts(fields: &Fields, name: &str) -> Result<Vec<String>, FieldError> {
    field::each(fields, name, |item| match item.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(FieldError::new(format!(
            "is {}; write a string",
            field::shown(item)
        ))),
    })
}

/// Labels, by their keys.
fn labels(
    fields: &Fields,
    name: &str,
) -> Result<std::collections::BTreeMap<String, String>, FieldError> {
    let Some(labels) = field::object(fields, name)? else {
        return Ok(Default::default());
    };
    let label = |key: &String| {
        let value = field::text(labels, key);
        // A key may be any text.
        let value = value.map_err(|error| FieldError {
            field: unknown::below(name, key),
            ..error
        })?;
        Ok((key.clone(), value.unwrap_or_default().to_owned()))
    };
    labels.keys().map(label).collect()
}

/// The fields that are there and not among those that are known, as people see them.
fn unknown<'a>(fields: &'a Fields, known: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let there = fields.iter().filter(|(_, value)| !value.is_null());
    let unknown = there.filter(|(name, _)| !known.contains(&name.as_str()));
    unknown.map(|(name, _)| inert(&name.chars().take(100).collect::<String>()).into_owned())
}
