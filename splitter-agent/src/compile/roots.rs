//! Root Services: whether clients can dial one, and where.

use std::net::SocketAddr;

use splitter_common::layout::ClientScope;

use super::store::Store;
use crate::objects::{ObjectName, Service, ServiceKind, ServicePort};
use crate::plan::Frontend;
use crate::reason;

/// Why a root has no frontends.
pub(super) enum NoFrontends {
    Missing,
    Refused,
    Headless,
    ExternalName,
    NoClusterIp,
    NoPorts,
}

/// The root Service, if clients can dial it by a cluster IP.
pub(super) fn root<'a>(store: &'a Store, name: &ObjectName) -> Result<&'a Service, NoFrontends> {
    let service = store.service(name).ok_or_else(|| {
        if store.is_refused_service(name) {
            NoFrontends::Refused
        } else {
            NoFrontends::Missing
        }
    })?;
    match service.kind {
        ServiceKind::Headless => Err(NoFrontends::Headless),
        ServiceKind::ExternalName => Err(NoFrontends::ExternalName),
        ServiceKind::ClusterIp if service.cluster_ips.is_empty() => Err(NoFrontends::NoClusterIp),
        ServiceKind::ClusterIp if service.ports.is_empty() => Err(NoFrontends::NoPorts),
        ServiceKind::ClusterIp => Ok(service),
    }
}

impl NoFrontends {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Missing | Self::Refused => reason::ROOT_MISSING,
            Self::Headless => reason::ROOT_HEADLESS,
            Self::ExternalName => reason::ROOT_EXTERNAL_NAME,
            Self::NoClusterIp => reason::ROOT_WITHOUT_CLUSTER_IP,
            Self::NoPorts => reason::ROOT_WITHOUT_PORTS,
        }
    }

    pub(super) fn message(&self, root: &ObjectName) -> String {
        match self {
            Self::Missing => {
                format!("Service {root} does not exist; create it, or name one that exists")
            }
            Self::Refused => format!("Service {root} was refused, see above; correct it"),
            Self::Headless => format!(
                "Service {root} is headless, so that clients dial its pods directly; give it a \
                 cluster IP"
            ),
            Self::ExternalName => format!(
                "Service {root} is an ExternalName, so that clients dial another name; name a \
                 Service with a cluster IP"
            ),
            Self::NoClusterIp => format!(
                "Service {root} has no cluster IP that clients could dial; wait until one is \
                 allocated or, in a manifest, write spec.clusterIP"
            ),
            Self::NoPorts => format!("Service {root} has no ports; add those that clients dial"),
        }
    }
}

/// Every address and port of a root that clients dial.
pub(super) fn frontends(service: &Service) -> impl Iterator<Item = Frontend> {
    frontends_by_port(service).map(|(_, frontend)| frontend)
}

/// Every address and port of a root that clients dial, with the port of the Service.
pub(super) fn frontends_by_port(
    service: &Service,
) -> impl Iterator<Item = (&ServicePort, Frontend)> {
    let ports = service.ports.iter();
    ports.flat_map(|port| frontends_of(service, port).map(move |frontend| (port, frontend)))
}

/// The address and port of a root that clients dial, for one of its ports.
pub(super) fn frontends_of(
    service: &Service,
    port: &ServicePort,
) -> impl Iterator<Item = Frontend> {
    let (number, protocol) = (port.port, port.protocol);
    service.cluster_ips.iter().map(move |address| Frontend {
        address: SocketAddr::new(*address, number),
        protocol,
        clients: ClientScope::EVERYONE,
    })
}
