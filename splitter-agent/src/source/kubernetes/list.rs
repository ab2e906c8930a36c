//! A list that is read as a whole.

use std::fmt;

use kube::core::ApiResource;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::row::{Content, Row};

/// A list: the version as of which it is, and its objects.
#[derive(Debug)]
pub(super) struct List<C> {
    /// Empty if the server does not say.
    pub(super) version: String,
    pub(super) rows: Vec<Row<C>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: Option<String>,
}

/// Reads the text of a list. Its items may leave out what the list says of all of them: of what
/// kind they are.
///
/// # Errors
///
/// If it is not a list of objects; nothing inside an object is an error.
pub(super) fn read<C: Content>(text: &str, items: &ApiResource) -> serde_json::Result<List<C>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let list = ListReader {
        items,
        content: std::marker::PhantomData,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(list)
}

struct ListReader<'a, C> {
    items: &'a ApiResource,
    content: std::marker::PhantomData<C>,
}

impl<'de, C: Content> DeserializeSeed<'de> for ListReader<'_, C> {
    type Value = List<C>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<List<C>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, C: Content> Visitor<'de> for ListReader<'_, C> {
    type Value = List<C>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of Kubernetes objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List<C>, A::Error> {
        let mut list = List {
            version: String::new(),
            rows: Vec::new(),
        };
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "metadata" => {
                    let metadata: Option<ListMetadata> = map.next_value()?;
                    let version = metadata.and_then(|metadata| metadata.resource_version);
                    list.version = version.unwrap_or_default();
                }
                "items" => list.rows = map.next_value_seed(Items(&self))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(list)
    }
}

struct Items<'a, 'b, C>(&'a ListReader<'b, C>);

impl<'de, C: Content> DeserializeSeed<'de> for Items<'_, '_, C> {
    type Value = Vec<Row<C>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Row<C>>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, C: Content> Visitor<'de> for Items<'_, '_, C> {
    type Value = Vec<Row<C>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the items of a list, or null")
    }

    fn visit_none<E>(self) -> Result<Vec<Row<C>>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Row<C>>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Row<C>>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = items.next_element_seed(Item(self.0))? {
            rows.push(row);
        }
        Ok(rows)
    }
}

struct Item<'a, 'b, C>(&'a ListReader<'b, C>);

impl<'de, C: Content> DeserializeSeed<'de> for Item<'_, '_, C> {
    type Value = Row<C>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Row<C>, D::Error> {
        let mut value = super::json::read(deserializer)?;
        if let Some(fields) = value.as_object_mut() {
            let ApiResource {
                api_version, kind, ..
            } = self.0.items;
            for (name, text) in [("apiVersion", api_version), ("kind", kind)] {
                fields.entry(name).or_insert_with(|| text.as_str().into());
            }
        }
        Ok(Row::new(value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::api_resource;
    use super::super::row::Decoded;
    use super::*;
    use crate::objects::{Kind, Object};

    fn list(kind: Kind, text: &str) -> List<Decoded> {
        let resource = api_resource(kind.resource, kind.versions[0]);
        read(text, &resource).unwrap()
    }

    #[test]
    fn items_are_of_the_kind_of_the_list() {
        let list = list(
            Kind::SERVICE,
            r#"{"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
                "items": [{"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "5",
                           "managedFields": [{"x": 1}]}, "spec": {"ports": null}}]}"#,
        );
        assert_eq!(list.version, "7");
        let row = list.rows.into_iter().next().unwrap();
        assert_eq!(row.version().as_deref(), Some("5"));
        assert_eq!(row.content.reference().to_string(), "Service shop/web");
        assert!(matches!(row.content.into_object(), Ok(Object::Service(_))));
    }

    #[test]
    fn a_list_may_have_no_items() {
        for text in [r#"{"items": null}"#, r#"{"items": []}"#, "{}"] {
            let list = list(Kind::SERVICE, text);
            assert!(list.rows.is_empty() && list.version.is_empty(), "{text}");
        }
    }

    #[test]
    fn one_bad_object_leaves_its_neighbours_alone() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let list = list(
            Kind::TRAFFIC_SPLIT,
            &format!(
                r#"{{"kind": "TrafficSplitList", "apiVersion": "split.smi-spec.io/v1alpha2",
                "metadata": {{"resourceVersion": "7"}}, "items": [
                {{"metadata": {{"name": "good", "namespace": "shop"}}}}, 7, null,
                {{"metadata": [], "spec": {{}}}}, {{"kind": "Other", "apiVersion": "x/v1"}},
                {{"metadata": {{"name": "deep", "namespace": "shop"}}, "spec": {{"matches": {deep}}}}}]}}"#
            ),
        );
        let read: Vec<_> = list
            .rows
            .into_iter()
            .map(|row| row.content.into_object().is_ok())
            .collect();
        assert_eq!(read, [true, false, false, false, false, true]);
    }

    #[test]
    fn what_is_not_a_list_is_an_error() {
        let resource = api_resource(Kind::SERVICE.resource, "v1");
        for text in ["", "7", "[]", r#"{"items": 7}"#, r#"{"items": []} x"#] {
            assert!(read::<Decoded>(text, &resource).is_err(), "{text}");
        }
    }
}
