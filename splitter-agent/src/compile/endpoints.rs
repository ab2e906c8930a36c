//! What a leaf has to offer to a frontend.

use std::collections::HashMap;
use std::net::SocketAddr;

use splitter_common::layout::{LeafState, Protocol};

use crate::objects::{
    AddressFamily, EndpointSlice, ObjectName, Objects, Service, ServiceKind, ServicePort,
    SliceEndpoint,
};

/// Services and their EndpointSlices, by name.
pub(super) struct Index<'a> {
    objects: &'a Objects,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

/// What a leaf has to offer to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// There is no such Service, or it can have no endpoints.
    NoService,
    /// The Service has no port of the frontend's number and protocol.
    NoPort,
    /// Endpoints, sorted and without duplicates; perhaps none.
    Endpoints {
        /// Their addresses.
        endpoints: Vec<SocketAddr>,
        /// Whether they still serve while they terminate, none being ready.
        terminating: bool,
    },
}

impl<'a> Index<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for slice in objects.endpoint_slices.values() {
            if let Some(service) = &slice.service {
                slices
                    .entry((slice.name.namespace.as_str(), service.as_str()))
                    .or_default()
                    .push(slice);
            }
        }
        Self { objects, slices }
    }

    /// A Service by its name.
    pub(super) fn service(&self, name: &ObjectName) -> Option<&'a Service> {
        self.objects.services.get(name)
    }

    /// What a Service has to offer to a frontend of this port and family. It is asked
    /// for its endpoints only, never for a split of its own, so that nothing can recur.
    pub(super) fn offer(
        &self,
        service: Option<&ObjectName>,
        port: u16,
        protocol: Protocol,
        family: AddressFamily,
    ) -> Offer {
        let service = service
            .and_then(|name| self.service(name))
            .filter(|service| service.kind != ServiceKind::ExternalName);
        let Some(service) = service else {
            return Offer::NoService;
        };
        let Some(port) = service.port(port, protocol) else {
            return Offer::NoPort;
        };
        let ready = self.endpoints(service, port, family, |endpoint| endpoint.ready);
        if !ready.is_empty() {
            return Offer::Endpoints {
                endpoints: ready,
                terminating: false,
            };
        }
        // As kube-proxy does: better those that are about to go than none at all.
        let terminating = self.endpoints(service, port, family, |endpoint| {
            endpoint.serving && endpoint.terminating
        });
        Offer::Endpoints {
            terminating: !terminating.is_empty(),
            endpoints: terminating,
        }
    }

    /// The endpoints behind a port of a Service. Each slice says by itself which number
    /// the port has at its endpoints: a named target port may differ between pods.
    fn endpoints(
        &self,
        service: &Service,
        port: &ServicePort,
        family: AddressFamily,
        wanted: impl Fn(&SliceEndpoint) -> bool,
    ) -> Vec<SocketAddr> {
        let name = (service.name.namespace.as_str(), service.name.name.as_str());
        let slices = self.slices.get(&name).map_or(&[][..], Vec::as_slice);
        let mut endpoints = Vec::new();
        for slice in slices {
            if slice.address_family != Some(family) {
                continue;
            }
            for slice_port in &slice.ports {
                if slice_port.name != port.name || slice_port.protocol != port.protocol {
                    continue;
                }
                endpoints.extend(
                    slice
                        .endpoints
                        .iter()
                        .filter(|endpoint| wanted(endpoint))
                        .flat_map(|endpoint| &endpoint.addresses)
                        .map(|address| SocketAddr::new(*address, slice_port.port)),
                );
            }
        }
        // A pod that moves between slices is in both for a moment.
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    }
}

impl Offer {
    /// The state of a leaf with a weight above 0 and this offer.
    pub(super) fn state(&self) -> LeafState {
        match self {
            Self::NoService => LeafState::ServiceMissing,
            Self::NoPort => LeafState::PortMissing,
            Self::Endpoints { endpoints, .. } if endpoints.is_empty() => {
                LeafState::NoReadyEndpoints
            }
            Self::Endpoints {
                terminating: true, ..
            } => LeafState::Terminating,
            Self::Endpoints { .. } => LeafState::Ready,
        }
    }

    /// The endpoints.
    pub(super) fn into_endpoints(self) -> Vec<SocketAddr> {
        match self {
            Self::NoService | Self::NoPort => Vec::new(),
            Self::Endpoints { endpoints, .. } => endpoints,
        }
    }
}
