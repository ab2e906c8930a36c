//! Pods: their labels, by which subsets choose endpoints, and what they are as clients. Of a Pod
//! nothing but its metadata is ever asked for; a manifest tells its node, too.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field::{FieldError, Fields};
use super::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use super::{Metadata, Object, ObjectName, pod_key};

/// The kind of Pods.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "Pod",
        plural: "pods",
        group: "",
    },
    versions: &["v1"],
    purpose: Purpose::OnDemand,
    availability: Availability::BuiltIn,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::None,
    precedence: 0,
    may_be_superseded: false,
    owns_group: false,
    definition: None,
    read: |metadata, object| Pod::read(metadata, object).map(Object::Pod),
};

/// Set by the kubelet on the object of a static pod: the uid that the pod's cgroup is named after.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";

/// An annotation or label of pods whose connections are never split, with the value `true`.
const SKIP: &str = "splitter.dev/skip";

/// What is read of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty where there is none.
    pub uid: Box<str>,
    /// Its labels; what cannot be one is left out.
    pub labels: BTreeMap<String, String>,
    /// What it is on its node.
    pub on_node: OnNode,
}

/// What a Pod is on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnNode {
    /// `spec.nodeName`, where that is read.
    pub node: Option<Box<str>>,
    /// Its uid as its cgroup has it: of a static pod, the digest of its manifest.
    pub uid: Box<str>,
    /// Whether connections of it are never split.
    pub is_left_alone: bool,
}

impl Pod {
    #[allow(
        clippy::unnecessary_wraps,
        clippy::needless_pass_by_value,
        reason = "the form of every kind"
    )]
    fn read(metadata: Metadata<'_>, object: &Fields) -> Result<Self, FieldError> {
        let mut pod = Self::with_name(metadata.name, metadata.fields);
        let spec = object.get("spec");
        let node = spec.and_then(|spec| spec.get("nodeName")?.as_str());
        pod.on_node.node = node.filter(|node| !node.is_empty()).map(Into::into);
        Ok(pod)
    }

    /// The Pod of this `metadata`; `None` if it has no name.
    #[must_use]
    pub(crate) fn of_metadata(metadata: &Fields) -> Option<Self> {
        let text = |field: &str| metadata.get(field).and_then(Value::as_str);
        let name = text("name").filter(|name| !name.is_empty())?;
        let name = ObjectName::new(text("namespace").unwrap_or_default(), name);
        Some(Self::with_name(name, metadata))
    }

    fn with_name(name: ObjectName, metadata: &Fields) -> Self {
        let texts = |field: &str| -> BTreeMap<String, String> {
            let texts = metadata.get(field).and_then(Value::as_object);
            let texts = texts.into_iter().flatten();
            texts
                .filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned())))
                .collect()
        };
        let (labels, annotations) = (texts("labels"), texts("annotations"));
        let uid = metadata.get("uid").and_then(Value::as_str);
        let uid = uid.unwrap_or_default();
        let of_cgroup = annotations.get(STATIC_POD_UID).map_or(uid, String::as_str);
        Self {
            name,
            uid: uid.into(),
            on_node: OnNode {
                node: None,
                uid: of_cgroup.into(),
                is_left_alone: is_left_alone(&labels, &annotations),
            },
            labels,
        }
    }

    /// What stands for its uid, if it has one, and for its name where there are many: a hash of each.
    #[must_use]
    pub fn keys(&self) -> (Option<u64>, u64) {
        let uid = (!self.uid.is_empty()).then(|| pod_key(&self.uid));
        (uid, pod_key(&self.name.name))
    }
}

/// Whether connections of a pod are never split: if it says so, or if another mesh captures them,
/// which would see an endpoint where it expects a Service (the annotations and labels of Istio's
/// sidecars and of its ambient mode, `istio/api/annotation` and `label`).
fn is_left_alone(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> bool {
    let is = |texts: &BTreeMap<String, String>, key: &str, value: &str| {
        texts.get(key).is_some_and(|text| text == value)
    };
    let says_so = is(annotations, SKIP, "true") || is(labels, SKIP, "true");
    let is_captured = annotations.contains_key("sidecar.istio.io/status")
        || is(annotations, "ambient.istio.io/redirection", "enabled")
        || is(labels, "istio.io/dataplane-mode", "ambient");
    says_so || is_captured
}
