//! A rule that delegates and a rule of its delegate, as one (`mergeHTTPRoute` in Istio's
//! `virtualservice.go`).

use std::collections::BTreeSet;

use super::rules::MESH;
use crate::objects::ObjectName;
use crate::objects::istio::virtual_service::{
    Block, Delegate, Demand, Destination, Rule, TextMatch,
};
use crate::reason;

/// The conditions of the two exclude each other, or the delegate's reach further.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The conditions of the delegate's rule.
    pub(super) field: String,
}

/// Where rules meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The namespace of the VirtualService that delegates.
    pub(super) namespace: &'a str,
    /// The delegate.
    pub(super) delegate: &'a ObjectName,
}

/// A rule of a delegate, in the place of the rule that delegates. Fields of the delegate's
/// are seen from there: `spec.http[0].delegate.http[1].route`.
///
/// # Errors
///
/// If conditions of the two are in conflict.
pub(super) fn rule(root: &Rule, own: &Rule, place: Place<'_>) -> Result<Rule, Conflict> {
    let seen = |field: &str| {
        let field = field.strip_prefix("spec.").unwrap_or(field);
        format!("{}.delegate.{field}", root.field)
    };
    let field = seen(&own.field);
    let own_blocks: Vec<Block> = own.blocks.iter().map(|it| seen_block(it, seen)).collect();
    let Some(blocks) = blocks(root, own_blocks, place) else {
        let field = format!("{field}.match");
        return Err(Conflict { field });
    };
    let route = own.route.iter().map(|destination| Destination {
        field: seen(&destination.field),
        namespace: Some(place.delegate.namespace.clone()),
        ..destination.clone()
    });
    let demands = own.demands.iter().map(|demand| seen_demand(demand, seen));
    let delegate = own.delegate.as_ref().map(|_| Delegate::Unusable {
        reason: reason::DELEGATE_UNUSABLE,
        message:
            "stands in a rule of a delegate, and there is one level of them; write the rules there"
                .to_owned(),
    });
    Ok(Rule {
        blocks,
        route: route.collect(),
        delegate,
        demands: inherited(root, own).cloned().chain(demands).collect(),
        inherited: own.inherited.clone(),
        ignores: root.ignores || own.ignores,
        field,
    })
}

/// What the rule that delegates asks for beside, where the delegate's does not say otherwise.
fn inherited<'a>(root: &'a Rule, own: &'a Rule) -> impl Iterator<Item = &'a Demand> {
    root.demands.iter().filter(|demand| {
        let below = demand.field.strip_prefix(&*root.field).unwrap_or_default();
        let name = below.trim_start_matches('.').split(['.', '[']).next();
        !own.inherited.iter().any(|own| Some(*own) == name)
    })
}

fn seen_demand(demand: &Demand, seen: impl Fn(&str) -> String) -> Demand {
    Demand {
        field: seen(&demand.field),
        ..demand.clone()
    }
}

fn seen_block(block: &Block, seen: impl Fn(&str) -> String + Copy) -> Block {
    let requests = block.requests.iter();
    Block {
        field: seen(&block.field),
        requests: requests.map(|demand| seen_demand(demand, seen)).collect(),
        ..block.clone()
    }
}

/// The conditions of both: each of the delegate's with each of the root's that it is within. `None` if
/// one is within none.
fn blocks(root: &Rule, own: Vec<Block>, place: Place<'_>) -> Option<Vec<Block>> {
    if root.blocks.is_empty() {
        return Some(own);
    }
    if own.is_empty() {
        return Some(root.blocks.clone());
    }
    let mut merged = Vec::with_capacity(own.len());
    for own in &own {
        let before = merged.len();
        let within = root
            .blocks
            .iter()
            .filter(|root| !is_conflict(root, own, place));
        merged.extend(within.map(|root| block(root, own)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

/// Two conditions as one, of which the delegate's counts where both say something.
fn block(root: &Block, own: &Block) -> Block {
    const SINGLE: [&str; 4] = ["uri", "scheme", "method", "authority"];
    let is_replaced = |demand: &&Demand| {
        let name = demand.field.rsplit('.').next();
        let mut single = SINGLE.into_iter();
        single.any(|it| Some(it) == name && own.texts.contains_key(it))
    };
    let of_root = root.requests.iter().filter(|demand| !is_replaced(demand));
    let requests = of_root.chain(&own.requests).cloned().collect();
    let (mut source_labels, mut texts) = (root.source_labels.clone(), root.texts.clone());
    source_labels.extend(own.source_labels.clone());
    texts.extend(own.texts.clone());
    let gateways = match own.gateways.as_slice() {
        [] => root.gateways.clone(),
        own => own.to_vec(),
    };
    let source_namespace = own
        .source_namespace
        .as_ref()
        .or(root.source_namespace.as_ref());
    Block {
        port: own.port.or(root.port),
        source_namespace: source_namespace.cloned(),
        source_labels,
        gateways,
        requests,
        texts,
        ..own.clone()
    }
}

/// Whether a condition of a delegate is not within one of the rule that delegates.
fn is_conflict(root: &Block, own: &Block, place: Place<'_>) -> bool {
    let mut texts = own.texts.iter();
    let differ = |one: Option<u16>, other: Option<u16>| matches!((one, other), (Some(one), Some(other)) if one != other);
    let mut labels = own.source_labels.iter();
    texts.any(|(field, own)| {
        let root = root.texts.get(field);
        root.is_some_and(|root| is_text_conflict(root, own))
    }) || root.ignores_case != own.ignores_case
        || differ(root.port, own.port)
        || root.source_namespace.is_some() && root.source_namespace != own.source_namespace
        || labels.any(|(label, value)| {
            let root = root.source_labels.get(label);
            root.is_some_and(|root| root != value)
        })
        || is_gateway_conflict(root, own, place)
}

/// Whether a delegate's condition names a gateway that the other does not.
fn is_gateway_conflict(root: &Block, own: &Block, place: Place<'_>) -> bool {
    if root.gateways.is_empty() || own.gateways.is_empty() {
        return false;
    }
    let known = root.gateways.iter();
    let known: BTreeSet<String> = known.map(|it| full_name(it, place.namespace)).collect();
    let mut names = own
        .gateways
        .iter()
        .map(|it| full_name(it, &place.delegate.namespace));
    own.gateways.len() > root.gateways.len() || names.any(|name| !known.contains(&name))
}

/// A gateway with its namespace, as one of this namespace writes it: `./name`, `name`, or the old
/// form `name.namespace.svc.cluster.local` (`resolveGatewayName`).
fn full_name(gateway: &str, namespace: &str) -> String {
    match (gateway.split_once('/'), gateway.split_once('.')) {
        _ if gateway == MESH => gateway.to_owned(),
        (Some((".", name)), _) => format!("{namespace}/{name}"),
        (Some(_), _) => gateway.to_owned(),
        (None, Some((name, rest))) => {
            let namespace = rest.split('.').next().unwrap_or_default();
            format!("{namespace}/{name}")
        }
        (None, None) => format!("{namespace}/{gateway}"),
    }
}

/// Whether what a delegate asks of a text is not within what the other asks of it
/// (`stringMatchConflict`).
fn is_text_conflict(root: &TextMatch, own: &TextMatch) -> bool {
    match (root, own) {
        (TextMatch::Exact(root), TextMatch::Exact(own)) => root != own,
        (TextMatch::Prefix(root), TextMatch::Prefix(own) | TextMatch::Exact(own)) => {
            !own.starts_with(&**root)
        }
        _ => true,
    }
}
