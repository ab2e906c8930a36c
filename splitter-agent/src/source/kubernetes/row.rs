//! Objects as they come over the wire: read at once into what is kept of them.

use std::borrow::Cow;
use std::fmt;

use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::definition::Definition;
use super::json;
use crate::objects::{self, DecodeError, Fields, Object, ObjectReference, Pod};

/// What is made of an object.
pub(super) trait Content: Clone + fmt::Debug + Send + 'static {
    /// Reads it out of any JSON. Nothing in it may be an error to the caller: it would
    /// fail the list or the watch that the object stands in.
    fn read(value: Value) -> Self;
}

/// An object: what is made of it, and the little of its metadata that following it takes.
#[derive(Clone, Debug)]
pub(super) struct Row<C> {
    meta: ObjectMeta,
    /// What is made of it.
    pub(super) content: C,
}

impl<C> Row<C> {
    /// Its resource version, if it has one.
    pub(super) fn version(&self) -> Option<String> {
        let version = self.meta.resource_version.clone();
        version.filter(|version| !version.is_empty())
    }
}

impl<C: Content> Row<C> {
    pub(super) fn new(value: Value) -> Self {
        let text = |name: &str| {
            let text = value.get("metadata")?.get(name)?.as_str()?;
            Some(text.to_owned())
        };
        Self {
            meta: ObjectMeta {
                name: text("name"),
                namespace: text("namespace"),
                resource_version: text("resourceVersion"),
                ..ObjectMeta::default()
            },
            content: C::read(value),
        }
    }
}

impl<'de, C: Content> Deserialize<'de> for Row<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::read(deserializer).map(Self::new)
    }
}

impl<C> Resource for Row<C> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// An object that splitting needs, or why it cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Decoded(Result<Object, DecodeError>);

impl Content for Decoded {
    fn read(value: Value) -> Self {
        let fields = match value {
            Value::Object(fields) => fields,
            _ => Fields::new(),
        };
        Self(objects::decode_fields(&fields).and_then(|object| {
            object.ok_or_else(|| {
                let object = objects::reference_of(&fields);
                let kind = &object.kind;
                DecodeError {
                    message: format!("the API server gave a {kind}, which was not asked for"),
                    object,
                    identity: Box::default(),
                    field: "kind".into(),
                }
            })
        }))
    }
}

impl Decoded {
    /// Kind and name of the object.
    pub(super) fn reference(&self) -> ObjectReference {
        match &self.0 {
            Ok(object) => object.reference(),
            Err(error) => error.object.clone(),
        }
    }

    /// The object itself.
    pub(super) fn into_object(self) -> Result<Object, DecodeError> {
        self.0
    }
}

/// A Pod of which only the metadata was given; `None` if it has no name.
#[derive(Clone, Debug)]
pub(super) struct PodMetadata(Option<Pod>);

impl PodMetadata {
    /// The Pod itself.
    pub(super) fn into_pod(self) -> Option<Pod> {
        self.0
    }
}

impl Content for PodMetadata {
    fn read(value: Value) -> Self {
        let metadata = value.get("metadata").and_then(Value::as_object);
        Self(metadata.and_then(Pod::of_metadata))
    }
}

impl Content for Definition {
    fn read(value: Value) -> Self {
        Self::of(&value)
    }
}

#[cfg(test)]
mod tests {
    use kube::api::WatchEvent;

    use super::*;

    #[test]
    fn empty_lists_may_be_null() {
        let row: Row<Decoded> = serde_json::from_str(
            r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "web-x", "namespace": "shop", "resourceVersion": "5"},
                "addressType": "IPv4", "endpoints": null, "ports": null}"#,
        )
        .unwrap();
        assert!(row.content.into_object().is_ok());
    }

    #[test]
    fn an_object_that_is_too_deep_does_not_end_the_watch() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let event: WatchEvent<Row<Decoded>> = serde_json::from_str(&format!(
            r#"{{"type": "ADDED", "object": {{"metadata": {{"name": "deep"}}, "spec": {deep}}}}}"#,
        ))
        .unwrap();
        assert!(matches!(event, WatchEvent::Added(_)));
    }
}
