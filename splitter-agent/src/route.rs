//! What objects ask for, whatever API they are of: the neutral form that every API is translated
//! to, and that the compiler keeps.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use splitter_common::layout::Protocol;

use crate::compile::Diagnostics;
use crate::objects::{
    AppProtocol, Identity, KINDS_OF_AN_API, Kind, ObjectName, ObjectReference, ServicePort,
    Timestamp, Weight,
};
use crate::plan::{Frontend, Origin};

/// An object that asks for splits, as it was read.
#[derive(Clone, Debug)]
pub struct RouteObject {
    /// Its kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: ObjectName,
    /// Which state of which object it is.
    pub identity: Identity,
    /// When it was created; `None` where a manifest does not say so.
    pub created: Option<Timestamp>,
    /// What it says, in the form of its API.
    pub content: Arc<dyn Translate>,
}

impl RouteObject {
    /// The object, as reports name it.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference::new(self.kind, self.name.clone())
    }

    /// What it says, if it is of this API.
    #[must_use]
    pub fn content_as<T: Translate>(&self) -> Option<&T> {
        let content: &dyn Any = &*self.content;
        content.downcast_ref()
    }

    /// The object, as the origin of what it asks for.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            kind: self.kind.name(),
            namespace: self.name.namespace.clone(),
            name: self.name.name.clone(),
            generation: self.identity.generation,
        }
    }
}

impl PartialEq for RouteObject {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.name == other.name
            && self.identity == other.identity
            && self.created == other.created
            && self.content.is_equal(&*other.content)
    }
}

impl Eq for RouteObject {}

/// What a translation may depend on beside the object.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The DNS domain of the cluster.
    pub cluster_domain: &'a str,
    /// Whether ReferenceGrants are required.
    pub requires_grants: bool,
    /// The other objects of its kind.
    pub others: &'a dyn Others,
}

/// The objects that ask for splits, as far as one uses the rules of another (Istio's delegates).
pub trait Others: fmt::Debug {
    /// An object whose rules another one asks for.
    fn delegate(&self, object: &ObjectReference) -> Delegate<'_>;

    /// The objects that name this one as their delegate, in order.
    fn users_of(&self, object: &ObjectReference) -> Vec<ObjectReference>;

    /// Whether what was not heard of does not exist, of this kind.
    fn is_followed(&self, kind: Kind) -> bool;
}

/// What an object is whose rules another one asks for.
#[derive(Clone, Copy, Debug)]
pub enum Delegate<'a> {
    /// This one, which is there for others.
    Found(&'a RouteObject),
    /// One that asks for splits itself.
    NotForOthers,
    /// One that cannot be read.
    Unreadable,
    /// There is none.
    Missing,
    /// None was heard of, and its kind is not followed.
    NotKnownYet,
}

/// The content of an object that asks for splits, in the form of its API.
pub trait Translate: fmt::Debug + Send + Sync + Any {
    /// The claims of the object; one whose split is refused is kept without it. Tells what is
    /// wrong. No claims if not even the root is known.
    fn translate(
        &self,
        object: &RouteObject,
        context: Context<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Claim>;

    /// The objects whose rules it asks for.
    fn delegates(&self) -> Vec<ObjectReference> {
        Vec::new()
    }

    /// Whether it asks for nothing itself, and its rules are for others to use.
    fn is_delegate(&self) -> bool {
        false
    }

    /// The same with the rules of its delegates in their places; `None` if it has no delegates.
    fn merged(&self, object: &RouteObject, context: Context<'_>) -> Option<Arc<dyn Translate>> {
        let _ = (object, context);
        None
    }

    /// Whether it is for splitter at all: of one that is not, nothing is said.
    fn is_for_splitter(&self) -> bool {
        true
    }

    /// The weights for one line, for example `web-v1:90,web-v2:10`; empty if they cannot be read.
    fn weights(&self) -> String;

    /// The roots as the object writes them.
    fn written_roots(&self) -> Vec<&str>;

    /// What can be judged of it although it is refused; `None` if nothing is refused, or nothing
    /// is left.
    fn without_refusals(&self) -> Option<Arc<dyn Translate>> {
        None
    }

    /// Whether another content says the same.
    fn is_equal(&self, other: &dyn Translate) -> bool;
}

/// Whether two contents are of one type and equal, for [`Translate::is_equal`].
pub fn is_equal<T: Translate + PartialEq>(one: &T, other: &dyn Translate) -> bool {
    let other: &dyn Any = other;
    other.downcast_ref() == Some(one)
}

/// What an object asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The object.
    pub object: ObjectReference,
    /// Which state of the object it is.
    pub identity: Identity,
    /// Its claims, any number of them.
    pub claims: Vec<Claim>,
    /// The weights for one line.
    pub weights: Box<str>,
    /// Whether it is for splitter at all.
    pub is_for_splitter: bool,
}

impl Route {
    /// Translates an object.
    pub fn translate(
        object: &RouteObject,
        context: Context<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut own = Diagnostics::default();
        let merged = object.content.merged(object, context);
        let content = merged.as_ref().unwrap_or(&object.content);
        let claims = content.translate(object, context, &mut own);
        diagnostics.append_some(own);
        Self {
            object: object.reference(),
            identity: object.identity.clone(),
            claims,
            weights: content.weights().into(),
            is_for_splitter: object.content.is_for_splitter(),
        }
    }
}

/// What an object asks of a root.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The object.
    pub origin: Origin,
    /// The object's [`Entry::precedence`](crate::objects::Entry::precedence).
    pub precedence: u8,
    /// When the object was created. Of two claims of one precedence on one root the older one
    /// wins.
    pub created: Option<Timestamp>,
    /// The root Service.
    pub root: ObjectName,
    /// The field that names the root.
    pub root_field: String,
    /// The ports of the root that it is about.
    pub ports: Ports,
    /// The field that names them, if it is not that of the root.
    pub ports_field: Option<Box<str>>,
    /// Ports of the root about which the object has several rules, of which it is not known which one
    /// holds there. Stands in the first claim of an object on a root.
    pub ambiguous: Option<Box<Ports>>,
    /// Whose connections it is about.
    pub clients: Clients,
    /// What it asks for; `None` if it was refused. The claim stays, so that whoever asks
    /// why the root is not split can be told.
    pub split: Option<Split>,
    /// The kind of which an object that was not heard of decides what it asks for. It has no split
    /// until then.
    pub waits_for: Option<Kind>,
}

/// Ports of a root: those that meet every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Their numbers, whatever their protocol; `None` for any.
    pub numbers: Option<BTreeSet<u16>>,
    /// Numbers that they do not have.
    pub other_than: BTreeSet<u16>,
    /// Their name; `None` for any.
    pub name: Option<String>,
    /// What is spoken there; `None` for anything.
    pub protocols: Option<BTreeSet<AppProtocol>>,
    /// Their transport protocol; `None` for any.
    pub transport: Option<Protocol>,
}

impl Ports {
    /// All of them.
    pub const ALL: Self = Self {
        numbers: None,
        other_than: BTreeSet::new(),
        name: None,
        protocols: None,
        transport: None,
    };

    /// The port of this number alone.
    #[must_use]
    pub fn one(port: u16) -> Self {
        Self {
            numbers: Some(BTreeSet::from([port])),
            ..Self::ALL
        }
    }

    /// Whether they are all ports of any Service, of a transport protocol if need be.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.numbers.is_none()
            && self.other_than.is_empty()
            && self.name.is_none()
            && self.protocols.is_none()
    }

    /// Whether a port is among them.
    #[must_use]
    pub fn covers(&self, port: &ServicePort) -> bool {
        let Self {
            numbers,
            other_than,
            name,
            protocols,
            transport,
        } = self;
        let is_number = |numbers: &BTreeSet<u16>| numbers.contains(&port.port);
        let is_spoken = |spoken: &BTreeSet<AppProtocol>| spoken.contains(&port.app_protocol);
        numbers.as_ref().is_none_or(is_number)
            && !other_than.contains(&port.port)
            && name.as_ref().is_none_or(|name| *name == port.name)
            && protocols.as_ref().is_none_or(is_spoken)
            && transport.is_none_or(|transport| transport == port.protocol)
    }

    /// Whether every port of another claim is among them, whatever ports the root has.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        covers(&self.numbers, &other.numbers)
            && covers(&self.protocols, &other.protocols)
            && self.leave_out_no_more_than(other)
            && (self.name.is_none() || self.name == other.name)
            && (self.transport.is_none() || self.transport == other.transport)
    }

    /// Whether the numbers that are left out are none of the others'.
    fn leave_out_no_more_than(&self, other: &Self) -> bool {
        let is_left_out = |number: &u16| {
            let numbers = other.numbers.as_ref();
            other.other_than.contains(number) || numbers.is_some_and(|it| !it.contains(number))
        };
        self.other_than.iter().all(is_left_out)
    }
}

/// Whether one condition, where `None` is none, lets everything pass that the other does.
fn covers<T: Ord>(one: &Option<BTreeSet<T>>, other: &Option<BTreeSet<T>>) -> bool {
    match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => other.is_subset(one),
    }
}

/// A split of a root.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The field that lists the leaves.
    pub leaves_field: String,
    /// Its leaves, each once. None means that every connection is refused.
    pub leaves: Vec<Leaf>,
    /// What becomes of the share of a leaf without a ready endpoint.
    pub unready_share: UnreadyShare,
    /// What its leaves are.
    pub destinations: Destinations,
}

/// What the leaves of a split are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destinations {
    /// Services, and nothing but Services.
    #[default]
    Services,
    /// The same; those of another namespace than the object's have to permit it (ReferenceGrant).
    GrantedServices,
    /// Hosts, as Istio has them. DestinationRules apply to them, and one that names no port means the
    /// only one that its Service has, if it has only one.
    Hosts,
}

/// Whose connections a claim is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Everyone's.
    Everyone,
    /// Those of some pods.
    Some(ClientSelector),
}

impl Clients {
    /// The pods of some selector; everyone if it has no condition.
    #[must_use]
    pub fn of(selector: ClientSelector) -> Self {
        if selector == ClientSelector::default() {
            Self::Everyone
        } else {
            Self::Some(selector)
        }
    }

    /// Which pods these are; `None` for everyone.
    #[must_use]
    pub const fn selector(&self) -> Option<&ClientSelector> {
        match self {
            Self::Everyone => None,
            Self::Some(selector) => Some(selector),
        }
    }

    /// Whether all the others are among them, whatever pods there are.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everyone, _) => true,
            (Self::Some(_), Self::Everyone) => false,
            (Self::Some(selector), Self::Some(other)) => selector.covers(other),
        }
    }
}

/// Pods that connect: those that meet every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientSelector {
    /// Their namespaces; `None` for any.
    pub namespaces: Option<BTreeSet<String>>,
    /// Labels that they have.
    pub labels: BTreeMap<String, String>,
    /// Whether the claim comes before those for any other clients, as a consumer route does
    /// (GEP-1294).
    pub is_consumer: bool,
}

impl ClientSelector {
    /// Whether a pod is among them.
    #[must_use]
    pub fn matches(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let Self {
            namespaces,
            labels: wanted,
            is_consumer: _,
        } = self;
        namespaces
            .as_ref()
            .is_none_or(|namespaces| namespaces.contains(namespace))
            && wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether every pod that matches the other one matches this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let has = |(key, value): (&String, &String)| other.labels.get(key) == Some(value);
        covers(&self.namespaces, &other.namespaces) && self.labels.iter().all(has)
    }
}

/// For people, for example `namespace team-a, app=web`.
impl fmt::Display for ClientSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(namespaces) = &self.namespaces {
            let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
            parts.push(format!("namespace {}", names.join("|")));
        }
        let labels = self.labels.iter();
        parts.extend(labels.map(|(key, value)| format!("{key}={value}")));
        f.write_str(&parts.join(", "))
    }
}

/// What becomes of the share of a leaf without a ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadyShare {
    /// The other leaves share it in proportion; while none with a weight above 0 has a ready
    /// endpoint, this happens to every connection.
    GivenAway(OnNoEndpoints),
    /// Its connections are refused.
    Refused,
}

/// What becomes of a connection that no leaf can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNoEndpoints {
    /// It is refused, as kube-proxy refuses what is sent to a Service without endpoints.
    #[default]
    Refuse,
    /// It goes to the root, as without a split.
    PassThrough,
}

/// A leaf of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Its name, for reports.
    pub name: String,
    /// Its Service; `None` if the name can never be one, which its author has been told.
    pub service: Option<ObjectName>,
    /// The port of its Service; `None` for the number that the client dials.
    pub port: Option<u16>,
    /// The name of the subset of its Service's endpoints; `None` for all of them.
    pub subset: Option<String>,
    /// The kind of which an object that was not heard of decides whether it may have its Service.
    pub waits_for: Option<Kind>,
    /// Its weight.
    pub weight: Weight,
    /// The field that is the leaf.
    pub field: String,
}

impl Leaf {
    /// The port of its Service for connections to a frontend.
    #[must_use]
    pub fn port_for(&self, frontend: Frontend) -> u16 {
        self.port.unwrap_or(frontend.address.port())
    }
}

impl Claim {
    /// The field that names the ports of the root that it is about.
    #[must_use]
    pub fn ports_field(&self) -> &str {
        self.ports_field.as_deref().unwrap_or(&self.root_field)
    }

    /// Whether it asks for a split, which may not be known yet; otherwise it was refused.
    #[must_use]
    pub const fn asks(&self) -> bool {
        self.split.is_some() || self.waits_for.is_some()
    }

    /// Which API its object is of: the lower number comes first.
    #[must_use]
    pub fn api(&self) -> u8 {
        self.precedence / KINDS_OF_AN_API
    }

    /// Which of two claims comes first: that of the kind that takes precedence, then the older
    /// one, those of unknown age last, and then by name. The same on every node.
    #[must_use]
    pub fn by_seniority(&self, other: &Self) -> Ordering {
        let unknown = |claim: &Self| claim.created.is_none();
        self.precedence
            .cmp(&other.precedence)
            .then_with(|| unknown(self).cmp(&unknown(other)))
            .then_with(|| self.created.cmp(&other.created))
            .then_with(|| self.origin.namespace.cmp(&other.origin.namespace))
            .then_with(|| self.origin.name.cmp(&other.origin.name))
            .then_with(|| self.origin.kind.cmp(other.origin.kind))
    }
}

/// The weights for people: times the power of ten that makes all of them whole or, where the
/// largest would not fit then, the largest power with which it fits. Only 0 is shown as 0.
#[must_use]
pub fn display_weights(leaves: &[Leaf]) -> Vec<u64> {
    const NANOS: u128 = 1_000_000_000;
    let mut unit = NANOS;
    while unit > 1
        && leaves
            .iter()
            .any(|leaf| !leaf.weight.nanos().is_multiple_of(unit))
    {
        unit /= 10;
    }
    let largest = leaves.iter().map(|leaf| leaf.weight.nanos()).max();
    while largest.is_some_and(|largest| largest / unit > u64::MAX.into()) {
        unit *= 10;
    }
    leaves
        .iter()
        .map(|leaf| {
            let shown = (leaf.weight.nanos() / unit).max((!leaf.weight.is_zero()).into());
            u64::try_from(shown).unwrap_or(u64::MAX)
        })
        .collect()
}
