//! From Istio's VirtualServices to the neutral form.

mod delegates;
mod destinations;
pub(crate) mod host;
mod leaves;
mod merge;
mod rules;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{is_api_server, quoted};
use crate::compile::{Diagnostics, Severity};
use crate::objects::istio::virtual_service::{
    Block, Changes, Delegate, Demand, IGNORE, List, Rule,
};
use crate::objects::{AppProtocol, Kind, ObjectName, ObjectReference, UNSUPPORTED, VirtualService};
use crate::plan::Origin;
use crate::reason;
use crate::route::{
    self, Claim, ClientSelector, Clients, Context, Destinations, Leaf, Ports, RouteObject, Split,
    Translate, UnreadyShare,
};
use rules::{Listed, MESH, Part};

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
            asked.splits.iter().map(|(ports, clients, split)| Claim {
                origin: translator.origin.clone(),
                precedence: object.kind.precedence,
                created: object.created,
                root: root.clone(),
                root_field: root_field.clone(),
                ports: ports.clone(),
                clients: clients.clone(),
                split: split.clone(),
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

/// Most hosts of one VirtualService.
const MAX_HOSTS: usize = 256;
/// Most rules and matches of one VirtualService.
const MAX_BLOCKS: usize = 256;
/// Most hosts times rules and matches.
const MAX_CLAIMS: usize = 4_096;

/// What a VirtualService asks of each of its roots.
struct Asked {
    /// The roots, each once, with their fields.
    roots: Vec<(ObjectName, String)>,
    /// In the order in which they count; one that is refused if anything is.
    splits: Vec<(Ports, Clients, Option<Split>)>,
    /// The kind of which an object that was not heard of decides what it asks for.
    waits_for: Option<Kind>,
}

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

/// A list of rules, and the leaves of its parts.
struct Compiled<'a> {
    listed: Listed<'a>,
    leaves: Vec<Vec<Leaf>>,
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
        is_refused |= is_protected;
        let clients = self.exported_to();
        self.tell_conflicts(diagnostics);
        let splits = match is_refused {
            _ if self.service.is_for_its_destinations => Ok(self.of_destinations(diagnostics)),
            true => Err(Stopped::Refused),
            false => self.splits(&clients, diagnostics),
        };
        let waits_for = (splits == Err(Stopped::Waits)).then_some(Kind::VIRTUAL_SERVICE);
        let splits = splits.unwrap_or_else(|_| vec![(Ports::ALL, Clients::of(clients), None)]);
        Some(Asked {
            roots,
            splits,
            waits_for,
        })
    }

    /// Whether there are more hosts and conditions than any that people write: each host has a claim
    /// for each block of conditions.
    fn is_too_large(&self, diagnostics: &mut Diagnostics) -> bool {
        let hosts = self.service.hosts.len();
        let blocks: usize = self
            .service
            .rules
            .iter()
            .map(|it| it.blocks.len().max(1))
            .sum();
        let (field, what) = if hosts > MAX_HOSTS {
            (
                "spec.hosts",
                format!("has {hosts} hosts, and {MAX_HOSTS} are read"),
            )
        } else if blocks > MAX_BLOCKS {
            (
                "spec",
                format!("has {blocks} rules and matches, and {MAX_BLOCKS} are read"),
            )
        } else if hosts * blocks > MAX_CLAIMS {
            let claims = hosts * blocks;
            (
                "spec",
                format!(
                    "has {claims} combinations of a host and a match, and {MAX_CLAIMS} are read"
                ),
            )
        } else {
            return false;
        };
        let message = format!("{what} at most; write several VirtualServices");
        self.refuse(diagnostics, reason::INVALID_SPEC, field, message);
        true
    }

    /// Tells what could not be read; whether there is anything.
    fn is_unreadable(&self, diagnostics: &mut Diagnostics) -> bool {
        for refusal in &self.service.refusals {
            let message = refusal.message.clone();
            self.refuse(diagnostics, refusal.reason, &*refusal.field, message);
        }
        !self.service.refusals.is_empty()
    }

    fn tell_unknown(&self, diagnostics: &mut Diagnostics) {
        for field in &self.service.unknown {
            let message = "is not a field of VirtualServices and is ignored; remove it";
            let (severity, reason) = (Severity::Warning, reason::UNKNOWN_FIELD);
            self.emit(diagnostics, severity, reason, &**field, message);
        }
        for field in &self.service.mistaken {
            let message = format!(
                "is not an annotation that splitter knows, so it does nothing; write \
                 metadata.annotations[{UNSUPPORTED}], the only one there is, or remove it"
            );
            let field = format!("metadata.{field}");
            let (severity, reason) = (Severity::Warning, reason::UNKNOWN_ANNOTATION);
            self.emit(diagnostics, severity, reason, field, message);
        }
        if let Some(value) = &self.service.unsupported
            && value != IGNORE
        {
            let message = format!(
                "{} is not known, so what a connection cannot do is refused; write {IGNORE}, or \
                 remove it",
                quoted(value)
            );
            let field = format!("metadata.annotations[{UNSUPPORTED}]");
            let (severity, reason) = (Severity::Warning, reason::INVALID_ANNOTATION);
            self.emit(diagnostics, severity, reason, field, message);
        }
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
    ) -> Result<Vec<(Ports, Clients, Option<Split>)>, Stopped> {
        let http = self.list(List::Http, diagnostics);
        // Delegates are for HTTP alone, and what is refused for certain waits for none.
        let tls = self.list(List::Tls, diagnostics);
        let tcp = self.list(List::Tcp, diagnostics);
        let (tls, tcp, http) = (tls?, tcp?, http?);
        let is_ambiguous = !http.is_empty() && !tcp.is_empty() && !http.is_same(&tcp);
        if is_ambiguous {
            let message = "differ from those of spec.http, so a port of which the Service does not say \
                           what is spoken there is not split; give it an appProtocol or a name such as \
                           http or tcp";
            let (severity, reason) = (Severity::Warning, reason::AMBIGUOUS_PROTOCOL);
            self.emit(diagnostics, severity, reason, "spec.tcp", message);
        }
        let undeclared = [AppProtocol::Undeclared].into_iter();
        let with_http = undeclared.clone().filter(|_| !is_ambiguous);
        let with_tcp = undeclared.filter(|_| http.is_empty());
        let lists: [(_, BTreeSet<AppProtocol>); 3] = [
            (&http, with_http.chain([AppProtocol::Http]).collect()),
            (&tls, BTreeSet::from([AppProtocol::Tls])),
            (&tcp, with_tcp.chain([AppProtocol::Tcp]).collect()),
        ];
        let mut splits = Vec::new();
        for (compiled, protocols) in lists {
            for (part, leaves) in compiled.listed.parts.iter().zip(&compiled.leaves) {
                let Some(clients) = clients(part, exported_to) else {
                    continue;
                };
                let ports = Ports {
                    numbers: part.conditions.port.map(|port| BTreeSet::from([port])),
                    protocols: Some(protocols.clone()),
                    ..Ports::ALL
                };
                let split = Split {
                    leaves_field: format!("{}.route", part.rule.field),
                    leaves: leaves.clone(),
                    unready_share: UnreadyShare::Refused,
                    destinations: Destinations::Hosts,
                };
                splits.push((ports, Clients::of(clients), Some(split)));
            }
        }
        if splits.is_empty() && self.service.rules.iter().next().is_none() {
            let message = "has no rules; write http, tcp or both";
            self.emit(
                diagnostics,
                Severity::Inactive,
                reason::NO_RULE,
                "spec",
                message,
            );
        }
        Ok(splits)
    }

    /// What a list of rules comes to; if any of it is refused or not known, says so.
    fn list(&self, list: List, diagnostics: &mut Diagnostics) -> Result<Compiled<'a>, Stopped> {
        let rules = self.service.rules.of(list);
        let is_same = |one: &Rule, other: &Rule| leaves::is_same(self, one, other);
        let listed = rules::list(list, rules, is_same);
        self.are_delegates_usable(&listed, diagnostics)?;
        let mut is_refused = false;
        for block in &listed.uncertain {
            for demand in &block.requests {
                is_refused = true;
                self.refuse_demand(reason::MATCHES_UNSUPPORTED, demand, diagnostics);
            }
        }
        let sni = listed
            .uncertain
            .iter()
            .any(|block| !block.sni_hosts.is_empty());
        let listed = if list == List::Tls {
            self.tls(listed, rules, sni, &mut is_refused, diagnostics)
        } else {
            listed
        };
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

    /// TLS rules choose by the name that the client asks for, which comes after the connection. If all
    /// of them have the same destinations, and between them every host, that makes no difference to a
    /// client that asks for one of the hosts.
    fn tls(
        &self,
        listed: Listed<'a>,
        rules: &'a [Rule],
        is_uncertain: bool,
        is_refused: &mut bool,
        diagnostics: &mut Diagnostics,
    ) -> Listed<'a> {
        for rule in rules {
            for (index, block) in rule.blocks.iter().enumerate() {
                if block.sni_hosts.is_empty() {
                    *is_refused = true;
                    let field = format!("{}.match[{index}].sniHosts", rule.field);
                    let message = "is empty; write the names that clients of TLS ask for";
                    self.refuse(diagnostics, reason::INVALID_SPEC, field, message);
                }
            }
            if rule.blocks.is_empty() {
                *is_refused = true;
                let field = format!("{}.match", rule.field);
                let message = "is empty; write sniHosts";
                self.refuse(diagnostics, reason::INVALID_SPEC, field, message);
            }
        }
        if !is_uncertain || *is_refused {
            return listed;
        }
        let has_others = |rule: &Rule| {
            let block_has = |block: &Block| {
                block.port.is_some()
                    || block.source_namespace.is_some()
                    || !block.source_labels.is_empty()
                    || !block.gateways.is_empty()
            };
            rule.blocks.iter().any(block_has)
        };
        let names: BTreeSet<String> = rules
            .iter()
            .flat_map(|rule| &rule.blocks)
            .flat_map(|block| &block.sni_hosts)
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let mut hosts = self.service.hosts.iter();
        let is_whole = hosts.all(|host| names.contains(&host.to_ascii_lowercase()));
        let is_plain = listed
            .uncertain
            .iter()
            .all(|block| block.requests.is_empty());
        match rules.split_first() {
            Some((first, rest))
                if is_whole
                    && is_plain
                    && !rules.iter().any(has_others)
                    && rest.iter().all(|rule| leaves::is_same(self, first, rule)) =>
            {
                let message = "is taken as met by every connection, since all rules have the same \
                               destinations; Istio would refuse a client that asks for another name";
                let field = first.blocks.first().map_or("", |block| &block.sni_field);
                let (severity, reason) = (Severity::Note, reason::APPROXIMATED);
                self.emit(diagnostics, severity, reason, field, message);
                let part = Part {
                    rule: first,
                    conditions: rules::Conditions::default(),
                };
                Listed {
                    parts: vec![part],
                    ..listed
                }
            }
            _ => {
                *is_refused = true;
                for block in &listed.uncertain {
                    let message = "chooses by the name that a client of TLS asks for, which comes \
                                   after the connection; remove the rule, or give all rules the same \
                                   destinations";
                    let field = &*block.sni_field;
                    self.refuse(diagnostics, reason::MATCHES_UNSUPPORTED, field, message);
                }
                listed
            }
        }
    }
}

impl Compiled<'_> {
    fn is_empty(&self) -> bool {
        self.listed.parts.is_empty()
    }

    /// Whether another list comes to the same.
    fn is_same(&self, other: &Self) -> bool {
        let of = |compiled: &Self| -> Vec<_> {
            let parts = compiled.listed.parts.iter().zip(&compiled.leaves);
            parts
                .map(|(part, leaves)| (part.conditions.clone(), leaves::normal(leaves)))
                .collect()
        };
        of(self) == of(other)
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
