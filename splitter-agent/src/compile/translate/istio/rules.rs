//! Which rules of a VirtualService hold for which connections.
//!
//! Istio goes through a list of rules and takes the first that a request meets. Some conditions are
//! known of a connection: the port that was dialled and the pod that dials. A rule that asks for more
//! can be left out only if it makes no difference: if every rule up to the one that takes everything
//! else goes to the same destinations.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::istio::virtual_service::{Block, List, Rule};
use crate::route::ClientSelector;

/// The connections that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The rule.
    pub(super) rule: &'a Rule,
    /// Their conditions.
    pub(super) conditions: Conditions,
    /// Where these stand; `None` for a rule without any.
    pub(super) block: Option<&'a Block>,
}

/// Conditions that are known of a connection: those that are there are met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// The port that was dialled.
    pub(super) port: Option<u16>,
    /// Who dials.
    pub(super) clients: ClientSelector,
}

impl Conditions {
    /// Those of a block in a list; `None` if no client in the cluster can meet them.
    fn of(list: List, block: &Block) -> Option<Self> {
        let is_of_mesh = block.gateways.iter().any(|gateway| gateway == MESH);
        if !block.gateways.is_empty() && !is_of_mesh {
            return None;
        }
        // In an HTTP rule, a gateway that is met stands for the client (`sourceMatchHTTP` in
        // Istio's `route.go`).
        let counts = list != List::Http || !is_of_mesh;
        let (namespaces, labels) = if counts {
            let namespace = block.source_namespace.clone();
            let namespaces = namespace.map(|namespace| BTreeSet::from([namespace]));
            (namespaces, block.source_labels.clone())
        } else {
            (None, BTreeMap::new())
        };
        Some(Self {
            port: block.port,
            clients: ClientSelector {
                namespaces,
                labels,
                is_consumer: false,
            },
        })
    }

    /// Whether every connection that meets the other ones meets these.
    pub(super) fn cover(&self, other: &Self) -> bool {
        (self.port.is_none() || self.port == other.port) && self.clients.covers(&other.clients)
    }
}

/// Whether one connection can meet two conditions.
pub(super) fn overlap(one: &Conditions, other: &Conditions) -> bool {
    let is_one_port = one.port.is_none() || other.port.is_none() || one.port == other.port;
    let (one, other) = (&one.clients, &other.clients);
    let is_one_namespace = match (&one.namespaces, &other.namespaces) {
        (Some(one), Some(other)) => !one.is_disjoint(other),
        _ => true,
    };
    let mut labels = one.labels.iter();
    is_one_port
        && is_one_namespace
        && labels.all(|(key, value)| other.labels.get(key).is_none_or(|it| it == value))
}

/// What a VirtualService calls the clients in the cluster.
pub(super) const MESH: &str = "mesh";

/// A rule as far as it is for clients in the cluster: its conditions, each with what else the block
/// asks for.
pub(super) struct Applicable<'a> {
    /// The rule.
    pub(super) rule: &'a Rule,
    /// The conditions, each with its block.
    pub(super) blocks: Vec<(Conditions, &'a Block)>,
}

impl<'a> Applicable<'a> {
    fn of(list: List, rule: &'a Rule) -> Option<Self> {
        let blocks: Vec<_> = rule
            .blocks
            .iter()
            .filter_map(|block| Some((Conditions::of(list, block)?, block)))
            .collect();
        (rule.blocks.is_empty() || !blocks.is_empty()).then_some(Self { rule, blocks })
    }

    /// The conditions under which a connection is its own for certain.
    fn certain(&self) -> Vec<(Conditions, Option<&'a Block>)> {
        if self.blocks.is_empty() {
            return vec![(Conditions::default(), None)];
        }
        let certain = self.blocks.iter().filter(|(_, block)| is_certain(block));
        let certain = certain.map(|(conditions, block)| (conditions.clone(), Some(*block)));
        certain.collect()
    }

    /// Whether every connection is its own for certain that meets these conditions and that no rule
    /// before it has.
    fn takes(&self, wanted: &Conditions) -> bool {
        let mut certain = self.blocks.iter().filter(|(_, block)| is_certain(block));
        self.blocks.is_empty() || certain.any(|(conditions, _)| conditions.cover(wanted))
    }

    /// The same without the blocks that no connection comes to, since these parts before it have them
    /// all; `None` if there are no others.
    fn after(self, parts: &[Part<'_>]) -> Option<Self> {
        let Self { rule, mut blocks } = self;
        blocks.retain(|(conditions, _)| !is_dead(conditions, parts));
        (rule.blocks.is_empty() || !blocks.is_empty()).then_some(Self { rule, blocks })
    }
}

/// The rules of a list as far as they are for clients in the cluster, up to the first that takes
/// everything.
pub(super) fn applicable(list: List, rules: &[Rule]) -> Vec<Applicable<'_>> {
    let mut applicable = Vec::new();
    for rule in rules.iter().filter_map(|rule| Applicable::of(list, rule)) {
        let takes_the_rest = rule.takes(&Conditions::default());
        applicable.push(rule);
        if takes_the_rest {
            break;
        }
    }
    applicable
}

/// Whether every connection that meets these conditions is one of these parts.
fn is_dead(conditions: &Conditions, parts: &[Part<'_>]) -> bool {
    let mut before = parts.iter();
    before.any(|part| part.conditions.cover(conditions))
}

fn is_certain(block: &Block) -> bool {
    block.requests.is_empty() && block.sni_hosts.is_empty()
}

/// What a list comes to.
pub(super) struct Listed<'a> {
    /// In the order in which they count.
    pub(super) parts: Vec<Part<'a>>,
    /// The rules that some connection may meet.
    pub(super) live: Vec<&'a Rule>,
    /// The blocks that ask for what a connection does not show, and make a difference.
    pub(super) uncertain: Vec<&'a Block>,
}

/// Adds the connections of a rule that no rule before it has.
pub(super) fn add<'a>(parts: &mut Vec<Part<'a>>, part: Part<'a>) {
    if is_dead(&part.conditions, parts) {
        return;
    }
    let conditions = &part.conditions;
    // What is for some clients comes before what is for all. Where that is not the order of the rules,
    // the earlier rule is for these clients, too.
    if conditions.clients != ClientSelector::default() && conditions.port.is_none() {
        let before = parts.iter();
        let for_all = before.filter(|part| part.conditions.clients == ClientSelector::default());
        let again: Vec<Part<'a>> = for_all
            .map(|part| Part {
                conditions: Conditions {
                    port: part.conditions.port,
                    clients: conditions.clients.clone(),
                },
                ..part.clone()
            })
            .collect();
        parts.extend(again);
    }
    parts.push(part);
}

/// For each rule, the last one of those in a row after it that have the same destinations.
fn ends(rules: &[Applicable<'_>], is_same: impl Fn(&Rule, &Rule) -> bool) -> Vec<usize> {
    let blocks = rules.iter().flat_map(|rule| &rule.blocks);
    let matters = blocks.into_iter().any(|(_, block)| !is_certain(block));
    let mut ends: Vec<usize> = (0..rules.len()).collect();
    let mut end = rules.len().saturating_sub(1);
    for (index, pair) in rules.windows(2).enumerate().rev() {
        let [one, other] = pair else { break };
        if !matters || !is_same(one.rule, other.rule) {
            end = index;
        }
        if let Some(of_rule) = ends.get_mut(index) {
            *of_rule = end;
        }
    }
    ends
}

/// Goes through a list. `is_same` tells whether two rules have the same destinations.
pub(super) fn list<'a>(
    list: List,
    rules: &'a [Rule],
    is_same: impl Fn(&Rule, &Rule) -> bool,
) -> Listed<'a> {
    let mut live: Vec<Applicable<'a>> = Vec::new();
    let mut parts: Vec<Part<'a>> = Vec::new();
    for applicable in applicable(list, rules) {
        let Some(applicable) = applicable.after(&parts) else {
            continue;
        };
        let rule = applicable.rule;
        for (conditions, block) in applicable.certain() {
            let part = Part {
                rule,
                conditions,
                block,
            };
            add(&mut parts, part);
        }
        live.push(applicable);
    }
    let ends = ends(&live, is_same);
    let mut uncertain = Vec::new();
    for (index, (rule, end)) in live.iter().zip(ends).enumerate() {
        // Up to here the destinations are the same.
        let same = live.get(index + 1..=end).unwrap_or_default();
        let makes_a_difference = |(conditions, block): &&(Conditions, &Block)| {
            let is_taken = rule.takes(conditions) || same.iter().any(|it| it.takes(conditions));
            !is_certain(block) && !is_taken
        };
        let found = rule.blocks.iter().find(makes_a_difference);
        uncertain.extend(found.map(|(_, block)| *block));
    }
    Listed {
        parts,
        live: live.iter().map(|applicable| applicable.rule).collect(),
        uncertain,
    }
}
