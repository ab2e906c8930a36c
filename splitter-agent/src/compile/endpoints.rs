//! What a leaf has to offer to a frontend.
//!
//! Which endpoints a node uses follows kube-proxy (`CategorizeEndpoints`,
//! `topologyModeFromHints` in its `topology.go`, Kubernetes 1.34), for each leaf by itself:
//! with `internalTrafficPolicy: Local` those of the node, else those that are hinted for the
//! node or its zone, if every ready endpoint has such a hint and one of them is for it.

use std::net::SocketAddr;

use splitter_common::layout::{LeafState, Protocol};

use super::pods;
use super::store::Store;
use crate::objects::{
    AddressFamily, EndpointSlice, Hints, ObjectName, Service, ServiceKind, ServicePort,
    SliceEndpoint, SlicePort,
};

/// What a leaf has to offer to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeafEndpoints {
    /// There is no such Service, or it can have no endpoints.
    NoService,
    /// The Service has no port of the frontend's number and protocol.
    NoPort,
    /// The Service has no addresses of the frontend's family.
    NoFamily,
    /// Nobody says what the subset is.
    NoSubset,
    /// Endpoints, sorted and without duplicates; perhaps none.
    Endpoints {
        /// Those that connections from here are sent to.
        here: Found,
        /// Those of all nodes, if they are others.
        everywhere: Option<Found>,
    },
}

/// Endpoints of one kind, sorted and without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Their addresses.
    endpoints: Vec<SocketAddr>,
    /// Whether they still serve while they terminate, none being ready.
    terminating: bool,
}

/// What a frontend asks a leaf for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Number of the port.
    pub(super) port: u16,
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// Family of the frontend's address.
    pub(super) family: AddressFamily,
    /// Whether the root wants endpoints of its client's node only.
    pub(super) is_node_local: bool,
}

/// Which of the endpoints of a Service are wanted.
pub(super) enum Filter {
    /// All.
    None,
    /// Those of some pods.
    Pods(pods::Wanted),
    /// A subset that nobody defines.
    Unknown,
}

impl Store {
    /// Whether a Service has addresses of a family, ready or not: of its own or behind it.
    /// One of which no address is known at all may have them.
    pub(super) fn has_family(&self, service: &Service, family: AddressFamily) -> bool {
        let mut slices = self.slices(&service.name).peekable();
        let mut own = service.cluster_ips.iter().map(AddressFamily::of);
        slices.peek().is_none() && service.cluster_ips.is_empty()
            || slices.any(|slice| slice.address_family == Some(family))
            || own.any(|own| own == family)
    }

    /// What a Service has to offer to a frontend of this port and family. It is asked
    /// for its endpoints only, never for a split of its own, so that nothing can recur.
    pub(super) fn offer(
        &self,
        service: Option<&ObjectName>,
        filter: &Filter,
        wanted: Wanted,
    ) -> LeafEndpoints {
        let family = wanted.family;
        let service = service
            .and_then(|name| self.service(name))
            .filter(|service| service.kind != ServiceKind::ExternalName);
        let Some(service) = service else {
            return LeafEndpoints::NoService;
        };
        let Some(port) = service.port(wanted.port, wanted.protocol) else {
            return LeafEndpoints::NoPort;
        };
        if !self.has_family(service, family) {
            return LeafEndpoints::NoFamily;
        }
        let pods = match filter {
            Filter::None => None,
            Filter::Pods(pods) => Some(pods),
            Filter::Unknown => return LeafEndpoints::NoSubset,
        };
        let behind = Behind {
            store: self,
            service,
            port,
            family,
            pods,
        };
        let everywhere = behind.usable(|_, _| true);
        let nearer = match &self.here.node {
            Some(node) if wanted.is_node_local || service.is_node_local => {
                Some(behind.usable(|slice, endpoint| is_on(slice, endpoint, node)))
            }
            // None is ready, and those that terminate are used wherever they are.
            _ if everywhere.terminating => None,
            node => behind.nearest(node.as_deref(), self.here.zone()),
        };
        match nearer {
            Some(here) if here != everywhere => LeafEndpoints::Endpoints {
                here,
                everywhere: Some(everywhere),
            },
            _ => LeafEndpoints::Endpoints {
                here: everywhere,
                everywhere: None,
            },
        }
    }
}

/// What is behind one port of a Service.
struct Behind<'a> {
    store: &'a Store,
    service: &'a Service,
    port: &'a ServicePort,
    family: AddressFamily,
    /// What the pods of endpoints must have.
    pods: Option<&'a pods::Wanted>,
}

impl<'a> Behind<'a> {
    /// Whether an endpoint is one of those that are meant.
    fn is_meant(&self, endpoint: &SliceEndpoint) -> bool {
        self.pods.is_none_or(|wanted| {
            let namespace = &self.service.name.namespace;
            self.store.pods.has(namespace, endpoint.pod, wanted)
        })
    }

    /// Those of some endpoints that can be used.
    fn usable(&self, is_one: impl Fn(&EndpointSlice, &SliceEndpoint) -> bool) -> Found {
        let ready = self.endpoints(|slice, endpoint| endpoint.ready && is_one(slice, endpoint));
        if !ready.is_empty() {
            return Found {
                endpoints: ready,
                terminating: false,
            };
        }
        // As kube-proxy does: better those that are about to go than none at all.
        let endpoints = self.endpoints(|slice, endpoint| {
            endpoint.serving && endpoint.terminating && is_one(slice, endpoint)
        });
        Found {
            terminating: !endpoints.is_empty(),
            endpoints,
        }
    }

    /// The ready endpoints that are hinted for a node or else for a zone; `None` if there are
    /// no hints, or they do not count.
    fn nearest(&self, node: Option<&str>, zone: Option<&str>) -> Option<Found> {
        let mut slices = self.slices().map(|(slice, _)| slice);
        if !slices.any(|slice| slice.placements.have_hints()) {
            return None;
        }
        self.hinted(|hints| &hints.nodes, node)
            .or_else(|| self.hinted(|hints| &hints.zones, zone))
    }

    /// The ready endpoints with a hint of this name; `None` if there are none, or one of the
    /// others has no hint of the sort.
    fn hinted(&self, names: impl Fn(&Hints) -> &[Box<str>], name: Option<&str>) -> Option<Found> {
        let name = name?;
        let has_name =
            |slice: &EndpointSlice, endpoint: &SliceEndpoint, is_it: &dyn Fn(&str) -> bool| {
                let hints = slice.placements.hints(endpoint.placement);
                hints.is_some_and(|hints| names(hints).iter().any(|name| is_it(name)))
            };
        let all_have_one = self
            .slices()
            .flat_map(|(slice, _)| {
                slice
                    .endpoints
                    .iter()
                    .map(move |endpoint| (slice, endpoint))
            })
            .filter(|(_, endpoint)| endpoint.ready && self.is_meant(endpoint))
            .all(|(slice, endpoint)| has_name(slice, endpoint, &|_| true));
        if !all_have_one {
            return None;
        }
        let hinted = self.endpoints(|slice, endpoint| {
            endpoint.ready && has_name(slice, endpoint, &|hint| hint == name)
        });
        (!hinted.is_empty()).then_some(Found {
            endpoints: hinted,
            terminating: false,
        })
    }

    /// The slices of the family that have the port, each with its number there. A slice says
    /// that by itself: a named target port may differ between pods.
    fn slices(&self) -> impl Iterator<Item = (&'a EndpointSlice, u16)> {
        let (family, port) = (self.family, self.port);
        self.store
            .slices(&self.service.name)
            .filter(move |slice| slice.address_family == Some(family))
            .flat_map(move |slice| {
                let ports = slice.ports.iter();
                ports
                    .filter(move |slice_port| is_same_port(slice_port, port))
                    .map(move |slice_port| (slice, slice_port.port))
            })
    }

    /// Some of the endpoints.
    fn endpoints(
        &self,
        is_one: impl Fn(&EndpointSlice, &SliceEndpoint) -> bool,
    ) -> Vec<SocketAddr> {
        let mut endpoints = Vec::new();
        for (slice, port) in self.slices() {
            let found = slice.endpoints.iter();
            endpoints.extend(
                found
                    .filter(|endpoint| is_one(slice, endpoint) && self.is_meant(endpoint))
                    .map(|endpoint| SocketAddr::new(endpoint.address, port)),
            );
        }
        // A pod that moves between slices is in both for a moment.
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    }
}

/// Whether an endpoint is known to be on a node.
fn is_on(slice: &EndpointSlice, endpoint: &SliceEndpoint, node: &str) -> bool {
    slice.placements.node(endpoint.placement) == Some(node)
}

/// Whether a slice's port stands for a port of the Service.
pub(super) fn is_same_port(slice_port: &SlicePort, port: &ServicePort) -> bool {
    slice_port.name == port.name && slice_port.protocol == port.protocol
}

impl LeafEndpoints {
    /// The state of a leaf with a weight above 0 and this offer.
    pub(super) fn state(&self) -> LeafState {
        match self {
            Self::NoService => LeafState::ServiceMissing,
            Self::NoPort => LeafState::PortMissing,
            Self::NoFamily => LeafState::FamilyMissing,
            Self::NoSubset => LeafState::NoReadyEndpoints,
            Self::Endpoints { here, .. } => here.state(),
        }
    }

    /// The same offer to a client that may use the endpoints of every node.
    pub(super) fn everywhere(&self) -> Self {
        match self {
            Self::Endpoints {
                everywhere: Some(everywhere),
                ..
            } => Self::Endpoints {
                here: everywhere.clone(),
                everywhere: None,
            },
            other => other.clone(),
        }
    }

    /// Whether it depends on the node.
    pub(super) fn is_of_this_node(&self) -> bool {
        matches!(self, Self::Endpoints { everywhere, .. } if everywhere.is_some())
    }

    /// The endpoints.
    pub(super) fn endpoints(&self) -> &[SocketAddr] {
        match self {
            Self::NoService | Self::NoPort | Self::NoFamily | Self::NoSubset => &[],
            Self::Endpoints { here, .. } => &here.endpoints,
        }
    }

    /// The endpoints.
    pub(super) fn into_endpoints(self) -> Vec<SocketAddr> {
        match self {
            Self::NoService | Self::NoPort | Self::NoFamily | Self::NoSubset => Vec::new(),
            Self::Endpoints { here, .. } => here.endpoints,
        }
    }
}

impl Found {
    fn state(&self) -> LeafState {
        match (self.endpoints.is_empty(), self.terminating) {
            (true, _) => LeafState::NoReadyEndpoints,
            (false, true) => LeafState::Terminating,
            (false, false) => LeafState::Ready,
        }
    }
}
