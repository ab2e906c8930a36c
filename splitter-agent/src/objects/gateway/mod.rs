//! Routes of the Gateway API (`gateway.networking.k8s.io`) that have Services as parents, as service
//! meshes use them (GEP-1294).
//!
//! A connection has no requests, so of a rule only its backends can be honoured; what else a route
//! says is either of no effect, or [`Rules`] has it as something that cannot be done.

mod backend;
mod filter;
mod matching;
mod parent;
pub(crate) mod reference_grant;
mod rules;

use serde_json::Value;

use super::annotation;
use super::field::{self, Fields, inert};
use super::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use super::{FieldError, Metadata, Object};

pub use backend::{RouteBackend, Target};
pub use parent::{Parent, ParentService};
pub use rules::{Rules, Unsupported};

use rules::RouteKind;

/// The group of the Gateway API.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// The name of splitter among the controllers that write to the status of routes.
pub const CONTROLLER: &str = "splitter.dev/controller";

/// The annotation that says what becomes of an object that asks for something that does not
/// change where a connection goes, and that a connection cannot have, such as a timeout of
/// requests.
pub const UNSUPPORTED: &str = "splitter.dev/unsupported";

/// GRPCRoutes. Of routes of different kinds on one port, GEP-1294 has those for gRPC win, then those
/// for HTTP, TLS and TCP.
pub(crate) static GRPC_ROUTE: Entry = Entry {
    status: StatusForm::Parents {
        is_by_request: true,
    },
    read: |metadata, object| read(metadata, object, RouteKind::Grpc),
    ..entry("GRPCRoute", "grpcroutes", &["v1", "v1alpha2"], 10)
};

/// HTTPRoutes.
pub(crate) static HTTP_ROUTE: Entry = Entry {
    status: StatusForm::Parents {
        is_by_request: true,
    },
    read: |metadata, object| read(metadata, object, RouteKind::Http),
    ..entry(
        "HTTPRoute",
        "httproutes",
        &["v1", "v1beta1", "v1alpha2"],
        11,
    )
};

/// TLSRoutes.
pub(crate) static TLS_ROUTE: Entry = Entry {
    read: |metadata, object| read(metadata, object, RouteKind::Tls),
    ..entry("TLSRoute", "tlsroutes", &["v1", "v1alpha3", "v1alpha2"], 12)
};

/// TCPRoutes.
pub(crate) static TCP_ROUTE: Entry = Entry {
    read: |metadata, object| read(metadata, object, RouteKind::Tcp),
    ..entry("TCPRoute", "tcproutes", &["v1", "v1alpha2"], 13)
};

/// UDPRoutes. They meet no others, since those are for TCP.
pub(crate) static UDP_ROUTE: Entry = Entry {
    read: |metadata, object| read(metadata, object, RouteKind::Udp),
    ..entry("UDPRoute", "udproutes", &["v1", "v1alpha2"], 14)
};

const fn entry(
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
    precedence: u8,
) -> Entry {
    Entry {
        resource: Resource {
            kind,
            plural,
            group: GROUP,
        },
        versions,
        purpose: Purpose::Route,
        availability: Availability::Optional,
        is_namespaced: true,
        name_rule: NameRule::Subdomain,
        status: StatusForm::Parents {
            is_by_request: false,
        },
        precedence,
        may_be_superseded: true,
        // Gateways and their classes are others'.
        owns_group: false,
        definition: None,
        read: |metadata, object| read(metadata, object, RouteKind::Tcp),
    }
}

/// What the agent reads of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayRoute {
    /// Its parents that are Services, in their order.
    pub parents: Box<[Parent]>,
    /// Fields by which a parent that looks like a Service is none, and what to write there.
    pub mistaken_parents: Box<[FieldError]>,
    /// Whether it has no parent that is a Service, but entries of splitter in its status.
    pub has_abandoned_status: bool,
    /// Hostnames, of which nothing follows for a Service.
    pub hostnames: Box<[String]>,
    /// Value of the annotation [`UNSUPPORTED`], as it is written.
    pub unsupported: Option<String>,
    /// Fields of `metadata` that look like an annotation of ours and are none.
    pub mistaken: Box<[String]>,
    /// What it asks for.
    pub rules: Rules,
}

fn read(metadata: Metadata<'_>, object: &Fields, kind: RouteKind) -> Result<Object, FieldError> {
    let route = GatewayRoute::read(&metadata, object, kind);
    Ok(metadata.into_route(route))
}

impl GatewayRoute {
    fn read(metadata: &Metadata<'_>, object: &Fields, kind: RouteKind) -> Self {
        let no_spec = Fields::new();
        let spec = field::object(object, "spec").ok().flatten();
        let (parents, mistaken_parents) = parent::read_all(spec.unwrap_or(&no_spec));
        if parents.is_empty() {
            // It is for others: of what it says, nothing is kept.
            return Self {
                mistaken_parents,
                has_abandoned_status: has_own_status(object),
                ..Self::default()
            };
        }
        let spec = spec.unwrap_or(&no_spec);
        Self {
            parents,
            mistaken_parents,
            has_abandoned_status: false,
            hostnames: if matches!(kind, RouteKind::Tcp | RouteKind::Udp) {
                Box::default()
            } else {
                hostnames(spec)
            },
            unsupported: metadata.annotation(UNSUPPORTED),
            mistaken: annotation::mistaken(metadata.fields, &[UNSUPPORTED]),
            rules: Rules::read(spec, kind),
        }
    }

    /// Its weights for a line, for example `web-v1:90,web-v2:10`.
    pub(crate) fn weights(&self) -> String {
        const MOST: usize = 4;
        let backends = &self.rules.backends;
        let mut weights: Vec<String> = backends
            .iter()
            .take(MOST)
            .map(|backend| format!("{}:{}", inert(backend.target.name()), backend.weight))
            .collect();
        if backends.len() > MOST {
            weights.push(format!("{} more", backends.len() - MOST));
        }
        weights.join(",")
    }
}

/// Whether a parentRef is a Service, so that splitter is to answer for it.
#[must_use]
pub fn is_service_parent(parent: &Value) -> bool {
    parent::is_service(parent)
}

/// Whether splitter has an entry in the status.
fn has_own_status(object: &Fields) -> bool {
    let status = object
        .get("status")
        .and_then(|status| status.get("parents"));
    let mut parents = status.and_then(Value::as_array).into_iter().flatten();
    parents.any(|parent| parent["controllerName"] == CONTROLLER)
}

/// The first hostnames, for people.
fn hostnames(spec: &Fields) -> Box<[String]> {
    const MOST: usize = 3;
    let hostnames = spec.get("hostnames").and_then(Value::as_array);
    let hostnames = hostnames.into_iter().flatten().take(MOST);
    hostnames.map(super::shown).collect()
}
