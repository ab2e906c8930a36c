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
    fn cover(&self, other: &Self) -> bool {
        (self.port.is_none() || self.port == other.port) && self.clients.covers(&other.clients)
    }
}

/// What a VirtualService calls the clients in the cluster.
pub(super) const MESH: &str = "mesh";

/// A rule as far as it is for clients in the cluster: its conditions, each with what else the block
/// asks for.
struct Applicable<'a> {
    rule: &'a Rule,
    blocks: Vec<(Conditions, &'a Block)>,
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
    fn certain(&self) -> Vec<Conditions> {
        if self.blocks.is_empty() {
            return vec![Conditions::default()];
        }
        let certain = self.blocks.iter().filter(|(_, block)| is_certain(block));
        certain.map(|(conditions, _)| conditions.clone()).collect()
    }

    /// Whether every connection is its own that no rule before it has.
    fn takes_the_rest(&self) -> bool {
        self.certain().contains(&Conditions::default())
    }

    /// A block that asks for what a connection does not show, unless others of the rule make up for
    /// it.
    fn uncertain(&self) -> Option<&'a Block> {
        let certain = self.certain();
        let uncertain = self.blocks.iter().find(|(conditions, block)| {
            !is_certain(block) && !certain.iter().any(|certain| certain.cover(conditions))
        });
        uncertain.map(|(_, block)| *block)
    }
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
fn add<'a>(parts: &mut Vec<Part<'a>>, rule: &'a Rule, conditions: Conditions) {
    let is_dead = |conditions: &Conditions, parts: &[Part<'_>]| {
        let mut before = parts.iter();
        before.any(|part| part.conditions.cover(conditions))
    };
    if is_dead(&conditions, parts) {
        return;
    }
    // What is for some clients comes before what is for all. Where that is not the order of the rules,
    // the earlier rule is for these clients, too.
    if conditions.clients != ClientSelector::default() && conditions.port.is_none() {
        let before = parts.iter();
        let for_all = before.filter(|part| part.conditions.clients == ClientSelector::default());
        let again: Vec<Part<'a>> = for_all
            .map(|part| Part {
                rule: part.rule,
                conditions: Conditions {
                    port: part.conditions.port,
                    clients: conditions.clients.clone(),
                },
            })
            .collect();
        parts.extend(again);
    }
    parts.push(Part { rule, conditions });
}

/// Goes through a list. `is_same` tells whether two rules have the same destinations.
pub(super) fn list<'a>(
    list: List,
    rules: &'a [Rule],
    is_same: impl Fn(&Rule, &Rule) -> bool,
) -> Listed<'a> {
    let applicable: Vec<Applicable<'a>> = rules
        .iter()
        .filter_map(|rule| Applicable::of(list, rule))
        .collect();
    let last = applicable.iter().position(Applicable::takes_the_rest);
    let end = last.map_or(applicable.len(), |last| last + 1);
    let live = applicable.get(..end).unwrap_or_default();
    // From this rule on, all have the same destinations.
    let mut same_from = live.len().saturating_sub(1);
    for (index, pair) in live.windows(2).enumerate().rev() {
        let [one, other] = pair else { break };
        if !is_same(one.rule, other.rule) {
            break;
        }
        same_from = index;
    }
    let mut parts: Vec<Part<'a>> = Vec::new();
    let mut uncertain = Vec::new();
    for (index, rule) in live.iter().enumerate() {
        if let Some(block) = rule.uncertain() {
            let makes_no_difference = last.is_some() && index >= same_from;
            if !makes_no_difference {
                uncertain.push(block);
            }
        }
        for conditions in rule.certain() {
            add(&mut parts, rule.rule, conditions);
        }
    }
    Listed {
        parts,
        live: live.iter().map(|applicable| applicable.rule).collect(),
        uncertain,
    }
}
