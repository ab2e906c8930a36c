//! Whether the cluster knows TrafficSplits, and in which versions.

use kube::core::ApiResource;
use serde_json::Value;

/// Versions that can be read, best first. The schemas of older ones lack `matches`, so
/// that reading through them would hide that a split asks for what cannot be done.
const VERSIONS: [&str; 4] = ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];

/// Selects the definition of TrafficSplits. Access rules that name it allow lists and
/// watches with exactly this selector.
pub(super) const SELECTOR: &str = "metadata.name=trafficsplits.split.smi-spec.io";

/// A version that TrafficSplits are served in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedVersion {
    /// The version without its group, for example `v1alpha4`.
    pub version: String,
    /// Whether its objects have a `status` subresource, so that it can be written.
    pub has_status: bool,
}

impl ServedVersion {
    /// Where its objects are found.
    #[must_use]
    pub fn resource(&self) -> ApiResource {
        super::kind::Kind::TrafficSplit.resource(&self.version)
    }
}

/// What is known about TrafficSplits as a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    /// The cluster does not know them.
    Absent,
    /// They are defined, but not yet, or not for long, to be had.
    NotReady,
    /// They are served, but in none of the versions that can be read.
    OtherVersions(Vec<String>),
    /// They can be listed and watched.
    Served {
        /// Identity of the definition; empty if unknown. Objects of another definition are
        /// other objects.
        uid: String,
        /// The best version.
        version: ServedVersion,
    },
}

impl Definition {
    /// What a CustomResourceDefinition says. What cannot be read in it counts as not said.
    pub(super) fn of(definition: &Value) -> Self {
        let metadata = &definition["metadata"];
        if !metadata["deletionTimestamp"].is_null() || !is_established(definition) {
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
        Self::best(metadata["uid"].as_str().unwrap_or_default(), served)
    }

    /// The best of the versions that are served.
    pub(super) fn best(uid: &str, served: Vec<ServedVersion>) -> Self {
        let rank = |served: &ServedVersion| {
            let mut versions = VERSIONS.iter();
            versions.position(|version| *version == served.version)
        };
        let best = served
            .iter()
            .filter_map(|served| Some((rank(served)?, served)))
            .min_by_key(|(rank, _)| *rank);
        match best {
            Some((_, version)) => Self::Served {
                uid: uid.to_owned(),
                version: version.clone(),
            },
            None => Self::OtherVersions(served.into_iter().map(|served| served.version).collect()),
        }
    }
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

    fn served(version: &str, has_status: bool) -> Definition {
        Definition::Served {
            uid: "7".to_owned(),
            version: ServedVersion {
                version: version.to_owned(),
                has_status,
            },
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
        assert_eq!(Definition::of(&definition), served("v1alpha3", false));
    }

    #[test]
    fn the_status_subresource_is_that_of_the_version() {
        let mut with_status = version("v1alpha4", true);
        with_status["subresources"] = json!({"status": {}});
        let with_status = definition(&json!([with_status, version("v1alpha2", true)]));
        assert_eq!(Definition::of(&with_status), served("v1alpha4", true));
    }

    #[test]
    fn versions_that_cannot_be_read_are_named() {
        let definition = definition(&json!([version("v2", true), version("v1alpha4", false)]));
        let other = Definition::OtherVersions(vec!["v2".to_owned()]);
        assert_eq!(Definition::of(&definition), other);
    }

    #[test]
    fn what_is_not_established_or_about_to_go_is_not_ready() {
        let versions = json!([version("v1alpha4", true)]);
        let mut going = definition(&versions);
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(Definition::of(&going), Definition::NotReady);
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
        let none = Definition::OtherVersions(Vec::new());
        assert_eq!(Definition::of(&definition(&json!({"a": 1}))), none);
        assert_eq!(
            Definition::of(&definition(&json!([7, {"served": true}]))),
            none
        );
    }
}
