//! Whether the cluster knows an optional kind, and in which versions.

use kube::core::ApiResource;
use serde_json::Value;

use super::resource::api_resource;
use crate::objects::Kind;

/// Selects the definition of a kind. Access rules that name it allow lists and watches with exactly
/// this selector.
pub(super) fn selector(kind: Kind) -> String {
    format!("metadata.name={}", kind.definition_name())
}

/// A version that a kind is served in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedVersion {
    /// The version without its group, for example `v1alpha4`.
    pub version: String,
    /// Whether its objects have a `status` subresource, so that it can be written.
    pub has_status: bool,
}

impl ServedVersion {
    /// Where objects of a kind are found in this version.
    #[must_use]
    pub fn resource(&self, kind: Kind) -> ApiResource {
        api_resource(kind.resource, &self.version)
    }
}

/// The definition of a kind, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    /// The cluster does not know them.
    Absent,
    /// They are defined, but cannot be had yet.
    NotReady,
    /// They are served in these versions.
    Served {
        /// Identity of the definition; empty if unknown. Objects of another definition are
        /// other objects.
        uid: String,
        versions: Vec<ServedVersion>,
    },
}

/// Nothing can be found out about a definition at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown;

impl Definition {
    /// What a CustomResourceDefinition says. What cannot be read in it counts as not said.
    pub(super) fn of(definition: &Value) -> Self {
        let metadata = &definition["metadata"];
        // One that is being deleted is served until its last object is gone, which a finalizer may
        // put off for long.
        if !is_established(definition) {
            return Self::NotReady;
        }
        let served: Vec<ServedVersion> = list(&definition["spec"]["versions"])
            .filter(|version| version["served"] == true)
            .filter_map(|version| {
                Some(ServedVersion {
                    version: version["name"].as_str()?.to_owned(),
                    has_status: version["subresources"]["status"].is_object(),
                })
            })
            .collect();
        Self::Served {
            uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
            versions: served,
        }
    }
}

/// The best of the versions that are served and can be read.
pub(super) fn best(kind: Kind, served: &[ServedVersion]) -> Option<&ServedVersion> {
    let readable = kind.versions.iter();
    readable
        .filter_map(|version| served.iter().find(|served| served.version == *version))
        .next()
}

fn is_established(definition: &Value) -> bool {
    list(&definition["status"]["conditions"])
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(name: &str, served: bool) -> Value {
        json!({"name": name, "served": served, "storage": false})
    }

    fn definition(versions: &Value) -> Value {
        json!({
            "metadata": {"name": "trafficsplits.split.smi-spec.io", "uid": "7"},
            "spec": {"versions": versions},
            "status": {"conditions": [
                {"type": "NamesAccepted", "status": "True"},
                {"type": "Established", "status": "True"},
            ]},
        })
    }

    /// The version that is used of a definition, and whether it has a status.
    fn used(definition: &Value) -> Option<(String, bool)> {
        match Definition::of(definition) {
            Definition::Served { uid, versions } => {
                assert_eq!(uid, "7");
                let best = best(Kind::TRAFFIC_SPLIT, &versions)?;
                Some((best.version.clone(), best.has_status))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_version_that_is_served_and_known_is_used() {
        let definition = definition(&json!([
            version("v1alpha1", true),
            version("v1alpha3", true),
            version("v1alpha4", false),
            version("v1alpha2", true),
            version("v2", true),
        ]));
        assert_eq!(used(&definition), Some(("v1alpha3".to_owned(), false)));
    }

    #[test]
    fn the_status_subresource_is_that_of_the_version() {
        let mut with_status = version("v1alpha4", true);
        with_status["subresources"] = json!({"status": {}});
        let with_status = definition(&json!([with_status, version("v1alpha2", true)]));
        assert_eq!(used(&with_status), Some(("v1alpha4".to_owned(), true)));
    }

    #[test]
    fn versions_that_cannot_be_read_are_not_used() {
        let definition = definition(&json!([version("v2", true), version("v1alpha4", false)]));
        assert_eq!(used(&definition), None);
    }

    #[test]
    fn what_is_being_deleted_is_served_until_it_is_gone() {
        let mut going = definition(&json!([version("v1alpha4", true)]));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(used(&going), Some(("v1alpha4".to_owned(), false)));
    }

    #[test]
    fn what_is_not_established_is_not_ready() {
        let versions = json!([version("v1alpha4", true)]);
        let mut fresh = definition(&versions);
        fresh["status"]["conditions"][1]["status"] = json!("False");
        assert_eq!(Definition::of(&fresh), Definition::NotReady);
    }

    #[test]
    fn any_json_is_survived() {
        for value in [
            json!(null),
            json!(7),
            json!([]),
            json!({"spec": {"versions": 7}}),
        ] {
            assert_eq!(Definition::of(&value), Definition::NotReady);
        }
        assert_eq!(used(&definition(&json!({"a": 1}))), None);
        assert_eq!(used(&definition(&json!([7, {"served": true}]))), None);
    }
}
