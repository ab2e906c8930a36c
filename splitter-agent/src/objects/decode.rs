//! From any Kubernetes object to what the agent keeps of it.

use std::sync::Arc;

use serde_json::Value;

use super::field::{self, FieldError, Fields, shown};
use super::kind::{Kind, NameRule};
use super::{Identity, Object, ObjectName, ObjectReference, Timestamp, dns};
use crate::route::{RouteObject, Translate};

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {message}")]
pub struct DecodeError {
    /// The object, as far as it is known.
    pub object: ObjectReference,
    /// `apiVersion` and `metadata.uid`, each empty where there is none.
    pub identity: Box<Identity>,
    /// The field that is the cause; empty if it is the object as a whole.
    pub field: Box<str>,
    /// What is the matter and what to do about it.
    pub message: String,
}

/// What every object carries.
#[derive(Debug)]
pub struct Metadata<'a> {
    /// Namespace and name.
    pub name: ObjectName,
    /// The kind of the object.
    pub kind: Kind,
    /// `apiVersion` as it is written.
    pub api_version: &'a str,
    /// `metadata` itself, for what only some kinds need.
    pub fields: &'a Fields,
}

impl Metadata<'_> {
    /// `uid`; empty where there is none.
    #[must_use]
    pub fn uid(&self) -> &str {
        let uid = self.fields.get("uid").and_then(Value::as_str);
        uid.unwrap_or_default()
    }

    /// The value of a label.
    ///
    /// # Errors
    ///
    /// If the labels, or this one, are not what Kubernetes allows.
    pub fn label(&self, key: &str) -> Result<Option<String>, FieldError> {
        let Some(labels) = field::object(self.fields, "labels").map_err(in_metadata)? else {
            return Ok(None);
        };
        let label = field::text(labels, key).map_err(|error| in_metadata(error.below("labels")))?;
        Ok(label.map(str::to_owned))
    }

    /// The value of an annotation; what is not a string, as JSON.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<String> {
        let annotations = self.fields.get("annotations")?.as_object()?;
        field::present(annotations, key).map(|value| match value {
            Value::String(text) => text.clone(),
            other => shown(other),
        })
    }

    /// The object of this metadata, which asks for splits.
    #[must_use]
    pub fn into_route(self, content: impl Translate) -> Object {
        let generation = field::present(self.fields, "generation").and_then(field::whole);
        let created = self.fields.get("creationTimestamp").and_then(Value::as_str);
        Object::Route(RouteObject {
            kind: self.kind,
            identity: Identity {
                api_version: self.api_version.to_owned(),
                uid: self.uid().to_owned(),
                generation: generation.unwrap_or(0),
            },
            created: created.and_then(Timestamp::parse),
            content: Arc::new(content),
            name: self.name,
        })
    }
}

/// Reads any Kubernetes object.
///
/// Fields that splitting does not need may be anything, and lists may be `null`. Of an
/// object of a kind that splitting does not need, nothing is read: `Ok(None)`; so is an
/// empty document (`null`).
///
/// # Errors
///
/// If the object is of a kind that splitting needs, and cannot be read. One that asks for
/// splits is only refused here if not even its name can be read: everything else that is wrong
/// with it is told when it is translated.
pub fn decode(value: Value) -> Result<Option<Object>, DecodeError> {
    let object = match value {
        Value::Null => return Ok(None),
        Value::Object(object) => object,
        other => {
            let error = FieldError::new(format!(
                "{} is not a Kubernetes object; write one with apiVersion, kind and metadata",
                shown(&other)
            ));
            return Err(failure(&Fields::new(), error));
        }
    };
    decode_fields(&object)
}

/// The same of an object that is known to be one.
pub(crate) fn decode_fields(object: &Fields) -> Result<Option<Object>, DecodeError> {
    read(object).map_err(|error| failure(object, error))
}

fn read(object: &Fields) -> Result<Option<Object>, FieldError> {
    let Some((kind, api_version)) = kind_of(object)? else {
        return Ok(None);
    };
    let metadata = metadata_of(object, kind, api_version)?;
    (kind.read)(metadata, object).map(Some)
}

/// The kind of an object, if it is one that is read, and its `apiVersion`.
fn kind_of(object: &Fields) -> Result<Option<(Kind, &str)>, FieldError> {
    let required = |name| {
        let text = field::text(object, name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| {
            FieldError::new("is missing; every Kubernetes object has one").below(name)
        })
    };
    let api_version = required("apiVersion")?;
    let name = required("kind")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut of_group = Kind::all().filter(|kind| kind.resource.group == group);
    let Some(kind) = of_group.clone().find(|kind| kind.name() == name) else {
        return match of_group.find(|kind| kind.owns_group) {
            Some(kind) => Err(FieldError::new(format!(
                "{} is not a kind of group {group}; write {kind}",
                shown(&Value::from(name))
            ))
            .below("kind")),
            None => Ok(None),
        };
    };
    if kind.versions.contains(&version) {
        return Ok(Some((kind, api_version)));
    }
    let mut versions: Vec<String> = kind
        .versions
        .iter()
        .map(|version| kind.resource.api_version_of(version))
        .collect();
    versions.sort_unstable();
    Err(FieldError::new(format!(
        "{} is not a version that is read; use {}",
        shown(&Value::from(api_version)),
        versions.join(", ")
    ))
    .below("apiVersion"))
}

fn metadata_of<'a>(
    object: &'a Fields,
    kind: Kind,
    api_version: &'a str,
) -> Result<Metadata<'a>, FieldError> {
    let fields = field::object(object, "metadata")?.ok_or_else(|| {
        FieldError::new("is missing; write metadata with a name").below("metadata")
    })?;
    let name = field::text(fields, "name")
        .map_err(in_metadata)?
        .filter(|name| !name.is_empty())
        .ok_or_else(|| in_metadata(FieldError::new("is missing; write a name").below("name")))?;
    let namespace = field::text(fields, "namespace")
        .map_err(in_metadata)?
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or(DEFAULT_NAMESPACE);
    let namespace = if kind.is_namespaced { namespace } else { "" };
    let (valid, rule) = match kind.name_rule {
        NameRule::Label => (dns::is_label(name), LABEL),
        NameRule::Subdomain => (dns::is_subdomain(name), SUBDOMAIN),
    };
    if !valid {
        return Err(invalid_name("name", name, rule));
    }
    if kind.is_namespaced && !dns::is_label(namespace) {
        return Err(invalid_name("namespace", namespace, LABEL));
    }
    Ok(Metadata {
        name: ObjectName::new(namespace, name),
        kind,
        api_version,
        fields,
    })
}

/// Where an object is whose manifest gives no namespace.
const DEFAULT_NAMESPACE: &str = "default";

const LABEL: &str = "use at most 63 lower-case letters, digits and inner hyphens";
const SUBDOMAIN: &str =
    "use at most 253 lower-case letters, digits and inner hyphens, in parts with dots between";

fn invalid_name(field: &str, name: &str, rule: &str) -> FieldError {
    let name = shown(&Value::String(name.to_owned()));
    in_metadata(
        FieldError::new(format!("{name} is not a {field} in Kubernetes; {rule}")).below(field),
    )
}

fn in_metadata(error: FieldError) -> FieldError {
    error.below("metadata")
}

/// The error, with as much of the object's name as can be read.
fn failure(object: &Fields, error: FieldError) -> DecodeError {
    let text = |fields: Option<&Fields>, name| {
        let value = fields.and_then(|fields| fields.get(name));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let metadata = object.get("metadata").and_then(Value::as_object);
    DecodeError {
        identity: Box::new(Identity {
            api_version: text(Some(object), "apiVersion"),
            uid: text(metadata, "uid"),
            generation: 0,
        }),
        object: reference_of(object),
        field: error.field.into(),
        message: error.message,
    }
}

/// An object by as much of its name as can be read and could be one: the name is printed as it
/// is, so it must not look like anything else.
pub(crate) fn reference_of(object: &Fields) -> ObjectReference {
    let known = |fields: Option<&Fields>, name: &str, otherwise: &str, valid: fn(&str) -> bool| {
        let text = fields
            .and_then(|fields| fields.get(name))
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        match text {
            None => otherwise.to_owned(),
            Some(text) if valid(text) => text.to_owned(),
            Some(_) => "(invalid)".to_owned(),
        }
    };
    let metadata = object.get("metadata").and_then(Value::as_object);
    let kind = object.get("kind").and_then(Value::as_str);
    let kind = kind.and_then(Kind::from_name);
    ObjectReference {
        kind: known(Some(object), "kind", "Object", is_kind),
        name: ObjectName::new(
            if kind.is_some_and(|kind| !kind.is_namespaced) {
                String::new()
            } else {
                known(metadata, "namespace", DEFAULT_NAMESPACE, dns::is_label)
            },
            known(metadata, "name", "(unnamed)", dns::is_subdomain),
        ),
    }
}

/// Whether it can be the name of a kind.
fn is_kind(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_other_kinds_are_left_alone() {
        for value in [
            json!(null),
            json!({"apiVersion": "v1", "kind": "ConfigMap"}),
            json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service"}),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "spec": 7}),
        ] {
            assert_eq!(decode(value.clone()), Ok(None), "{value}");
        }
    }

    #[test]
    fn an_unknown_version_names_those_that_are_read() {
        let error = decode(json!({
            "apiVersion": "split.smi-spec.io/v1beta1",
            "kind": "TrafficSplit",
            "metadata": {"name": "web", "namespace": "shop"},
        }))
        .unwrap_err();
        assert_eq!(error.object.to_string(), "TrafficSplit shop/web");
        assert_eq!(&*error.field, "apiVersion");
        for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
            assert!(error.message.contains(version), "{}", error.message);
        }
        for (api_version, kind) in [
            ("v2", "Service"),
            ("discovery.k8s.io/v1beta1", "EndpointSlice"),
        ] {
            let error = decode(json!({"apiVersion": api_version, "kind": kind})).unwrap_err();
            assert_eq!(&*error.field, "apiVersion");
        }
    }

    #[test]
    fn what_is_not_an_object_or_has_no_name_is_refused() {
        for (value, field) in [
            (json!("text"), ""),
            (json!([]), ""),
            (json!({}), "apiVersion"),
            (json!({"apiVersion": "v1"}), "kind"),
            (json!({"apiVersion": "", "kind": ""}), "apiVersion"),
            (json!({"apiVersion": "v1", "kind": ""}), "kind"),
            (json!({"apiVersion": "v1", "kind": 7}), "kind"),
            (
                json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "Split"}),
                "kind",
            ),
            (json!({"apiVersion": "v1", "kind": "Service"}), "metadata"),
            (
                json!({"apiVersion": "v1", "kind": "Service", "metadata": 1}),
                "metadata",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {}}),
                "metadata.name",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "A"}}),
                "metadata.name",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Service",
                       "metadata": {"name": "a", "namespace": "b.c"}}),
                "metadata.namespace",
            ),
        ] {
            assert_eq!(&*decode(value.clone()).unwrap_err().field, field, "{value}");
        }
    }

    #[test]
    fn names_that_cannot_be_names_are_not_repeated() {
        for forged in [
            "x\nTrafficSplit shop/web: accepted",
            "\u{1b}[2J",
            "\u{202e}x",
            "A",
        ] {
            let error = decode(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": forged, "namespace": forged},
            }))
            .unwrap_err();
            assert_eq!(error.object.to_string(), "Service (invalid)/(invalid)");
            assert!(!error.message.contains(char::is_control));
            assert!(!error.message.contains('\u{202e}'));
        }
        let error = decode(json!({"kind": "a b", "metadata": {"name": "x"}})).unwrap_err();
        assert_eq!(error.object.to_string(), "(invalid) default/x");
    }

    /// Any JSON, most of it made of the words that the decoders look for.
    fn json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            3 => proptest::sample::select(vec![
                "v1", "Service", "discovery.k8s.io/v1", "EndpointSlice", "web", "None", "TCP",
                "split.smi-spec.io/v1alpha2", "TrafficSplit", "500m", "10.0.0.1", "::1", "IPv4",
                "ExternalName", "ClientIP", "2026-01-01T00:00:00Z",
            ]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        let key = prop_oneof![
            9 => proptest::sample::select(vec![
                "apiVersion", "kind", "metadata", "name", "namespace", "labels", "annotations",
                "generation", "creationTimestamp", "spec", "service", "backends", "weight",
                "matches", "clusterIP", "clusterIPs", "type", "ports", "port", "protocol",
                "addressType", "endpoints", "addresses", "conditions", "ready", "serving",
                "terminating", "sessionAffinity", "kubernetes.io/service-name", "nodeName", "hints",
                "forZones", "forNodes", "match", "internalTrafficPolicy", "selector",
            ]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn never_panics(value in json()) {
            let _ = decode(value);
        }

        #[test]
        fn never_panics_below_a_known_kind(
            kind in proptest::sample::select(vec![
                ("v1", "Service"),
                ("discovery.k8s.io/v1", "EndpointSlice"),
                ("split.smi-spec.io/v1alpha4", "TrafficSplit"),
            ]),
            metadata in json(),
            spec in json(),
            rest in json(),
        ) {
            let mut object = match rest {
                Value::Object(fields) => fields,
                _ => Fields::new(),
            };
            let mut metadata = match metadata {
                Value::Object(fields) => fields,
                _ => Fields::new(),
            };
            metadata.insert("name".into(), json!("web"));
            metadata.remove("namespace");
            object.insert("apiVersion".into(), json!(kind.0));
            object.insert("kind".into(), json!(kind.1));
            object.insert("metadata".into(), Value::Object(metadata));
            object.insert("spec".into(), spec);
            let decoded = decode(Value::Object(object));
            // A TrafficSplit with a name is always kept, so that its author is told.
            prop_assert!(kind.1 != "TrafficSplit" || decoded.is_ok());
        }
    }
}
