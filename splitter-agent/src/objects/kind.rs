//! Kinds of objects: what is to be known of each, in one entry.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::field::{FieldError, Fields};
use super::{Metadata, Object};
use crate::kinds;

/// How Kubernetes names a kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// `kind` of its objects.
    pub kind: &'static str,
    /// Its name in URLs and access rules.
    pub plural: &'static str,
    /// Its group; empty for the core of Kubernetes.
    pub group: &'static str,
}

impl Resource {
    /// A version of it as `apiVersion` has it, for example `discovery.k8s.io/v1`.
    #[must_use]
    pub fn api_version_of(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }
}

/// What the agent reads objects of a kind for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They ask for splits. All are followed.
    Route,
    /// Splits depend on them. All are followed.
    Dependency,
    /// Some splits depend on some of them. They are followed in the namespaces where one does.
    OnDemand,
    /// Only the one of the agent's own node is asked for.
    OwnNode,
}

/// Whether a cluster has a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Every cluster has it.
    BuiltIn,
    /// If its CustomResourceDefinition is installed, which may come late, change and go.
    Optional,
}

/// What splitter writes to the status of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusForm {
    /// Nothing.
    None,
    /// All of it: `observedGeneration`, `weights` and `conditions`.
    Own,
    /// Its own entries of `parents`, one for each parent that is a Service; others write there too
    /// (Gateway API, `RouteParentStatus`).
    Parents {
        /// Whether the kind is about requests, of which a connection carries many.
        is_by_request: bool,
    },
    /// Its own entries of `conditions`, whose types have its prefix; others write there too
    /// (Istio, `IstioStatus`).
    SharedConditions,
}

/// What `metadata.name` of a kind may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS label (RFC 1123): at most 63 lower-case letters, digits and inner hyphens.
    Label,
    /// A DNS subdomain (RFC 1123): labels with dots between, at most 253 characters.
    Subdomain,
}

/// How far the [`Entry::precedence`] of kinds of different APIs are apart.
pub const KINDS_OF_AN_API: u8 = 10;

/// What is to be known of a kind. To add one, write its type with its entry, and name the entry in
/// the list of [`kinds`].
#[derive(Debug)]
pub struct Entry {
    /// Its names.
    pub resource: Resource,
    /// The versions that are read, without the group, best first.
    pub versions: &'static [&'static str],
    /// What it is read for.
    pub purpose: Purpose,
    /// Whether every cluster has it.
    pub availability: Availability,
    /// Whether objects are in a namespace.
    pub is_namespaced: bool,
    /// What names of objects may be.
    pub name_rule: NameRule,
    /// What splitter writes to the status, where the version has that subresource.
    pub status: StatusForm,
    /// Of claims of different kinds on one root, those of the kind with the lower number win. Kinds
    /// with the same tens ([`KINDS_OF_AN_API`]) are of one API. 0 for kinds that ask for no splits.
    pub precedence: u8,
    /// Whether an object that loses its root to an older one of the same kind is accepted all the
    /// same, and only not in force; otherwise it is refused.
    pub may_be_superseded: bool,
    /// Whether the group has no other kind, so that another one in a manifest is a slip.
    pub owns_group: bool,
    /// The CustomResourceDefinition that splitter comes with, as YAML.
    pub definition: Option<&'static str>,
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// If the object cannot be read. One that asks for a split and has a name is read whatever
    /// else is wrong with it, so that the other faults are told with its root.
    pub read: fn(Metadata<'_>, &Fields) -> Result<Object, FieldError>,
}

/// A kind of objects that is read: a handle to its [`Entry`]. Kinds are ordered as
/// [`Kind::all`] lists them.
#[derive(Clone, Copy)]
pub struct Kind(&'static Entry);

impl Kind {
    /// The kind of an entry.
    #[must_use]
    pub const fn new(entry: &'static Entry) -> Self {
        Self(entry)
    }

    /// What is to be known of it.
    #[must_use]
    pub const fn entry(self) -> &'static Entry {
        self.0
    }

    /// Every kind that is read.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        kinds::all()
    }

    /// The kinds of which all objects are followed.
    pub fn followed() -> impl Iterator<Item = Self> + Clone {
        Self::all().filter(|kind| matches!(kind.purpose, Purpose::Route | Purpose::Dependency))
    }

    /// The kinds of which it matters how much is known.
    pub fn known() -> impl Iterator<Item = Self> + Clone {
        Self::all().filter(|kind| kind.purpose != Purpose::OwnNode)
    }

    /// The kinds that ask for splits.
    pub fn routes() -> impl Iterator<Item = Self> + Clone {
        Self::all().filter(|kind| kind.is_route())
    }

    /// The kind of a name, as in `kind` of its objects.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }

    /// The kind of an `apiVersion` and a name, in whatever version.
    #[must_use]
    pub fn of(api_version: &str, name: &str) -> Option<Self> {
        let group = group_of(api_version);
        Self::all().find(|kind| kind.name() == name && kind.resource.group == group)
    }

    /// The kind, or that of the items of the list, that an author seems to have meant who wrote its
    /// name beside an `apiVersion` of another group: one that nobody but Kubernetes may define, for
    /// want of a dot, and in which there is no such kind; or one that is almost the kind's own.
    #[must_use]
    pub fn meant_by(api_version: &str, name: &str) -> Option<Self> {
        let group = group_of(api_version).to_ascii_lowercase();
        let name = name.strip_suffix("List").unwrap_or(name);
        let is_slip = |own: &str| {
            !group.contains('.')
                || group.len().abs_diff(own.len()) <= MAX_TYPOS
                    && strsim::osa_distance(&group, own) <= MAX_TYPOS
        };
        Self::all().find(|kind| kind.name() == name && is_slip(kind.resource.group))
    }

    /// Its name, as in `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.resource.kind
    }

    /// Whether splitter writes a status.
    #[must_use]
    pub fn has_status(self) -> bool {
        self.0.status != StatusForm::None
    }

    /// Whether its objects ask for splits.
    #[must_use]
    pub fn is_route(self) -> bool {
        self.0.purpose == Purpose::Route
    }

    /// Its best version as `apiVersion` has it, for example `discovery.k8s.io/v1`.
    #[must_use]
    pub fn api_version(self) -> String {
        self.resource
            .api_version_of(self.0.versions.first().copied().unwrap_or_default())
    }

    /// The name of its CustomResourceDefinition.
    #[must_use]
    pub fn definition_name(self) -> String {
        let Resource { plural, group, .. } = self.0.resource;
        format!("{plural}.{group}")
    }
}

/// How many letters a group may be off to be taken for a misspelling of another.
const MAX_TYPOS: usize = 2;

/// The group of an `apiVersion`; empty for the core of Kubernetes.
pub(super) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl std::ops::Deref for Kind {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.0
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.0.resource == other.0.resource
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.resource.hash(state);
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |kind: &Self| Self::all().position(|candidate| candidate == *kind);
        let name = |kind: &Self| (kind.0.resource.kind, kind.0.resource.group);
        (rank(self).cmp(&rank(other))).then_with(|| name(self).cmp(&name(other)))
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_the_group_is_told_from_a_kind_of_somebody_else() {
        for api_version in [
            "split.smi-spec.io",
            "v1",
            "v1alpha2",
            "Split.smi-spec.io/v1alpha2",
            "splits.smi-spec.io/v1alpha4",
            "split.smi-sepc.io/v1alpha4",
            "split.smi_spec.io/v1alpha4",
            "split/v1alpha4",
        ] {
            for name in ["TrafficSplit", "TrafficSplitList"] {
                assert_eq!(Kind::of(api_version, name), None);
                let meant = Kind::meant_by(api_version, name);
                assert_eq!(meant, Some(Kind::TRAFFIC_SPLIT), "{api_version}");
            }
        }
        let service = Kind::meant_by("apps/v1", "Service");
        assert_eq!(service, Some(Kind::SERVICE));
        for (api_version, name) in [
            ("example.io/v1", "TrafficSplit"),
            ("serving.knative.dev/v1", "Service"),
            ("v1", "ConfigMap"),
            ("split.smi-spec.io", "Split"),
        ] {
            assert_eq!(Kind::meant_by(api_version, name), None, "{api_version}");
        }
        let split = Kind::of("split.smi-spec.io/v9", "TrafficSplit");
        assert_eq!(split, Some(Kind::TRAFFIC_SPLIT));
    }
}
