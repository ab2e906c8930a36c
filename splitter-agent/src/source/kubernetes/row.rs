//! Objects as they come over the wire: read at once into what is kept of them.

use std::borrow::Cow;
use std::fmt;

use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::crd::Definition;
use super::json;
use crate::objects::{self, DecodeError, Object, ObjectReference};

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

impl<'de, C: Content> Deserialize<'de> for Row<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = json::read(deserializer)?;
        let text = |name: &str| {
            let text = value.get("metadata")?.get(name)?.as_str()?;
            Some(text.to_owned())
        };
        Ok(Self {
            meta: ObjectMeta {
                name: text("name"),
                namespace: text("namespace"),
                resource_version: text("resourceVersion"),
                ..ObjectMeta::default()
            },
            content: C::read(value),
        })
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
pub(super) trait Decoded: Content {
    /// Kind and name of the object.
    fn reference(&self) -> ObjectReference;
    /// The object itself.
    fn into_object(self) -> Result<Object, DecodeError>;
}

/// Declares a [`Decoded`] of one kind. The kind is known by type, because the items of a
/// list do not name it: only the list as a whole does.
macro_rules! decoded {
    ($(#[$documentation:meta])* $name:ident, $api_version:literal, $kind:literal) => {
        $(#[$documentation])*
        #[derive(Clone, Debug)]
        pub(super) struct $name(Result<Object, DecodeError>);

        impl Content for $name {
            fn read(value: Value) -> Self {
                Self(decode(value, $api_version, $kind))
            }
        }

        impl Decoded for $name {
            fn reference(&self) -> ObjectReference {
                match &self.0 {
                    Ok(object) => object.reference(),
                    Err(error) => error.object.clone(),
                }
            }

            fn into_object(self) -> Result<Object, DecodeError> {
                self.0
            }
        }
    };
}

decoded!(
    /// A Service.
    ServiceRow,
    "v1",
    "Service"
);
decoded!(
    /// An EndpointSlice.
    EndpointSliceRow,
    "discovery.k8s.io/v1",
    "EndpointSlice"
);
decoded!(
    /// A TrafficSplit. Custom resources name their version themselves, in lists as well.
    TrafficSplitRow,
    "split.smi-spec.io/v1alpha4",
    "TrafficSplit"
);

decoded!(
    /// A Node.
    NodeRow,
    "v1",
    "Node"
);

fn decode(mut value: Value, api_version: &str, kind: &str) -> Result<Object, DecodeError> {
    if let Value::Object(fields) = &mut value {
        for (name, text) in [("apiVersion", api_version), ("kind", kind)] {
            fields.entry(name).or_insert_with(|| text.into());
        }
    }
    let object = objects::decode(value)?;
    object.ok_or_else(|| DecodeError {
        object: ObjectReference {
            kind: kind.to_owned(),
            name: objects::ObjectName::new("(unknown)", "(unnamed)"),
        },
        identity: Box::default(),
        field: "kind".into(),
        message: format!("the server gave something else than a {kind}"),
    })
}

impl Content for Definition {
    fn read(value: Value) -> Self {
        Self::of(&value)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::api::WatchEvent;
    use kube::core::ObjectList;

    use super::*;

    #[test]
    fn items_of_a_list_are_of_the_kind_of_the_list() {
        let list: ObjectList<Row<ServiceRow>> = serde_json::from_str(
            r#"{"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
                "items": [{"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "5",
                           "managedFields": [{"x": 1}]}, "spec": {"ports": null}}]}"#,
        )
        .unwrap();
        let row = list.items[0].clone();
        assert_eq!(row.resource_version().as_deref(), Some("5"));
        assert_eq!(row.content.reference().to_string(), "Service shop/web");
        assert!(matches!(row.content.into_object(), Ok(Object::Service(_))));
    }

    #[test]
    fn empty_lists_may_be_null() {
        let row: Row<EndpointSliceRow> = serde_json::from_str(
            r#"{"metadata": {"name": "web-x", "namespace": "shop", "resourceVersion": "5"},
                "addressType": "IPv4", "endpoints": null, "ports": null}"#,
        )
        .unwrap();
        assert!(row.content.into_object().is_ok());
    }

    #[test]
    fn one_bad_object_leaves_its_neighbours_alone() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let list: ObjectList<Row<TrafficSplitRow>> = serde_json::from_str(&format!(
            r#"{{"kind": "TrafficSplitList", "apiVersion": "split.smi-spec.io/v1alpha2",
                "metadata": {{"resourceVersion": "7"}}, "items": [
                {{"metadata": {{"name": "good", "namespace": "shop"}}}}, 7, null,
                {{"metadata": [], "spec": {{}}}}, {{"kind": "Other", "apiVersion": "x/v1"}},
                {{"metadata": {{"name": "deep", "namespace": "shop"}}, "spec": {{"matches": {deep}}}}}]}}"#,
        ))
        .unwrap();
        let read: Vec<_> = list
            .items
            .into_iter()
            .map(|row| row.content.into_object().is_ok())
            .collect();
        assert_eq!(read, [true, false, false, false, false, true]);
        let event: WatchEvent<Row<TrafficSplitRow>> = serde_json::from_str(&format!(
            r#"{{"type": "ADDED", "object": {{"metadata": {{"name": "deep"}}, "spec": {deep}}}}}"#,
        ))
        .unwrap();
        assert!(matches!(event, WatchEvent::Added(_)));
    }
}
