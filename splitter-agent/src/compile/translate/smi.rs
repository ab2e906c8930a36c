//! From SMI TrafficSplits to the neutral form.

use std::collections::BTreeMap;
use std::sync::Arc;

use splitter_common::layout::MAX_LEAVES;

use super::host::Host;
use super::{is_api_server, quoted};
use crate::compile::{Diagnostics, Severity};
use crate::objects::{Backend, ON_NO_ENDPOINTS, ObjectName, SplitSpec, TrafficSplit, inert};
use crate::plan::Origin;
use crate::reason;
use crate::route::{
    self, Claim, Clients, Context, Destinations, Leaf, OnNoEndpoints, Ports, RouteObject, Split,
    Translate, UnreadyShare,
};

const SERVICE: &str = "spec.service";
const BACKENDS: &str = "spec.backends";

impl Translate for TrafficSplit {
    fn translate(
        &self,
        object: &RouteObject,
        context: Context<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Claim> {
        let translator = Translator {
            object: self,
            origin: object.origin(),
            cluster_domain: context.cluster_domain,
        };
        translator.mistaken(diagnostics);
        let root = translator.root(diagnostics);
        let split = translator.split(diagnostics);
        let claim = root.map(|(root, ports, allowed)| Claim {
            origin: translator.origin,
            precedence: object.kind.precedence,
            created: object.created,
            root,
            root_field: SERVICE.to_owned(),
            ports,
            clients: Clients::Everyone,
            split: split.filter(|_| allowed),
            waits_for: None,
            ports_field: None,
            ambiguous: None,
        });
        claim.into_iter().collect()
    }

    fn weights(&self) -> String {
        Self::weights(self)
    }

    fn written_roots(&self) -> Vec<&str> {
        self.service.as_deref().into_iter().collect()
    }

    fn without_refusals(&self) -> Option<Arc<dyn Translate>> {
        let refused = self.spec.as_ref().err()?;
        if refused.backends.is_empty() {
            return None;
        }
        let backends = refused.backends.clone();
        Some(Arc::new(Self {
            spec: Ok(SplitSpec { backends }),
            ..self.clone()
        }))
    }

    fn is_equal(&self, other: &dyn Translate) -> bool {
        route::is_equal(self, other)
    }
}

struct Translator<'a> {
    object: &'a TrafficSplit,
    origin: Origin,
    cluster_domain: &'a str,
}

impl Translator<'_> {
    fn emit(
        &self,
        diagnostics: &mut Diagnostics,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: String,
    ) {
        diagnostics.emit(&self.origin, severity, reason, field, message);
    }

    /// What looks like an annotation that is known and is none.
    fn mistaken(&self, diagnostics: &mut Diagnostics) {
        for field in &self.object.mistaken {
            self.emit(
                diagnostics,
                Severity::Warning,
                reason::UNKNOWN_ANNOTATION,
                format!("metadata.{field}"),
                format!(
                    "is not an annotation that splitter knows, so it does nothing; write \
                     metadata.annotations[{ON_NO_ENDPOINTS}], the only one there is, or remove it"
                ),
            );
        }
    }

    /// The root Service, its ports that are meant, and whether it may be split.
    fn root(&self, diagnostics: &mut Diagnostics) -> Option<(ObjectName, Ports, bool)> {
        // If it is not text, the object's own refusal says so.
        let written = self.object.service.as_deref()?;
        let own = &self.origin.namespace;
        let mut refuse = |reason, message| {
            self.emit(diagnostics, Severity::Refused, reason, SERVICE, message);
        };
        let host = match Host::parse(written, self.cluster_domain) {
            Ok(host) => host,
            Err(error) => {
                let domain = self.cluster_domain;
                refuse(
                    reason::INVALID_ROOT,
                    format!(
                        "{} {error}; write the name of a Service of namespace {own}, \
                         such as web or web.{own}.svc.{domain}",
                        quoted(written)
                    ),
                );
                return None;
            }
        };
        if let Some(namespace) = host
            .namespace
            .as_ref()
            .filter(|namespace| *namespace != own)
        {
            refuse(
                reason::ROOT_IN_OTHER_NAMESPACE,
                format!(
                    "{} is Service {} of namespace {namespace}, and a TrafficSplit splits \
                     a Service of its own namespace, {own}; move the TrafficSplit or name a \
                     Service of {own}",
                    quoted(written),
                    host.service
                ),
            );
            return None;
        }
        let root = ObjectName::new(own, host.service);
        let allowed = !is_api_server(&root);
        if !allowed {
            refuse(
                reason::ROOT_PROTECTED,
                "Service default/kubernetes is the API server and is never split; name another \
                 Service"
                    .to_owned(),
            );
        }
        Some((root, host.port.map_or(Ports::ALL, Ports::one), allowed))
    }

    fn split(&self, diagnostics: &mut Diagnostics) -> Option<Split> {
        self.tell_unknown(diagnostics);
        let spec = match &self.object.spec {
            Ok(spec) => spec,
            Err(refused) => {
                for refusal in &refused.refusals {
                    self.emit(
                        diagnostics,
                        Severity::Refused,
                        refusal.reason,
                        &*refusal.field,
                        refusal.message.clone(),
                    );
                }
                return None;
            }
        };
        let leaves = self.leaves(spec, diagnostics);
        if leaves.len() > MAX_LEAVES as usize {
            self.emit(
                diagnostics,
                Severity::Refused,
                reason::TOO_MANY_BACKENDS,
                BACKENDS,
                format!(
                    "has {} different backends, and a split can have {MAX_LEAVES}; remove some",
                    leaves.len()
                ),
            );
            return None;
        }
        Some(Split {
            leaves_field: BACKENDS.to_owned(),
            leaves,
            unready_share: UnreadyShare::GivenAway(self.on_no_endpoints(diagnostics)),
            destinations: Destinations::Services,
        })
    }

    /// Names fields that no TrafficSplit has.
    fn tell_unknown(&self, diagnostics: &mut Diagnostics) {
        let unknown = &self.object.unknown;
        for (index, field) in unknown.fields.iter().enumerate() {
            let more = if index + 1 == unknown.fields.len() && unknown.more > 0 {
                format!(" (so are {} more)", unknown.more)
            } else {
                String::new()
            };
            let remedy = match field.as_str() {
                "annotations" | "labels" => "write it below metadata",
                _ => "remove it",
            };
            self.emit(
                diagnostics,
                Severity::Warning,
                reason::UNKNOWN_FIELD,
                &**field,
                format!("is not a field of TrafficSplits and is ignored{more}; {remedy}"),
            );
        }
    }

    fn on_no_endpoints(&self, diagnostics: &mut Diagnostics) -> OnNoEndpoints {
        match self.object.on_no_endpoints.as_deref() {
            None | Some("refuse") => OnNoEndpoints::Refuse,
            Some("passthrough") => OnNoEndpoints::PassThrough,
            Some(other) => {
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason::INVALID_ANNOTATION,
                    format!("metadata.annotations[{ON_NO_ENDPOINTS}]"),
                    format!(
                        "{} is not known, so refuse is used; write refuse or passthrough",
                        quoted(other)
                    ),
                );
                OnNoEndpoints::default()
            }
        }
    }

    /// The leaves in the order of the backends; backends of one Service are one leaf.
    fn leaves(&self, spec: &SplitSpec, diagnostics: &mut Diagnostics) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = Vec::with_capacity(spec.backends.len());
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for backend in &spec.backends {
            let field = format!("{BACKENDS}[{}]", backend.index);
            let leaf = self.leaf(backend, field, diagnostics);
            let first = known
                .get(&leaf.name)
                .and_then(|first| leaves.get_mut(*first));
            if let Some(first) = first {
                first.weight = first.weight.plus(leaf.weight);
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason::DUPLICATE_BACKEND,
                    format!("{}.service", leaf.field),
                    format!(
                        "names {} again, as {} does, so their weights are added up; write one \
                         backend with the sum",
                        quoted(&leaf.name),
                        first.field
                    ),
                );
            } else {
                known.insert(leaf.name.clone(), leaves.len());
                leaves.push(leaf);
            }
        }
        leaves
    }

    fn leaf(&self, backend: &Backend, field: String, diagnostics: &mut Diagnostics) -> Leaf {
        let own = &self.origin.namespace;
        let written = &backend.service;
        let remedy = format!("write the name of a Service of {own}");
        let problem = match Host::parse(written, self.cluster_domain) {
            Ok(host) => match host.namespace {
                Some(namespace) if namespace != *own => Err((
                    reason::BACKEND_IN_OTHER_NAMESPACE,
                    format!(
                        "is in namespace {namespace}, and backends are Services of the \
                         TrafficSplit's own namespace, {own}"
                    ),
                    remedy,
                )),
                _ if host.port.is_some() => Err((
                    reason::INVALID_BACKEND_NAME,
                    "has a port, and that of a backend is always that of the root".to_owned(),
                    format!("write {}", host.service),
                )),
                _ => Ok(host.service),
            },
            Err(error) => Err((reason::INVALID_BACKEND_NAME, error.to_string(), remedy)),
        };
        let (name, service) = match problem {
            Ok(service) => (service.clone(), Some(ObjectName::new(own, service))),
            Err((reason, problem, remedy)) => {
                self.emit(
                    diagnostics,
                    Severity::Warning,
                    reason,
                    format!("{field}.service"),
                    format!(
                        "{} {problem}, so it gets no connections; {remedy}",
                        quoted(written)
                    ),
                );
                // Not a name, but reports show it as one.
                (inert(written).into_owned(), None)
            }
        };
        Leaf {
            name,
            service,
            port: None,
            subset: None,
            waits_for: None,
            weight: backend.weight,
            field,
        }
    }
}
