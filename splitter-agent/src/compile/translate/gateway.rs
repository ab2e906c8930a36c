//! From routes of the Gateway API to the neutral form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use splitter_common::layout::{MAX_LEAVES, Protocol};

use super::{is_api_server, leaf_service, quoted};
use crate::compile::{Diagnostics, Severity};
use crate::objects::{
    CONTROLLER, GatewayRoute, Kind, ObjectName, Parent, RouteBackend, Rules, Target, UNSUPPORTED,
    Weight, inert,
};
use crate::plan::Origin;
use crate::reason;
use crate::route::{
    self, Claim, ClientSelector, Clients, Context, Destinations, Leaf, Ports, RouteObject, Split,
    Translate, UnreadyShare,
};

impl Translate for GatewayRoute {
    fn translate(
        &self,
        object: &RouteObject,
        context: Context<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Claim> {
        let translator = Translator {
            object: self,
            origin: object.origin(),
            destinations: if context.requires_grants {
                Destinations::GrantedServices
            } else {
                Destinations::Services
            },
        };
        translator.tell_parents(diagnostics);
        if self.parents.is_empty() {
            return Vec::new();
        }
        translator.tell_metadata(diagnostics);
        let leaves = translator.leaves(diagnostics);
        let mut claims: Vec<Claim> = Vec::new();
        for parent in &self.parents {
            let Some(claim) = translator.claim(parent, leaves.as_deref(), object, diagnostics)
            else {
                continue;
            };
            claims.push(claim);
        }
        claims
    }

    fn is_for_splitter(&self) -> bool {
        !self.parents.is_empty()
    }

    fn weights(&self) -> String {
        Self::weights(self)
    }

    fn written_roots(&self) -> Vec<&str> {
        let services = self.parents.iter().filter_map(|it| it.service.as_ref());
        services.map(|service| service.host.as_str()).collect()
    }

    fn without_refusals(&self) -> Option<Arc<dyn Translate>> {
        let is_refused = !self.rules.refusals.is_empty() || !self.rules.unsupported.is_empty();
        if !is_refused || self.rules.backends.is_empty() {
            return None;
        }
        Some(Arc::new(Self {
            rules: Rules {
                refusals: Vec::new(),
                unsupported: Vec::new(),
                ..self.rules.clone()
            },
            ..self.clone()
        }))
    }

    fn is_equal(&self, other: &dyn Translate) -> bool {
        route::is_equal(self, other)
    }
}

struct Translator<'a> {
    object: &'a GatewayRoute,
    origin: Origin,
    destinations: Destinations,
}

/// A backend, or several of one Service and port together.
struct Backend<'a> {
    written: &'a RouteBackend,
    /// The Service, if the name can be one.
    service: Option<ObjectName>,
    weight: Weight,
}

impl Translator<'_> {
    fn emit(
        &self,
        diagnostics: &mut Diagnostics,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        diagnostics.emit(&self.origin, severity, reason, field, message);
    }

    /// What is wrong with parents that are no Services, and what is left of those that were.
    fn tell_parents(&self, diagnostics: &mut Diagnostics) {
        for error in &self.object.mistaken_parents {
            let (severity, reason) = (Severity::Warning, reason::INVALID_PARENT);
            self.emit(
                diagnostics,
                severity,
                reason,
                &*error.field,
                &*error.message,
            );
        }
        if self.object.has_abandoned_status {
            self.emit(
                diagnostics,
                Severity::Note,
                reason::STATUS_ABANDONED,
                "status.parents",
                format!(
                    "has entries of {CONTROLLER}, and no parent is a Service any more, so they are \
                     being removed"
                ),
            );
        }
    }

    fn tell_metadata(&self, diagnostics: &mut Diagnostics) {
        for field in &self.object.mistaken {
            self.emit(
                diagnostics,
                Severity::Warning,
                reason::UNKNOWN_ANNOTATION,
                format!("metadata.{field}"),
                format!(
                    "is not an annotation that splitter knows here, so it does nothing; write \
                     metadata.annotations[{UNSUPPORTED}], the only one there is, or remove it"
                ),
            );
        }
        if !self.object.hostnames.is_empty() {
            self.emit(
                diagnostics,
                // A TLSRoute cannot be written without.
                if self.origin.kind == "TLSRoute" {
                    Severity::Note
                } else {
                    Severity::Warning
                },
                reason::HOSTNAMES_IGNORED,
                "spec.hostnames",
                format!(
                    "has {}, and a route on a Service is for every connection to it, whatever \
                     name a client calls it by, so hostnames are ignored",
                    self.object.hostnames.join(", ")
                ),
            );
        }
    }

    /// Whether what does not change where a connection goes is to be ignored.
    fn ignores_unsupported(&self, diagnostics: &mut Diagnostics) -> bool {
        match self.object.unsupported.as_deref() {
            None | Some("refuse") => false,
            Some("ignore") => true,
            Some(other) => {
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason::INVALID_ANNOTATION,
                    format!("metadata.annotations[{UNSUPPORTED}]"),
                    format!(
                        "{} is not known, so refuse is used; write refuse or ignore",
                        quoted(other)
                    ),
                );
                false
            }
        }
    }

    /// The backends that decide; `None` if the route is refused.
    fn leaves(&self, diagnostics: &mut Diagnostics) -> Option<Vec<Backend<'_>>> {
        let rules = &self.object.rules;
        let ignores = self.ignores_unsupported(diagnostics);
        let mut is_refused = !rules.refusals.is_empty();
        for refusal in &rules.refusals {
            let (severity, reason) = (Severity::Refused, refusal.reason);
            self.emit(
                diagnostics,
                severity,
                reason,
                &*refusal.field,
                &*refusal.message,
            );
        }
        for unsupported in &rules.unsupported {
            let (severity, reason, message) = if ignores {
                let message = format!("{}; it is ignored", unsupported.why);
                (Severity::Warning, reason::UNSUPPORTED_IGNORED, message)
            } else {
                is_refused = true;
                let message = format!(
                    "{}; remove it, or write the annotation {UNSUPPORTED}: ignore to have the route \
                     without it",
                    unsupported.why
                );
                (Severity::Refused, reason::UNSUPPORTED_FIELD, message)
            };
            self.emit(diagnostics, severity, reason, &*unsupported.field, message);
        }
        for index in &rules.unreachable {
            self.emit(
                diagnostics,
                Severity::Note,
                reason::RULE_UNREACHABLE,
                format!("spec.rules[{index}]"),
                "has no effect, since spec.rules[0] takes every connection; remove it",
            );
        }
        let leaves = self.merged(diagnostics);
        if leaves.len() > MAX_LEAVES as usize {
            is_refused = true;
            self.emit(
                diagnostics,
                Severity::Refused,
                reason::TOO_MANY_BACKENDS,
                &*rules.backends_field,
                format!(
                    "has {} different backends, and a split can have {MAX_LEAVES}; remove some",
                    leaves.len()
                ),
            );
        }
        if leaves.is_empty() && !is_refused {
            self.emit(
                diagnostics,
                Severity::Warning,
                reason::NO_BACKENDS,
                &*rules.backends_field,
                "is empty, so every connection is refused; write the backends that are to get them",
            );
        }
        (!is_refused).then_some(leaves)
    }

    /// The backends in their order; those of one Service and port are one.
    fn merged(&self, diagnostics: &mut Diagnostics) -> Vec<Backend<'_>> {
        let mut backends: Vec<Backend<'_>> = Vec::new();
        let mut known: BTreeMap<&Target, usize> = BTreeMap::new();
        let mut by_service: BTreeMap<(ObjectName, u16), usize> = BTreeMap::new();
        for written in &self.object.rules.backends {
            let service = self.service(written);
            let first = match (&service, &written.target) {
                (Some(service), Target::Service { port, .. }) => {
                    let next = backends.len();
                    *by_service.entry((service.clone(), *port)).or_insert(next)
                }
                _ => *known.entry(&written.target).or_insert(backends.len()),
            };
            let weight = Weight::whole(written.weight);
            if let Some(first) = backends.get_mut(first) {
                first.weight = first.weight.plus(weight);
                let (name, field) = (quoted(written.target.name()), &first.written.field);
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason::DUPLICATE_BACKEND,
                    &*written.field,
                    format!(
                        "names {name} again, as {field} does, so their weights are added up; write \
                         one backend with the sum"
                    ),
                );
                continue;
            }
            self.tell_target(written, service.is_some(), diagnostics);
            backends.push(Backend {
                written,
                service,
                weight,
            });
        }
        backends
    }

    /// The Service of a backend, if it can be one.
    fn service(&self, backend: &RouteBackend) -> Option<ObjectName> {
        match &backend.target {
            Target::Service {
                namespace, name, ..
            } => {
                let namespace = namespace.as_ref().unwrap_or(&self.origin.namespace);
                leaf_service(namespace, name)
            }
            Target::Other { .. } => None,
        }
    }

    fn tell_target(&self, backend: &RouteBackend, is_service: bool, diagnostics: &mut Diagnostics) {
        let refused = if backend.weight == 0 {
            "is left out"
        } else {
            "keeps its share of the connections, which is refused"
        };
        match &backend.target {
            Target::Service {
                namespace, name, ..
            } if !is_service => {
                let name = match namespace {
                    Some(namespace) => format!("{namespace}/{name}"),
                    None => name.clone(),
                };
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason::INVALID_BACKEND_NAME,
                    format!("{}.name", backend.field),
                    format!(
                        "{} cannot be the name of a Service, so the backend {refused}; write one \
                         that is",
                        quoted(&name)
                    ),
                );
            }
            Target::Other { kind, .. } => self.emit(
                diagnostics,
                Severity::Warning,
                reason::INVALID_BACKEND_KIND,
                format!("{}.kind", backend.field),
                format!(
                    "is {kind}, and only a Service has endpoints that can be dialled, so the backend \
                     {refused}; name a Service"
                ),
            ),
            Target::Service { .. } => {}
        }
    }

    /// What the route asks of a parent; `None` if not even the Service is known.
    fn claim(
        &self,
        parent: &Parent,
        backends: Option<&[Backend<'_>]>,
        object: &RouteObject,
        diagnostics: &mut Diagnostics,
    ) -> Option<Claim> {
        let root_field = format!("spec.parentRefs[{}]", parent.index);
        for refusal in &parent.refusals {
            let (severity, reason) = (Severity::Refused, refusal.reason);
            self.emit(
                diagnostics,
                severity,
                reason,
                &*refusal.field,
                &*refusal.message,
            );
        }
        let service = parent.service.as_ref()?;
        let own = &self.origin.namespace;
        let namespace = service.namespace.as_ref().unwrap_or(own);
        let root = ObjectName::new(namespace, &service.name);
        let mut is_allowed = parent.refusals.is_empty();
        if is_api_server(&root) {
            is_allowed = false;
            self.emit(
                diagnostics,
                Severity::Refused,
                reason::ROOT_PROTECTED,
                &*root_field,
                "Service default/kubernetes is the API server and is never split; name another \
                 Service",
            );
        }
        let split = backends.filter(|_| is_allowed).map(|backends| Split {
            leaves_field: self.object.rules.backends_field.clone(),
            leaves: leaves(backends, &root),
            unready_share: UnreadyShare::Refused,
            destinations: self.destinations,
        });
        Some(Claim {
            origin: self.origin.clone(),
            precedence: object.kind.precedence,
            created: object.created,
            root_field,
            ports: Ports {
                numbers: parent.port.map(|port| BTreeSet::from([port])),
                name: parent.section_name.clone(),
                transport: Some(transport(object.kind)),
                ..Ports::ALL
            },
            clients: if namespace == own {
                Clients::Everyone
            } else {
                Clients::Some(ClientSelector {
                    namespaces: Some(BTreeSet::from([own.clone()])),
                    labels: BTreeMap::new(),
                    is_consumer: true,
                })
            },
            root,
            split,
            waits_for: None,
            ports_field: None,
            ambiguous: None,
        })
    }
}

/// What routes of a kind are about. One for UDP has nothing to do with one for TCP on the same port.
fn transport(kind: Kind) -> Protocol {
    if kind == Kind::UDP_ROUTE {
        Protocol::Udp
    } else {
        Protocol::Tcp
    }
}

/// The leaves of a split of a root, with their names: that of the Service, with its namespace if that
/// is not the root's, and with the port if the Service is there with several.
fn leaves(backends: &[Backend<'_>], root: &ObjectName) -> Vec<Leaf> {
    let mut counts: BTreeMap<&ObjectName, usize> = BTreeMap::new();
    for service in backends.iter().filter_map(|it| it.service.as_ref()) {
        *counts.entry(service).or_default() += 1;
    }
    let leaves = backends.iter().map(|backend| {
        let field = backend.written.field.clone();
        let (name, port) = match (&backend.service, &backend.written.target) {
            (Some(service), Target::Service { port, .. }) => {
                let mut name = service.name.clone();
                if service.namespace != root.namespace {
                    name = format!("{name}.{}", service.namespace);
                }
                if counts.get(service).is_some_and(|count| *count > 1) {
                    name = format!("{name}:{port}");
                }
                (name, Some(*port))
            }
            (_, target) => {
                // Not a name, but reports show it as one, and no other leaf must have it.
                let name = inert(target.name());
                (format!("{name} ({field})"), None)
            }
        };
        Leaf {
            name,
            service: backend.service.clone(),
            port,
            subset: None,
            waits_for: None,
            weight: backend.weight,
            field,
        }
    });
    leaves.collect()
}
