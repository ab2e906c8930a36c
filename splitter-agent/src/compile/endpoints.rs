//! What a leaf has to offer to a frontend.

use std::net::SocketAddr;

use splitter_common::layout::{LeafState, Protocol};

use super::store::Store;
use crate::objects::{
    AddressFamily, ObjectName, Service, ServiceKind, ServicePort, SliceEndpoint, SlicePort,
};

/// What a leaf has to offer to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// There is no such Service, or it can have no endpoints.
    NoService,
    /// The Service has no port of the frontend's number and protocol.
    NoPort,
    /// The Service has no addresses of the frontend's family.
    NoFamily,
    /// Endpoints, sorted and without duplicates; perhaps none.
    Endpoints {
        /// Their addresses.
        endpoints: Vec<SocketAddr>,
        /// Whether they still serve while they terminate, none being ready.
        terminating: bool,
    },
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
        if !self.has_family(service, family) {
            return Offer::NoFamily;
        }
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
        let mut endpoints = Vec::new();
        for slice in self.slices(&service.name) {
            if slice.address_family != Some(family) {
                continue;
            }
            for slice_port in &slice.ports {
                if !is_same_port(slice_port, port) {
                    continue;
                }
                endpoints.extend(
                    slice
                        .endpoints
                        .iter()
                        .filter(|endpoint| wanted(endpoint))
                        .map(|endpoint| SocketAddr::new(endpoint.address, slice_port.port)),
                );
            }
        }
        // A pod that moves between slices is in both for a moment.
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    }
}

/// Whether a slice's port stands for a port of the Service.
pub(super) fn is_same_port(slice_port: &SlicePort, port: &ServicePort) -> bool {
    slice_port.name == port.name && slice_port.protocol == port.protocol
}

impl Offer {
    /// The state of a leaf with a weight above 0 and this offer.
    pub(super) fn state(&self) -> LeafState {
        match self {
            Self::NoService => LeafState::ServiceMissing,
            Self::NoPort => LeafState::PortMissing,
            Self::NoFamily => LeafState::FamilyMissing,
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
            Self::NoService | Self::NoPort | Self::NoFamily => Vec::new(),
            Self::Endpoints { endpoints, .. } => endpoints,
        }
    }
}
