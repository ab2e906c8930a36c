//! Pods: their labels, by which subsets choose endpoints. Of a Pod nothing but its metadata is ever
//! asked for.

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

/// The metadata of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty where there is none.
    pub uid: Box<str>,
    /// Its labels; what cannot be one is left out.
    pub labels: BTreeMap<String, String>,
}

impl Pod {
    #[allow(
        clippy::unnecessary_wraps,
        clippy::needless_pass_by_value,
        reason = "the form of every kind"
    )]
    fn read(metadata: Metadata<'_>, _: &Fields) -> Result<Self, FieldError> {
        let fields = metadata.fields;
        Ok(Self::with_name(metadata.name, fields))
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
        let labels = metadata.get("labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let uid = metadata.get("uid").and_then(Value::as_str);
        Self {
            name,
            uid: uid.unwrap_or_default().into(),
            labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
        }
    }

    /// What stands for its uid, if it has one, and for its name where there are many: a hash of each.
    #[must_use]
    pub fn keys(&self) -> (Option<u64>, u64) {
        let uid = (!self.uid.is_empty()).then(|| pod_key(&self.uid));
        (uid, pod_key(&self.name.name))
    }
}
