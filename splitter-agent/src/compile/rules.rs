//! DestinationRules, by the hosts that they are about.
//!
//! For a client, Istio looks in the client's namespace, then in that of the Service, then in its root
//! namespace; of the first that has a rule for the host, those with the most specific host count,
//! together (`destinationRule` in its `push_context.go`, `mergeDestinationRule` in
//! `destination_rule.go`). A split is for clients of many namespaces, so that rules of the client's own
//! are not used, which is said of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::diagnostics::{Diagnostics, Severity};
use super::endpoints::{Filter, Wanted};
use super::store::{Affected, Store};
use super::translate::istio::host;
use crate::objects::{
    AddressFamily, DestinationRule, Fate, Impossible, Kind, ObjectName, ObjectReference,
    ServicePort, Subset, shown,
};
use crate::plan::Frontend;
use crate::reason;
use crate::route::{Claim, Destinations, Leaf, Split};

/// Istio's root namespace, unless it was told otherwise.
const ROOT_NAMESPACE: &str = "istio-system";

/// DestinationRules.
#[derive(Clone, Debug, Default)]
pub(super) struct DestinationRules {
    all: HashMap<ObjectName, DestinationRule>,
    /// Those of each Service.
    of_service: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// Those of many hosts.
    wildcards: BTreeSet<ObjectName>,
}

/// Which endpoints of its Service a leaf has.
pub(super) enum Chosen<'a> {
    /// All.
    All,
    /// Those of pods with these labels.
    Labelled(&'a BTreeMap<String, String>),
    /// There is no such subset.
    Unknown,
}

impl DestinationRules {
    pub(super) fn get(&self, name: &ObjectName) -> Option<&DestinationRule> {
        self.all.get(name)
    }

    pub(super) fn put(&mut self, rule: DestinationRule, cluster_domain: &str) -> Vec<Affected> {
        if self.all.get(&rule.name) == Some(&rule) {
            return Vec::new();
        }
        let name = rule.name.clone();
        let mut affected = self.remove(&name, cluster_domain);
        // One that is about nothing here affects nothing.
        if let Some(service) = service_of(&rule, cluster_domain) {
            let of_service = self.of_service.entry(service.clone()).or_default();
            of_service.insert(name.clone());
            affected.push(Affected::UsersOf(service));
        } else if rule.host.contains('*') {
            self.wildcards.insert(name.clone());
            affected.push(Affected::Everything);
        }
        self.all.insert(name, rule);
        affected
    }

    pub(super) fn remove(&mut self, name: &ObjectName, cluster_domain: &str) -> Vec<Affected> {
        let Some(rule) = self.all.remove(name) else {
            return Vec::new();
        };
        if self.wildcards.remove(name) {
            return vec![Affected::Everything];
        }
        let Some(service) = service_of(&rule, cluster_domain) else {
            return Vec::new();
        };
        if let Some(of_service) = self.of_service.get_mut(&service) {
            of_service.remove(name);
            if of_service.is_empty() {
                self.of_service.remove(&service);
            }
        }
        vec![Affected::UsersOf(service)]
    }

    /// The rules that hold for a Service, the first one first.
    fn of(&self, service: &ObjectName, cluster_domain: &str) -> Vec<&DestinationRule> {
        for namespace in [service.namespace.as_str(), ROOT_NAMESPACE] {
            let is_there = |rule: &&DestinationRule| {
                rule.name.namespace == namespace && !rule.is_for_some_clients
            };
            let exact = self.of_service.get(service).into_iter().flatten();
            let exact = exact.filter_map(|name| self.all.get(name));
            let mut rules: Vec<_> = exact.filter(is_there).collect();
            if rules.is_empty() && !self.wildcards.is_empty() {
                let wildcards = self.wildcards.iter().filter_map(|name| self.all.get(name));
                let matching: Vec<_> = wildcards
                    .filter(is_there)
                    .filter(|rule| matches(&rule.host, service, cluster_domain))
                    .collect();
                let longest = matching.iter().map(|rule| rule.host.len()).max();
                let is_longest = |rule: &&DestinationRule| Some(rule.host.len()) == longest;
                rules = matching.into_iter().filter(is_longest).collect();
            }
            if !rules.is_empty() {
                rules.sort_by_key(|rule| (rule.created.is_none(), rule.created, &rule.name));
                return rules;
            }
        }
        Vec::new()
    }

    /// Rules for a Service that hold for nobody or only for some clients.
    fn unused(&self, service: &ObjectName) -> impl Iterator<Item = &DestinationRule> {
        let rules = self.of_service.get(service).into_iter().flatten();
        let rules = rules.filter_map(|name| self.all.get(name));
        rules.filter(|rule| {
            let namespace = rule.name.namespace.as_str();
            let is_of_clients = namespace != service.namespace && namespace != ROOT_NAMESPACE;
            rule.is_for_some_clients || is_of_clients
        })
    }
}

/// The Service that a rule is about, if it is about one.
pub(crate) fn service_of(rule: &DestinationRule, cluster_domain: &str) -> Option<ObjectName> {
    host::service(&rule.host, &rule.name.namespace, cluster_domain).ok()
}

/// Whether a host with a wildcard is that of a Service.
fn matches(pattern: &str, service: &ObjectName, cluster_domain: &str) -> bool {
    let Some(suffix) = pattern.strip_prefix('*') else {
        return false;
    };
    let domain = cluster_domain.trim_matches('.');
    let host = format!("{}.{}.svc.{domain}", service.name, service.namespace);
    host.ends_with(&suffix.to_ascii_lowercase()) && !suffix.contains('*')
}

impl Store {
    /// The rules that hold for a leaf, and its Service.
    fn rules_of(&self, split: &Split, leaf: &Leaf) -> Vec<&DestinationRule> {
        match (&leaf.service, split.destinations) {
            (Some(service), Destinations::Hosts) => {
                self.destination_rules.of(service, &self.cluster_domain)
            }
            _ => Vec::new(),
        }
    }

    /// The subset of a leaf; of rules that have it, the first counts.
    fn subset_of(&self, split: &Split, leaf: &Leaf) -> Option<&Subset> {
        let name = leaf.subset.as_deref()?;
        let rules = self.rules_of(split, leaf);
        rules.into_iter().find_map(|rule| rule.subset(name))
    }

    /// Which endpoints of its Service a leaf has.
    pub(super) fn chosen(&self, split: &Split, leaf: &Leaf) -> Chosen<'_> {
        if leaf.subset.is_none() {
            return Chosen::All;
        }
        match self.subset_of(split, leaf) {
            None => Chosen::Unknown,
            Some(subset) if subset.labels.is_empty() => Chosen::All,
            Some(subset) => Chosen::Labelled(&subset.labels),
        }
    }

    /// Which endpoints of its Service are wanted for a leaf.
    pub(super) fn filter(&self, split: &Split, leaf: &Leaf) -> Filter {
        match self.chosen(split, leaf) {
            Chosen::All => Filter::None,
            Chosen::Labelled(labels) => Filter::Pods(self.pods.wanted(labels)),
            Chosen::Unknown => Filter::Unknown,
        }
    }

    /// Whether the Service of a leaf has a ready endpoint, of its subset or not.
    pub(super) fn has_ready(
        &self,
        split: &Split,
        leaf: &Leaf,
        port: &ServicePort,
        family: AddressFamily,
    ) -> bool {
        let wanted = Wanted {
            port: port.port,
            protocol: port.protocol,
            family,
            is_node_local: false,
        };
        let all = self.offer(leaf.service.as_ref(), &Filter::None, wanted);
        split.destinations == Destinations::Hosts && !all.everywhere().endpoints().is_empty()
    }

    /// The port of the Service of a leaf for connections to a frontend.
    pub(super) fn port_of(&self, split: &Split, leaf: &Leaf, frontend: Frontend) -> u16 {
        let dialled = leaf.port_for(frontend);
        if leaf.port.is_some() || split.destinations != Destinations::Hosts {
            return dialled;
        }
        let service = leaf.service.as_ref().and_then(|name| self.service(name));
        match service.map(|service| &*service.ports) {
            Some([only]) => only.port,
            _ => dialled,
        }
    }

    /// What a rule asks of connections to a port of a leaf that cannot be done, and the rule.
    pub(super) fn impossible(
        &self,
        split: &Split,
        leaf: &Leaf,
        port: u16,
    ) -> Option<(&Impossible, &DestinationRule)> {
        let rules = self.rules_of(split, leaf);
        // The first rule with a policy for the whole host has it.
        let first = rules
            .iter()
            .find(|rule| rule.has_policy)
            .or(rules.first())?;
        let name = leaf.subset.as_deref();
        let of_subset = name.and_then(|name| {
            rules
                .iter()
                .find_map(|rule| Some((*rule, rule.subset(name)?)))
        });
        let policy = of_subset.map(|(_, subset)| &subset.policy);
        let impossible = first.policy.impossible(policy, port)?;
        let is_of_subset = of_subset
            .is_some_and(|(_, subset)| impossible.field.starts_with(&format!("{}.", subset.field)));
        let rule = of_subset.map_or(*first, |(rule, _)| if is_of_subset { rule } else { first });
        Some((impossible, rule))
    }
}

/// Says what becomes of the rules for the leaves of these claims.
pub(super) fn judge(store: &Store, claims: &[&Claim], diagnostics: &mut Diagnostics) {
    let splits = claims.iter().filter_map(|claim| claim.split.as_ref());
    let splits = splits.filter(|split| split.destinations == Destinations::Hosts);
    let mut leaves: Vec<(&Split, &Leaf)> = splits
        .flat_map(|split| split.leaves.iter().map(move |leaf| (split, leaf)))
        .filter(|(_, leaf)| leaf.service.is_some())
        .collect();
    leaves.sort_by_key(|(_, leaf)| &leaf.service);
    leaves.dedup_by_key(|(_, leaf)| &leaf.service);
    for (split, leaf) in leaves {
        let rules = store.rules_of(split, leaf);
        let mut subsets: HashMap<&str, (&DestinationRule, &Subset)> = HashMap::new();
        for rule in rules {
            let mut say = |severity, reason, field: &str, message: &str| {
                diagnostics.emit_for(reference(rule), severity, reason, field, message);
            };
            for note in &rule.notes {
                let (severity, reason) = match note.fate {
                    Fate::Honoured => (Severity::Note, reason::POLICY_HONOURED),
                    Fate::Approximated => (Severity::Note, reason::APPROXIMATED),
                    Fate::Ignored => (Severity::Warning, reason::POLICY_IGNORED),
                    Fate::Unusable => (Severity::Warning, reason::RULE_NOT_USED),
                    Fate::Unknown => (Severity::Warning, reason::UNKNOWN_FIELD),
                };
                say(severity, reason, &note.field, &note.message);
            }
            if !rule.export_to.is_empty() && !rule.export_to.iter().any(|to| to == "*") {
                let message = "names the namespaces of the clients that it is for, and splitter goes by it \
                               for all; remove it";
                let (severity, reason) = (Severity::Note, reason::APPROXIMATED);
                say(severity, reason, "spec.exportTo", message);
            }
            for subset in &rule.subsets {
                let (first, first_subset) = *subsets.entry(&subset.name).or_insert((rule, subset));
                if !std::ptr::eq(first_subset, subset) {
                    let message = format!(
                        "is {} again, which DestinationRule {} has already for this host; give it another \
                         name, or remove it",
                        shown(&Value::from(&*subset.name)),
                        first.name
                    );
                    let field = format!("{}.name", subset.field);
                    let (severity, reason) = (Severity::Warning, reason::RULE_NOT_USED);
                    say(severity, reason, &field, &message);
                }
            }
        }
        let Some(service) = &leaf.service else {
            continue;
        };
        for rule in store.destination_rules.unused(service) {
            let (field, message) = if rule.is_for_some_clients {
                (
                    "spec.workloadSelector",
                    "makes the rule one for some clients only, and splitter reads rules that are for all; \
                     remove it"
                        .to_owned(),
                )
            } else {
                (
                    "metadata.namespace",
                    format!(
                        "makes the rule one for clients of this namespace only, and splitter reads those for \
                         all; move it to namespace {}",
                        service.namespace
                    ),
                )
            };
            let (severity, reason) = (Severity::Warning, reason::RULE_NOT_USED);
            diagnostics.emit_for(reference(rule), severity, reason, field, message);
        }
    }
}

fn reference(rule: &DestinationRule) -> ObjectReference {
    ObjectReference::new(Kind::DESTINATION_RULE, rule.name.clone())
}
