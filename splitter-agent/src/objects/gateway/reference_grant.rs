//! ReferenceGrants: which objects of other namespaces may refer to those of a namespace
//! (`gateway.networking.k8s.io`, GEP-709). Read only where they are required: GEP-1294 has none for
//! routes on Services.

use super::GROUP;
use crate::objects::field::{self, FieldError, Fields};
use crate::objects::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use crate::objects::{Kind, Metadata, Object, ObjectName};

/// The kind of ReferenceGrants.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "ReferenceGrant",
        plural: "referencegrants",
        group: GROUP,
    },
    versions: &["v1", "v1beta1"],
    purpose: Purpose::Dependency,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::None,
    precedence: 0,
    may_be_superseded: false,
    owns_group: false,
    definition: None,
    read: |metadata, object| ReferenceGrant::read(metadata, object).map(Object::ReferenceGrant),
};

/// What the agent keeps of a ReferenceGrant: as far as it is about Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Namespace and name.
    pub name: ObjectName,
    /// Who may refer to them: objects of a kind, its group and a namespace.
    from: Box<[(String, String, String)]>,
    /// The names of the Services; `None` for all.
    to: Box<[Option<String>]>,
}

impl ReferenceGrant {
    fn read(metadata: Metadata<'_>, object: &Fields) -> Result<Self, FieldError> {
        let no_spec = Fields::new();
        let spec = field::object(object, "spec")?.unwrap_or(&no_spec);
        let read = || -> Result<_, FieldError> {
            let from = field::each(spec, "from", |item| {
                let fields = field::as_object(item)?;
                let text = |name| field::text(fields, name).map(Option::unwrap_or_default);
                let (group, kind, namespace) = (text("group")?, text("kind")?, text("namespace")?);
                Ok((group.to_owned(), kind.to_owned(), namespace.to_owned()))
            })?;
            let to = field::each(spec, "to", |item| {
                let fields = field::as_object(item)?;
                let text = |name| field::text(fields, name).map(Option::unwrap_or_default);
                let is_service =
                    matches!(text("group")?, "" | "core") && text("kind")? == Kind::SERVICE.name();
                let name = text("name")?;
                let name = (!name.is_empty()).then(|| name.to_owned());
                Ok(is_service.then_some(name))
            })?;
            Ok((from, to))
        };
        let (from, to) = read().map_err(|error| error.below("spec"))?;
        Ok(Self {
            name: metadata.name,
            from: from.into(),
            to: to.into_iter().flatten().collect(),
        })
    }

    /// Whether objects of a kind and namespace may refer to a Service of the grant's own namespace.
    #[must_use]
    pub fn permits(&self, kind: Kind, namespace: &str, service: &str) -> bool {
        let group = kind.resource.group;
        let mut from = self.from.iter();
        let is_from = from.any(|(of_group, of_kind, of_namespace)| {
            of_group == group && of_kind == kind.name() && of_namespace == namespace
        });
        let is_to = |name: &Option<String>| name.as_ref().is_none_or(|name| name == service);
        is_from && self.to.iter().any(is_to)
    }
}
