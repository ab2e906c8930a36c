//! What the agent keeps of Kubernetes objects: the few fields that splitting needs.
//!
//! [`decode`] takes any object as the API server or a manifest gives it. An object
//! that cannot be read at all is refused here; one whose content asks for something
//! that cannot be done is kept with its refusal, so that its root is known when the
//! refusal is reported.

mod annotation;
mod decode;
pub(crate) mod dns;
pub(crate) mod endpoint_slice;
mod field;
pub(crate) mod gateway;
mod ignored;
pub(crate) mod istio;
mod kind;
pub(crate) mod node;
mod placement;
pub(crate) mod pod;
pub(crate) mod service;
mod timestamp;
pub(crate) mod traffic_split;
mod unknown;
mod weight;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use crate::route::RouteObject;

pub use decode::{DecodeError, Metadata, decode};
pub use endpoint_slice::{AddressFamily, EndpointSlice, SERVICE_NAME, SliceEndpoint, SlicePort};
pub use field::{FieldError, Fields};
pub use gateway::reference_grant::ReferenceGrant;
pub use gateway::{
    CONTROLLER, GatewayRoute, Parent, ParentService, RouteBackend, Rules, Target, UNSUPPORTED,
    Unsupported, is_service_parent,
};
pub use ignored::Ignored;
pub use istio::destination_rule::{DestinationRule, Fate, Impossible, Policy, PolicyNote, Subset};
pub use istio::virtual_service::VirtualService;
pub use kind::{
    Availability, Entry, KINDS_OF_AN_API, Kind, NameRule, Purpose, Resource, StatusForm,
};
pub use node::{Node, ZONE};
pub use placement::{Hints, Placement, Placements};
pub use pod::{OnNode, Pod};
pub use service::{AppProtocol, Service, ServiceKind, ServicePort};
pub use timestamp::Timestamp;
pub use traffic_split::{Backend, ON_NO_ENDPOINTS, Refusal, RefusedSpec, SplitSpec, TrafficSplit};
pub use unknown::Unknown;
pub use weight::{Weight, WeightError};

pub(crate) use decode::{decode_fields, reference_of};
pub(crate) use field::{inert, quoted, shown};

/// Namespace and name: what identifies an object among those of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    /// Namespace; `default` where the manifest gives none, empty for what is in no namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object of any kind, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectReference {
    /// Kind, for example `TrafficSplit`.
    pub kind: String,
    /// Namespace and name.
    pub name: ObjectName,
}

impl ObjectReference {
    /// The object of a kind and name.
    #[must_use]
    pub fn new(kind: Kind, name: ObjectName) -> Self {
        Self {
            kind: kind.name().to_owned(),
            name,
        }
    }

    /// Its kind, if it is one that is read.
    #[must_use]
    pub fn known_kind(&self) -> Option<Kind> {
        Kind::from_name(&self.kind)
    }

    /// Whether it is of a kind.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind.name()
    }
}

impl fmt::Display for ObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What tells an object from others that had its name before, and one state of it from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// `apiVersion` as it was read.
    pub api_version: String,
    /// `metadata.uid`; empty where there is none.
    pub uid: String,
    /// `metadata.generation`, 0 where there is none, or where it does not matter.
    pub generation: i64,
}

/// What stands for the uid or the name of a Pod where there are many: 64 bits of a hash, never 0.
/// Uids are random, and names are compared within one namespace.
#[must_use]
pub(crate) fn pod_key(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish().max(1)
}

/// An object that the agent keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service (`v1`).
    Service(Service),
    /// An EndpointSlice (`discovery.k8s.io/v1`).
    EndpointSlice(EndpointSlice),
    /// A Node (`v1`).
    Node(Node),
    /// A Pod (`v1`).
    Pod(Pod),
    /// A DestinationRule (Istio).
    DestinationRule(Box<DestinationRule>),
    /// A ReferenceGrant (Gateway API).
    ReferenceGrant(ReferenceGrant),
    /// An object that asks for splits, of any API.
    Route(RouteObject),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::SERVICE,
            Self::EndpointSlice(_) => Kind::ENDPOINT_SLICE,
            Self::Node(_) => Kind::NODE,
            Self::Pod(_) => Kind::POD,
            Self::DestinationRule(_) => Kind::DESTINATION_RULE,
            Self::ReferenceGrant(_) => Kind::REFERENCE_GRANT,
            Self::Route(object) => object.kind,
        }
    }

    /// Its namespace and name.
    #[must_use]
    pub const fn name(&self) -> &ObjectName {
        match self {
            Self::Service(object) => &object.name,
            Self::EndpointSlice(object) => &object.name,
            Self::Node(object) => &object.name,
            Self::Pod(object) => &object.name,
            Self::DestinationRule(object) => &object.name,
            Self::ReferenceGrant(object) => &object.name,
            Self::Route(object) => &object.name,
        }
    }

    /// Kind and name, for reports.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference::new(self.kind(), self.name().clone())
    }
}

/// Everything that a source knows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Nodes.
    pub nodes: BTreeMap<ObjectName, Node>,
    /// Pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// DestinationRules.
    pub destination_rules: BTreeMap<ObjectName, DestinationRule>,
    /// ReferenceGrants.
    pub reference_grants: BTreeMap<ObjectName, ReferenceGrant>,
    /// Objects that ask for splits.
    pub routes: BTreeMap<ObjectReference, RouteObject>,
    /// Objects that exist but cannot be read, as their authors have been told. Whoever
    /// refers to one is told that, not that it is missing.
    pub refused: BTreeSet<ObjectReference>,
}

impl Objects {
    /// Whether there is an object of the same kind and name.
    #[must_use]
    pub fn contains(&self, object: &Object) -> bool {
        self.contains_reference(&object.reference())
    }

    /// Whether there is an object of this kind and name that could be read.
    #[must_use]
    pub fn contains_reference(&self, object: &ObjectReference) -> bool {
        let name = &object.name;
        if object.is(Kind::SERVICE) {
            self.services.contains_key(name)
        } else if object.is(Kind::ENDPOINT_SLICE) {
            self.endpoint_slices.contains_key(name)
        } else if object.is(Kind::NODE) {
            self.nodes.contains_key(name)
        } else if object.is(Kind::POD) {
            self.pods.contains_key(name)
        } else if object.is(Kind::DESTINATION_RULE) {
            self.destination_rules.contains_key(name)
        } else if object.is(Kind::REFERENCE_GRANT) {
            self.reference_grants.contains_key(name)
        } else {
            self.routes.contains_key(object)
        }
    }

    /// Every object that could be read.
    pub fn iter(&self) -> impl Iterator<Item = Object> {
        let services = self.services.values().cloned();
        let slices = self.endpoint_slices.values().cloned();
        let nodes = self.nodes.values().cloned();
        let pods = self.pods.values().cloned();
        let rules = self.destination_rules.values().cloned().map(Box::new);
        let grants = self.reference_grants.values().cloned();
        let routes = self.routes.values().cloned();
        services
            .map(Object::Service)
            .chain(slices.map(Object::EndpointSlice))
            .chain(nodes.map(Object::Node))
            .chain(pods.map(Object::Pod))
            .chain(rules.map(Object::DestinationRule))
            .chain(grants.map(Object::ReferenceGrant))
            .chain(routes.map(Object::Route))
    }

    /// Takes out the object of a kind and name; whether it was there.
    pub fn remove(&mut self, object: &ObjectReference) -> bool {
        let name = &object.name;
        if object.is(Kind::SERVICE) {
            self.services.remove(name).is_some()
        } else if object.is(Kind::ENDPOINT_SLICE) {
            self.endpoint_slices.remove(name).is_some()
        } else if object.is(Kind::NODE) {
            self.nodes.remove(name).is_some()
        } else if object.is(Kind::POD) {
            self.pods.remove(name).is_some()
        } else if object.is(Kind::DESTINATION_RULE) {
            self.destination_rules.remove(name).is_some()
        } else if object.is(Kind::REFERENCE_GRANT) {
            self.reference_grants.remove(name).is_some()
        } else {
            self.routes.remove(object).is_some()
        }
    }

    /// Adds an object; gives back the one of the same kind and name that it replaces.
    pub fn insert(&mut self, object: Object) -> Option<Object> {
        let name = object.name().clone();
        match object {
            Object::Service(object) => self.services.insert(name, object).map(Object::Service),
            Object::EndpointSlice(object) => self
                .endpoint_slices
                .insert(name, object)
                .map(Object::EndpointSlice),
            Object::Node(object) => self.nodes.insert(name, object).map(Object::Node),
            Object::Pod(object) => self.pods.insert(name, object).map(Object::Pod),
            Object::DestinationRule(object) => self
                .destination_rules
                .insert(name, *object)
                .map(|object| Object::DestinationRule(Box::new(object))),
            Object::ReferenceGrant(object) => self
                .reference_grants
                .insert(name, object)
                .map(Object::ReferenceGrant),
            Object::Route(object) => self
                .routes
                .insert(object.reference(), object)
                .map(Object::Route),
        }
    }
}
