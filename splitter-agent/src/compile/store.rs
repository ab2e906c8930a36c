//! What is known of the cluster, laid out as the resolver asks for it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::endpoints::LeafEndpoints;
use super::grants::Grants;
use super::knowledge::{Knowledge, KnownKinds};
use super::pods::Pods;
use super::rules::{Chosen, DestinationRules};
use crate::objects::{
    DestinationRule, EndpointSlice, Kind, Node, ObjectName, ObjectReference, Pod, Service,
};
use crate::route::{Destinations, Leaf, Split};

/// Services and EndpointSlices, by what they are asked for.
#[derive(Debug, Default)]
pub(super) struct Store {
    services: HashMap<ObjectName, Service>,
    /// By Service.
    slices: HashMap<ObjectName, Slices>,
    /// Slices that belong to no Service, by namespace.
    stray: HashMap<String, Slices>,
    /// The Service of each slice.
    owners: HashMap<ObjectName, Option<String>>,
    refused: BTreeSet<ObjectReference>,
    kinds: KnownKinds,
    /// Objects of kinds that are not followed of whose deletion the source told nevertheless.
    gone: BTreeSet<ObjectReference>,
    pub(super) destination_rules: DestinationRules,
    pub(super) grants: Grants,
    pub(super) pods: Pods,
    pub(super) cluster_domain: String,
    pub(super) here: Here,
    /// How much is known of the pods of this node, who are the clients that are told apart.
    pub(super) clients: Knowledge,
}

/// The node whose connections are planned.
#[derive(Clone, Debug, Default)]
pub(super) struct Here {
    /// Its name, if the plan is for one node.
    pub(super) node: Option<String>,
    /// Its zone as the administrator says.
    configured_zone: Option<String>,
    /// Its zone as the Node itself says.
    own_zone: Option<String>,
}

impl Here {
    /// Its zone, if that is known.
    pub(super) fn zone(&self) -> Option<&str> {
        let zone = self.configured_zone.as_ref().or(self.own_zone.as_ref());
        zone.map(String::as_str)
    }

    fn is_named(&self, node: &str) -> bool {
        self.node.as_deref() == Some(node)
    }
}

/// EndpointSlices of one namespace in the order of their names. Most Services have one, for
/// which a tree would take the memory of eleven.
#[derive(Clone, Debug, Default)]
struct Slices(Vec<EndpointSlice>);

/// Which roots a change may affect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Affected {
    /// Those that name a Service.
    UsersOf(ObjectName),
    /// All of a namespace.
    Namespace(String),
    /// Those that name any Service of a namespace.
    UsersIn(String),
    /// All.
    Everything,
}

impl Slices {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|slice| slice.name.name.as_str().cmp(name))
    }

    fn get(&self, name: &str) -> Option<&EndpointSlice> {
        self.0.get(self.find(name).ok()?)
    }

    fn insert(&mut self, slice: EndpointSlice) {
        match self.find(&slice.name.name) {
            Ok(index) => self.0[index] = slice,
            Err(index) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(index, slice);
            }
        }
    }

    fn remove(&mut self, name: &str) {
        if let Ok(index) = self.find(name) {
            self.0.remove(index);
        }
    }
}

impl Store {
    /// A store of what is known to a node.
    pub(super) fn new(node: Option<String>, zone: Option<String>, cluster_domain: String) -> Self {
        let here = Here {
            node,
            configured_zone: zone,
            own_zone: None,
        };
        Self {
            here,
            cluster_domain,
            ..Self::default()
        }
    }

    /// A Service by its name.
    pub(super) fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The EndpointSlices of a Service, by name.
    pub(super) fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices
            .get(service)
            .into_iter()
            .flat_map(|slices| &slices.0)
    }

    /// The EndpointSlices of a namespace that belong to no Service.
    pub(super) fn stray_slices(&self, namespace: &str) -> impl Iterator<Item = &EndpointSlice> {
        self.stray
            .get(namespace)
            .into_iter()
            .flat_map(|slices| &slices.0)
    }

    /// Whether a Service of this name exists but cannot be read.
    pub(super) fn is_refused_service(&self, name: &ObjectName) -> bool {
        self.is_refused(&ObjectReference::new(Kind::SERVICE, name.clone()))
    }

    /// Whether an object exists but cannot be read.
    pub(super) fn is_refused(&self, object: &ObjectReference) -> bool {
        self.refused.contains(object)
    }

    /// How much is known of a kind.
    pub(super) fn knowledge(&self, kind: Kind) -> Knowledge {
        self.kinds.of(kind)
    }

    /// Takes note of how much is known of a kind; what was known before.
    pub(super) fn know(&mut self, kind: Kind, knowledge: Knowledge) -> Knowledge {
        if knowledge == Knowledge::Followed {
            self.gone.retain(|object| object.kind != kind.name());
        }
        self.kinds.set(kind, knowledge)
    }

    /// Whether it is known what there is to know of an object that is not in the store: that it
    /// does not exist, or cannot be read.
    pub(super) fn is_settled(&self, kind: Kind, name: &ObjectName) -> bool {
        if self.kinds.is_followed(kind) {
            return true;
        }
        let object = ObjectReference::new(kind, name.clone());
        self.gone.contains(&object) || self.refused.contains(&object)
    }

    /// How much is known of the pods of a namespace.
    pub(super) fn pods_known(&self, namespace: &str) -> Knowledge {
        self.knowledge(Kind::POD)
            .max(self.pods.knowledge(namespace))
    }

    /// The pods of which something changed since the last time, by namespace. Before all pods of a
    /// namespace were told of, none of them changes anything: subsets wait for them all.
    pub(super) fn take_changed_pods(&mut self) -> HashMap<String, HashSet<u64>> {
        let of_kind = self.knowledge(Kind::POD);
        self.pods.take_changed(|pods, namespace| {
            of_kind.max(pods.knowledge(namespace)) > Knowledge::Incomplete
        })
    }

    /// The kind of which an object that was not heard of, or changed since, could turn what a
    /// leaf has to offer into endpoints, or into other endpoints.
    pub(super) fn waits_for(
        &self,
        split: &Split,
        leaf: &Leaf,
        offer: &LeafEndpoints,
    ) -> Option<Kind> {
        if leaf.waits_for.is_some() {
            return leaf.waits_for;
        }
        let service = leaf.service.as_ref()?;
        let waits_for = self.service_waits_for(Some(service), offer);
        if waits_for == Some(Kind::SERVICE) || split.destinations != Destinations::Hosts {
            return waits_for;
        }
        let rules = self.knowledge(Kind::DESTINATION_RULE);
        if rules == Knowledge::Incomplete {
            return Some(Kind::DESTINATION_RULE);
        }
        let pods = match self.chosen(split, leaf) {
            Chosen::All | Chosen::Unknown => Knowledge::Followed,
            Chosen::Labelled(_) => self.pods_known(&service.namespace),
        };
        if pods == Knowledge::Incomplete {
            return Some(Kind::POD);
        }
        if waits_for.is_some() {
            return waits_for;
        }
        // Those that are known are enough; if there are none, there may be some by now.
        let is_empty = leaf.subset.is_some() && offer.endpoints().is_empty();
        if is_empty && rules != Knowledge::Followed {
            Some(Kind::DESTINATION_RULE)
        } else if is_empty && pods != Knowledge::Followed && self.has_usable_endpoints(service) {
            Some(Kind::POD)
        } else {
            None
        }
    }

    /// The same for all of a Service.
    fn service_waits_for(&self, name: Option<&ObjectName>, offer: &LeafEndpoints) -> Option<Kind> {
        // What can never be the name of a Service waits for none.
        let name = name?;
        let unfollowed = |kind| (!self.kinds.is_followed(kind)).then_some(kind);
        match offer {
            LeafEndpoints::NoService | LeafEndpoints::NoPort => unfollowed(Kind::SERVICE),
            LeafEndpoints::NoSubset => None,
            // Once all slices were told of, those that are known are enough.
            LeafEndpoints::Endpoints { .. }
                if !offer.endpoints().is_empty()
                    && self.knowledge(Kind::ENDPOINT_SLICE) >= Knowledge::Stale =>
            {
                None
            }
            LeafEndpoints::NoFamily => {
                unfollowed(Kind::ENDPOINT_SLICE).or_else(|| unfollowed(Kind::SERVICE))
            }
            LeafEndpoints::Endpoints { .. } => unfollowed(Kind::ENDPOINT_SLICE)
                .or_else(|| unfollowed(Kind::SERVICE).filter(|_| self.has_usable_endpoints(name))),
        }
    }

    /// Whether endpoints behind a Service can be used, whatever their ports, addresses and nodes: if
    /// none is offered all the same, the Service may have changed since it was told of.
    fn has_usable_endpoints(&self, service: &ObjectName) -> bool {
        let endpoints = self.slices(service).flat_map(|slice| &slice.endpoints);
        let mut usable = endpoints.map(|endpoint| endpoint.ready || endpoint.serving);
        usable.any(|usable| usable)
    }

    /// An EndpointSlice of a namespace that exists but cannot be read.
    pub(super) fn refused_slice(&self, namespace: &str) -> Option<&ObjectReference> {
        let name = ObjectName::new(namespace, "");
        let first = ObjectReference::new(Kind::ENDPOINT_SLICE, name);
        self.refused
            .range(&first..)
            .next()
            .filter(|object| object.kind == first.kind && object.name.namespace == namespace)
    }

    pub(super) fn put_service(&mut self, service: Service) -> Vec<Affected> {
        if self.services.get(&service.name) == Some(&service) {
            return Vec::new();
        }
        let affected = Affected::UsersOf(service.name.clone());
        self.services.insert(service.name.clone(), service);
        vec![affected]
    }

    /// Takes note of a Node; all but our own are ignored.
    pub(super) fn put_node(&mut self, node: Node) -> Vec<Affected> {
        if self.here.is_named(&node.name.name) {
            self.set_own_zone(node.zone)
        } else {
            Vec::new()
        }
    }

    fn set_own_zone(&mut self, zone: Option<String>) -> Vec<Affected> {
        let before = self.here.zone().map(str::to_owned);
        self.here.own_zone = zone;
        if self.here.zone() == before.as_deref() {
            Vec::new()
        } else {
            vec![Affected::Everything]
        }
    }

    pub(super) fn put_rule(&mut self, rule: DestinationRule) -> Vec<Affected> {
        self.destination_rules.put(rule, &self.cluster_domain)
    }

    /// Takes note of a pod; [`Self::take_changed_pods`] tells what that affects.
    pub(super) fn put_pod(&mut self, pod: &Pod) {
        self.pods.put(pod);
    }

    /// Whether any of these pods is an endpoint of a Service.
    pub(super) fn has_any_of(&self, service: &ObjectName, pods: &HashSet<u64>) -> bool {
        let mut endpoints = self.slices(service).flat_map(|slice| &slice.endpoints);
        endpoints.any(|endpoint| pods.contains(&endpoint.pod))
    }

    pub(super) fn put_slice(&mut self, slice: EndpointSlice) -> Vec<Affected> {
        if self.slice(&slice.name) == Some(&slice) {
            return Vec::new();
        }
        let mut affected = self.remove_slice(&slice.name);
        let namespace = slice.name.namespace.clone();
        self.owners
            .insert(slice.name.clone(), slice.service.clone());
        let new = match &slice.service {
            Some(service) => {
                let service = ObjectName::new(&*namespace, &**service);
                self.slices
                    .entry(service.clone())
                    .or_default()
                    .insert(slice);
                Affected::UsersOf(service)
            }
            None => {
                self.stray
                    .entry(namespace.clone())
                    .or_default()
                    .insert(slice);
                Affected::Namespace(namespace)
            }
        };
        if !affected.contains(&new) {
            affected.push(new);
        }
        affected
    }

    /// Notes that an object exists but cannot be read.
    pub(super) fn refuse(&mut self, object: ObjectReference) -> Vec<Affected> {
        let mut affected = self.remove(&object);
        self.gone.remove(&object);
        if self.refused.insert(object.clone()) {
            affected.extend(refusal_affected(object));
        }
        affected
    }

    /// Forgets an object, and that it could not be read.
    pub(super) fn remove(&mut self, object: &ObjectReference) -> Vec<Affected> {
        let mut affected = self.accept(object);
        let kind = object.known_kind();
        if kind == Some(Kind::SERVICE) {
            let service = self.services.remove(&object.name);
            affected.extend(service.map(|service| Affected::UsersOf(service.name)));
        } else if kind == Some(Kind::ENDPOINT_SLICE) {
            affected.extend(self.remove_slice(&object.name));
        } else if kind == Some(Kind::POD) {
            self.pods.remove(&object.name.namespace, &object.name.name);
        } else if kind == Some(Kind::DESTINATION_RULE) {
            let domain = &self.cluster_domain;
            affected.extend(self.destination_rules.remove(&object.name, domain));
        } else if kind == Some(Kind::REFERENCE_GRANT) {
            affected.extend(self.grants.remove(&object.name));
        } else if kind == Some(Kind::NODE) && self.here.is_named(&object.name.name) {
            affected.extend(self.set_own_zone(None));
        }
        // Of pods it is not known whether their absence matters, and there are many.
        let matters = |kind: Kind| kind != Kind::POD && !self.kinds.is_followed(kind);
        if kind.is_some_and(matters) {
            self.gone.insert(object.clone());
            if kind == Some(Kind::SERVICE) {
                affected.push(Affected::UsersOf(object.name.clone()));
            }
        }
        affected
    }

    /// Forgets that an object could not be read.
    pub(super) fn accept(&mut self, object: &ObjectReference) -> Vec<Affected> {
        self.gone.remove(object);
        let was_refused = self.refused.remove(object);
        let affected = was_refused.then(|| refusal_affected(object.clone()));
        affected.flatten().into_iter().collect()
    }

    /// An EndpointSlice by its name.
    pub(super) fn slice(&self, name: &ObjectName) -> Option<&EndpointSlice> {
        match self.owners.get(name)? {
            Some(service) => {
                let service = ObjectName::new(&*name.namespace, &**service);
                self.slices.get(&service)?.get(&name.name)
            }
            None => self.stray.get(&name.namespace)?.get(&name.name),
        }
    }

    fn remove_slice(&mut self, name: &ObjectName) -> Vec<Affected> {
        let Some(owner) = self.owners.remove(name) else {
            return Vec::new();
        };
        match owner {
            Some(service) => {
                let service = ObjectName::new(&*name.namespace, service);
                if let Some(slices) = self.slices.get_mut(&service) {
                    slices.remove(&name.name);
                    if slices.0.is_empty() {
                        self.slices.remove(&service);
                    }
                }
                vec![Affected::UsersOf(service)]
            }
            None => {
                if let Some(slices) = self.stray.get_mut(&name.namespace) {
                    slices.remove(&name.name);
                    if slices.0.is_empty() {
                        self.stray.remove(&name.namespace);
                    }
                }
                vec![Affected::Namespace(name.namespace.clone())]
            }
        }
    }
}

/// A slice that cannot be read might belong to any Service of its namespace.
fn refusal_affected(object: ObjectReference) -> Option<Affected> {
    if object.is(Kind::SERVICE) {
        Some(Affected::UsersOf(object.name))
    } else if object.is(Kind::ENDPOINT_SLICE) {
        Some(Affected::Namespace(object.name.namespace))
    } else {
        None
    }
}
