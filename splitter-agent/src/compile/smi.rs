//! From SMI TrafficSplits to the neutral form.

use std::collections::BTreeMap;

use serde_json::Value;
use splitter_common::layout::MAX_LEAVES;

use super::diagnostics::{Report, Severity};
use super::host::Host;
use super::split::{Claim, Clients, Leaf, OnNoEndpoints, Ports, Split};
use crate::objects::{Backend, ON_NO_ENDPOINTS, ObjectName, SplitSpec, TrafficSplit, inert, shown};
use crate::plan::Origin;
use crate::reason;

/// The kind of the objects that are translated here.
pub(super) const KIND: &str = "TrafficSplit";

const SERVICE: &str = "spec.service";
const BACKENDS: &str = "spec.backends";

/// What a TrafficSplit asks for. `None` if not even its root is known.
pub(super) fn claim(
    object: &TrafficSplit,
    cluster_domain: &str,
    report: &mut Report,
) -> Option<Claim> {
    let translator = Translator {
        object,
        origin: origin(object),
        cluster_domain,
    };
    translator.mistaken(report);
    let root = translator.root(report);
    let split = translator.split(report);
    let (root, ports, allowed) = root?;
    Some(Claim {
        origin: translator.origin,
        created: object.created,
        root,
        root_field: SERVICE,
        ports,
        split: split.filter(|_| allowed),
    })
}

/// A TrafficSplit as the origin of a split.
pub(super) fn origin(object: &TrafficSplit) -> Origin {
    Origin {
        kind: KIND,
        namespace: object.name.namespace.clone(),
        name: object.name.name.clone(),
        generation: object.generation,
    }
}

struct Translator<'a> {
    object: &'a TrafficSplit,
    origin: Origin,
    cluster_domain: &'a str,
}

impl Translator<'_> {
    fn say(
        &self,
        report: &mut Report,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: String,
    ) {
        report.say(&self.origin, severity, reason, field, message);
    }

    /// What looks like an annotation that is known and is none.
    fn mistaken(&self, report: &mut Report) {
        for field in &self.object.mistaken {
            self.say(
                report,
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
    fn root(&self, report: &mut Report) -> Option<(ObjectName, Ports, bool)> {
        // If it is not text, the object's own refusal says so.
        let written = self.object.service.as_deref()?;
        let own = &self.object.name.namespace;
        let mut refuse = |reason, message| {
            self.say(report, Severity::Refused, reason, SERVICE, message);
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
        // Whoever takes this over has every client of the API server in hand, the
        // agent's own included.
        let allowed = !(root.namespace == "default" && root.name == "kubernetes");
        if !allowed {
            refuse(
                reason::ROOT_PROTECTED,
                "Service default/kubernetes is the API server and is never split; name another \
                 Service"
                    .to_owned(),
            );
        }
        Some((root, host.port.map_or(Ports::All, Ports::One), allowed))
    }

    fn split(&self, report: &mut Report) -> Option<Split> {
        self.tell_unknown(report);
        let spec = match &self.object.spec {
            Ok(spec) => spec,
            Err(refused) => {
                for refusal in &refused.refusals {
                    self.say(
                        report,
                        Severity::Refused,
                        refusal.reason,
                        &*refusal.field,
                        refusal.message.clone(),
                    );
                }
                return None;
            }
        };
        let leaves = self.leaves(spec, report);
        if leaves.len() > MAX_LEAVES as usize {
            self.say(
                report,
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
            clients: Clients::Everyone,
            leaves_field: BACKENDS,
            leaves,
            on_no_endpoints: self.on_no_endpoints(report),
        })
    }

    /// Names fields that no TrafficSplit has.
    fn tell_unknown(&self, report: &mut Report) {
        let unknown = &self.object.unknown;
        for (index, field) in unknown.fields.iter().enumerate() {
            let more = if index + 1 == unknown.fields.len() && unknown.more > 0 {
                format!(" (so are {} more)", unknown.more)
            } else {
                String::new()
            };
            self.say(
                report,
                Severity::Warning,
                reason::UNKNOWN_FIELD,
                &**field,
                format!("is not a field of TrafficSplits and is ignored{more}; remove it"),
            );
        }
    }

    fn on_no_endpoints(&self, report: &mut Report) -> OnNoEndpoints {
        match self.object.on_no_endpoints.as_deref() {
            None | Some("refuse") => OnNoEndpoints::Refuse,
            Some("passthrough") => OnNoEndpoints::PassThrough,
            Some(other) => {
                self.say(
                    report,
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
    fn leaves(&self, spec: &SplitSpec, report: &mut Report) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = Vec::with_capacity(spec.backends.len());
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for (index, backend) in spec.backends.iter().enumerate() {
            let field = format!("{BACKENDS}[{index}]");
            let leaf = self.leaf(backend, field, report);
            let first = known
                .get(&leaf.name)
                .and_then(|first| leaves.get_mut(*first));
            if let Some(first) = first {
                first.weight = first.weight.plus(leaf.weight);
                self.say(
                    report,
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

    fn leaf(&self, backend: &Backend, field: String, report: &mut Report) -> Leaf {
        let own = &self.object.name.namespace;
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
                self.say(
                    report,
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
            weight: backend.weight,
            field,
        }
    }
}

/// What an author wrote, for people: in quotes, not longer than a line.
fn quoted(text: &str) -> String {
    shown(&Value::from(text))
}
