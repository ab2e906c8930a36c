//! From Istio's VirtualServices to the neutral form.

mod checks;
mod delegates;
mod destinations;
pub(crate) mod host;
mod leaves;
mod merge;
mod rules;
mod tls;
mod undeclared;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{is_api_server, quoted};
use crate::compile::{Diagnostics, Severity};
use crate::objects::istio::virtual_service::{Changes, Delegate, Demand, IGNORE, List, Rule};
use crate::objects::{AppProtocol, Kind, ObjectName, ObjectReference, UNSUPPORTED, VirtualService};
use crate::plan::Origin;
use crate::reason;
use crate::route::{
    self, Claim, ClientSelector, Clients, Context, Destinations, Ports, RouteObject, Split,
    Translate, UnreadyShare,
};
use rules::{Listed, MESH, Part};
use undeclared::{Compiled, Undeclared};

impl Translate for VirtualService {
    fn translate(
        &self,
        object: &RouteObject,
        context: Context<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Claim> {
        let translator = Translator {
            service: self,
            origin: object.origin(),
            cluster_domain: context.cluster_domain,
        };
        let Some(asked) = translator.asked(context, diagnostics) else {
            return Vec::new();
        };
        let claims = asked.roots.iter().flat_map(|(root, root_field)| {
            asked
                .splits
                .iter()
                .enumerate()
                .map(|(index, of_root)| Claim {
                    origin: translator.origin.clone(),
                    precedence: object.kind.precedence,
                    created: object.created,
                    root: root.clone(),
                    root_field: root_field.clone(),
                    ports: of_root.ports.clone(),
                    ports_field: of_root.ports_field.clone(),
                    ambiguous: asked.ambiguous.clone().filter(|_| index == 0).map(Box::new),
                    clients: of_root.clients.clone(),
                    split: of_root.split.clone(),
                    waits_for: asked.waits_for,
                })
        });
        claims.collect()
    }

    fn delegates(&self) -> Vec<ObjectReference> {
        let named = delegates::named(self).into_iter().cloned();
        let kind = Kind::VIRTUAL_SERVICE;
        named.map(|name| ObjectReference::new(kind, name)).collect()
    }

    fn is_delegate(&self) -> bool {
        self.is_delegate
    }

    fn merged(&self, object: &RouteObject, context: Context<'_>) -> Option<Arc<dyn Translate>> {
        let merged = delegates::merged(self, object, context)?;
        Some(Arc::new(merged))
    }

    fn weights(&self) -> String {
        Self::weights(self)
    }

    fn written_roots(&self) -> Vec<&str> {
        self.hosts.iter().map(String::as_str).collect()
    }

    fn without_refusals(&self) -> Option<Arc<dyn Translate>> {
        let mut rules = self.rules.iter();
        rules
            .any(|rule| !rule.route.is_empty() || rule.delegate.is_some())
            .then(|| {
                let judged: Arc<dyn Translate> = Arc::new(Self {
                    is_for_its_destinations: true,
                    refusals: Vec::new(),
                    ..self.clone()
                });
                judged
            })
    }

    fn is_equal(&self, other: &dyn Translate) -> bool {
        route::is_equal(self, other)
    }
}

/// What a VirtualService asks of each of its roots.
struct Asked {
    /// The roots, each once, with their fields.
    roots: Vec<(ObjectName, String)>,
    /// In the order in which they count; one that is refused if anything is.
    splits: Vec<OfRoot>,
    /// The ports of which it is not known which of its lists of rules is for them.
    ambiguous: Option<Ports>,
    /// The kind of which an object that was not heard of decides what it asks for.
    waits_for: Option<Kind>,
}

/// What it asks of some connections to a root.
struct OfRoot {
    ports: Ports,
    ports_field: Option<Box<str>>,
    clients: Clients,
    split: Option<Split>,
}

/// What its rules ask for.
type Splits = (Vec<OfRoot>, Option<Ports>);

/// Why it asks for no split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// It was refused.
    Refused,
    /// A delegate was not heard of.
    Waits,
}

struct Translator<'a> {
    service: &'a VirtualService,
    origin: Origin,
    cluster_domain: &'a str,
}

impl<'a> Translator<'a> {
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

    fn refuse(
        &self,
        diagnostics: &mut Diagnostics,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.emit(diagnostics, Severity::Refused, reason, field, message);
    }

    /// `None` if it asks for nothing here.
    fn asked(&self, context: Context<'_>, diagnostics: &mut Diagnostics) -> Option<Asked> {
        if self.service.is_delegate {
            if !self.is_too_large(diagnostics) {
                self.is_unreadable(diagnostics);
                self.tell_unknown(diagnostics);
                self.tell_delegate(context, diagnostics);
            }
            return None;
        }
        let gateways = &self.service.gateways;
        if !gateways.is_empty() && !gateways.iter().any(|gateway| gateway == MESH) {
            let gateways: Vec<&str> = gateways.iter().take(3).map(String::as_str).collect();
            let message = format!(
                "has {}, so this VirtualService is for what comes through gateways, which splitter does \
                 not see; add mesh if it is for clients in the cluster too",
                quoted(&gateways.join(", "))
            );
            let (severity, reason) = (Severity::Inactive, reason::NOT_MESH_BOUND);
            self.emit(diagnostics, severity, reason, "spec.gateways", message);
            return None;
        }
        if self.is_too_large(diagnostics) {
            return None;
        }
        let mut is_refused = self.is_unreadable(diagnostics);
        self.tell_unknown(diagnostics);
        let (roots, is_protected) = self.roots(diagnostics);
        if roots.is_empty() {
            // Whatever its rules ask for, it is asked of others.
            return None;
        }
        is_refused |= is_protected;
        let clients = self.exported_to();
        self.tell_conflicts(diagnostics);
        let splits = match is_refused {
            _ if self.service.is_for_its_destinations => {
                Ok((self.of_destinations(diagnostics), None))
            }
            true => Err(Stopped::Refused),
            false => self.splits(&clients, diagnostics),
        };
        let is_waiting = matches!(splits, Err(Stopped::Waits));
        let waits_for = is_waiting.then_some(Kind::VIRTUAL_SERVICE);
        let (splits, ambiguous) = splits.unwrap_or_else(|_| {
            let refused = OfRoot {
                ports: Ports::ALL,
                ports_field: None,
                clients: Clients::of(clients),
                split: None,
            };
            (vec![refused], None)
        });
        Some(Asked {
            roots,
            splits,
            ambiguous,
            waits_for,
        })
    }

    /// The hosts that are Services, and whether one of them is never split.
    fn roots(&self, diagnostics: &mut Diagnostics) -> (Vec<(ObjectName, String)>, bool) {
        let mut roots: Vec<(ObjectName, String)> = Vec::new();
        let mut others = Vec::new();
        let mut is_protected = false;
        for (index, written) in self.service.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{index}]");
            match host::service(written, &self.origin.namespace, self.cluster_domain) {
                Ok(root) if roots.iter().any(|(known, _)| *known == root) => {}
                Ok(root) => {
                    if is_api_server(&root) {
                        let message = "is Service default/kubernetes, the API server, which is never \
                                       split; name another Service";
                        self.refuse(diagnostics, reason::ROOT_PROTECTED, &*field, message);
                        is_protected = true;
                    }
                    roots.push((root, field));
                }
                Err(error) => others.push((field, written, error)),
            }
        }
        let is_for_gateways = self.service.gateways.len() > 1;
        let severity = match (roots.is_empty(), is_for_gateways) {
            (true, _) => Severity::Inactive,
            // Such as the name under which the world knows the Service.
            (false, true) => Severity::Note,
            (false, false) => Severity::Warning,
        };
        for (field, written, error) in others {
            let message = format!("{} {error}", quoted(written));
            self.emit(
                diagnostics,
                severity,
                reason::HOST_NOT_FOUND,
                field,
                message,
            );
        }
        (roots, is_protected)
    }

    /// The clients that it is for. Those that it is for alone come before those of a VirtualService
    /// for all (`VirtualServicesForGateway` in Istio's `virtualservice.go`).
    fn exported_to(&self) -> ClientSelector {
        let namespaces: BTreeSet<String> = self
            .service
            .export_to
            .iter()
            .map(|namespace| match namespace.as_str() {
                "." => self.origin.namespace.clone(),
                other => other.to_owned(),
            })
            .collect();
        if namespaces.is_empty() || namespaces.contains("*") {
            return ClientSelector::default();
        }
        ClientSelector {
            namespaces: Some(namespaces),
            is_consumer: true,
            ..ClientSelector::default()
        }
    }

    /// What it asks for, if none of it is refused.
    fn splits(
        &self,
        exported_to: &ClientSelector,
        diagnostics: &mut Diagnostics,
    ) -> Result<Splits, Stopped> {
        let http = self.list(List::Http, diagnostics);
        // Delegates are for HTTP alone, and what is refused for certain waits for none.
        let tls = self.list(List::Tls, diagnostics);
        let tcp = self.list(List::Tcp, diagnostics);
        let (tls, tcp, http) = (tls?, tcp?, http?);
        let undeclared = Undeclared::of(&http, &tcp);
        let lists = [
            (&http, AppProtocol::Http),
            (&tls, AppProtocol::Tls),
            (&tcp, AppProtocol::Tcp),
        ];
        let mut splits = Vec::new();
        for (compiled, protocol) in lists {
            for (part, leaves) in compiled.listed.parts.iter().zip(&compiled.leaves) {
                let Some(clients) = clients(part, exported_to) else {
                    continue;
                };
                let numbers = part.conditions.port.map(|port| BTreeSet::from([port]));
                let declared = Ports {
                    numbers: numbers.clone(),
                    protocols: Some(BTreeSet::from([protocol])),
                    ..Ports::ALL
                };
                let ports = match (protocol, &numbers) {
                    (AppProtocol::Tls, _) => vec![declared],
                    _ => undeclared.with(declared),
                };
                let split = Split {
                    leaves_field: format!("{}.route", part.rule.field),
                    leaves: leaves.clone(),
                    unready_share: UnreadyShare::Refused,
                    destinations: Destinations::Hosts,
                };
                let block = part.block.filter(|block| block.port.is_some());
                let field = block.map(|block| format!("{}.port", block.field).into_boxed_str());
                splits.extend(ports.into_iter().map(|ports| OfRoot {
                    ports,
                    ports_field: field.clone(),
                    clients: Clients::of(clients.clone()),
                    split: Some(split.clone()),
                }));
            }
        }
        if splits.is_empty() {
            let is_for_mesh = ![&http, &tls, &tcp].into_iter().all(Compiled::is_empty);
            let (field, message) = if is_for_mesh {
                (
                    "spec.exportTo",
                    "has none of the namespaces for whose clients the rules are; add them here, or \
                     correct the rules",
                )
            } else if self.service.rules.iter().next().is_some() {
                (
                    "spec",
                    "has rules for gateways alone, which splitter does not see; add mesh to the gateways \
                     of a rule if it is for clients in the cluster too",
                )
            } else {
                ("spec", "has no rules; write http, tcp or both")
            };
            let (severity, reason) = (Severity::Inactive, reason::NO_RULE);
            self.emit(diagnostics, severity, reason, field, message);
        }
        Ok((splits, undeclared.ambiguous()))
    }

    /// What a list of rules comes to; if any of it is refused or not known, says so.
    fn list(&self, list: List, diagnostics: &mut Diagnostics) -> Result<Compiled<'a>, Stopped> {
        let rules = self.service.rules.of(list);
        let is_same = |one: &Rule, other: &Rule| leaves::is_same(self, one, other);
        let listed = match list {
            List::Tls => self.tls(rules, diagnostics)?,
            List::Http | List::Tcp => rules::list(list, rules, is_same),
        };
        self.are_delegates_usable(&listed, diagnostics)?;
        let mut is_refused = false;
        for block in &listed.uncertain {
            for demand in &block.requests {
                is_refused = true;
                self.refuse_demand(reason::MATCHES_UNSUPPORTED, demand, diagnostics);
            }
        }
        let mut ignored = Vec::new();
        for rule in &listed.live {
            for demand in &rule.demands {
                if demand.changes == Changes::How && rule.ignores {
                    ignored.push(demand);
                } else {
                    is_refused = true;
                    self.refuse_demand(reason::UNSUPPORTED_FIELD, demand, diagnostics);
                }
            }
        }
        if is_refused {
            return Err(Stopped::Refused);
        }
        for demand in ignored {
            let message = format!(
                "{}, which is ignored as {UNSUPPORTED} says: splitter splits connections",
                demand.what
            );
            let (severity, reason) = (Severity::Warning, reason::UNSUPPORTED_IGNORED);
            self.emit(diagnostics, severity, reason, &*demand.field, message);
        }
        let mut leaves = Vec::with_capacity(listed.parts.len());
        for part in &listed.parts {
            let of_part = self.leaves(part.rule, diagnostics);
            leaves.push(of_part.ok_or(Stopped::Refused)?);
        }
        Ok(Compiled { listed, leaves })
    }

    /// Whether the rules of all delegates that some connection may meet are in their places; says which
    /// are not. Of the others, nothing more can be said before they are.
    fn are_delegates_usable(
        &self,
        listed: &Listed<'a>,
        diagnostics: &mut Diagnostics,
    ) -> Result<(), Stopped> {
        let mut stopped = Ok(());
        for rule in &listed.live {
            let field = format!("{}.delegate", rule.field);
            match &rule.delegate {
                None => {}
                Some(Delegate::NotKnownYet(message)) => {
                    let (severity, reason) = (Severity::Warning, reason::NOT_KNOWN_YET);
                    self.emit(diagnostics, severity, reason, field, &**message);
                    if stopped.is_ok() {
                        stopped = Err(Stopped::Waits);
                    }
                }
                Some(Delegate::Unusable { reason, message }) => {
                    self.refuse(diagnostics, reason, field, &**message);
                    stopped = Err(Stopped::Refused);
                }
                Some(Delegate::Named(_)) => {
                    let message = "was not looked up; write its rules here";
                    self.refuse(diagnostics, reason::DELEGATE_UNUSABLE, field, message);
                    stopped = Err(Stopped::Refused);
                }
            }
        }
        stopped
    }

    fn refuse_demand(&self, reason: &'static str, demand: &Demand, diagnostics: &mut Diagnostics) {
        let remedy = match demand.changes {
            Changes::Where => "remove it".to_owned(),
            Changes::How => format!(
                "remove it, or set the annotation {UNSUPPORTED}: {IGNORE} to have it ignored"
            ),
        };
        let message = format!(
            "{}, and splitter splits connections, of which it reads nothing; {remedy}",
            demand.what
        );
        self.refuse(diagnostics, reason, &*demand.field, message);
    }
}

/// The clients of a part, of those that the object is for; `None` if there can be none.
fn clients(part: &Part<'_>, exported_to: &ClientSelector) -> Option<ClientSelector> {
    let mut clients = part.conditions.clients.clone();
    clients.is_consumer = exported_to.is_consumer;
    clients.namespaces = match (clients.namespaces, &exported_to.namespaces) {
        (namespaces, None) => namespaces,
        (None, Some(namespaces)) => Some(namespaces.clone()),
        (Some(own), Some(others)) => {
            let both: BTreeSet<String> = own.intersection(others).cloned().collect();
            if both.is_empty() {
                return None;
            }
            Some(both)
        }
    };
    Some(clients)
}
