//! What people are told of the decisions about a root's frontends: each thing once, with
//! all the ports that it is true of.

use std::collections::{BTreeMap, BTreeSet};

use splitter_common::layout::{LeafState, Protocol, Reason};

use super::diagnostics::{Report, Severity, reason};
use super::endpoints::Index;
use super::split::{Claim, Leaf, OnNoEndpoints, Split};
use crate::objects::{AddressFamily, ObjectName, Service};
use crate::plan::{Frontend, protocol_name};

/// One thing that is true of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    /// Why it is not split.
    Frontend(Reason),
    /// Why a leaf, by its index, does not take its share.
    Leaf(usize, LeafState),
}

/// Everything that is true of a root's frontends.
pub(super) struct Findings {
    found: BTreeMap<Finding, BTreeMap<(u16, Protocol), BTreeSet<AddressFamily>>>,
    families: BTreeSet<AddressFamily>,
}

impl Findings {
    pub(super) fn new(root: &Service) -> Self {
        Self {
            found: BTreeMap::new(),
            families: root.cluster_ips.iter().map(AddressFamily::of).collect(),
        }
    }

    pub(super) fn add(&mut self, finding: Finding, frontend: Frontend) {
        self.found
            .entry(finding)
            .or_default()
            .entry((frontend.address.port(), frontend.protocol))
            .or_default()
            .insert(AddressFamily::of(&frontend.address.ip()));
    }

    /// Says all of it about the object that the claim comes from.
    pub(super) fn say(self, index: &Index<'_>, claim: &Claim, split: &Split, report: &mut Report) {
        for (finding, ports) in &self.found {
            let ports = self.ports(ports);
            let said = match finding {
                Finding::Frontend(reason) => {
                    of_frontend(*reason, &ports, &claim.root, split).map(|(reason, message)| {
                        let field = match reason {
                            reason::PROTOCOL_NOT_SPLIT | reason::NO_LEAF_PORT => claim.root_field,
                            _ => split.leaves_field,
                        };
                        (field.to_owned(), reason, message)
                    })
                }
                Finding::Leaf(leaf, state) => split.leaves.get(*leaf).and_then(|leaf| {
                    of_leaf(leaf, *state, &ports, index)
                        .map(|(reason, message)| (leaf.field.clone(), reason, message))
                }),
            };
            if let Some((field, reason, message)) = said {
                report.say(&claim.origin, Severity::Warning, reason, field, message);
            }
        }
    }

    /// Ports for people, with the address family if that makes a difference.
    fn ports(&self, ports: &BTreeMap<(u16, Protocol), BTreeSet<AddressFamily>>) -> String {
        let list: Vec<String> = ports
            .iter()
            .map(|((port, protocol), families)| {
                let port = format!("{port}/{}", protocol_name(*protocol));
                match families.first() {
                    Some(family) if families.len() < self.families.len() => {
                        format!("{port} ({})", family.name())
                    }
                    _ => port,
                }
            })
            .collect();
        format!(
            "{} {}",
            if list.len() == 1 { "port" } else { "ports" },
            list.join(", ")
        )
    }
}

fn of_frontend(
    cause: Reason,
    ports: &str,
    root: &ObjectName,
    split: &Split,
) -> Option<(&'static str, String)> {
    Some(match cause {
        Reason::ProtocolNotSplit => (
            reason::PROTOCOL_NOT_SPLIT,
            format!(
                "{ports} of Service {root} passes through unsplit, since only TCP is split; split \
                 a Service without it to be rid of this warning"
            ),
        ),
        Reason::NoLeafService => (
            reason::NO_LEAF_SERVICE,
            format!(
                "none of the backends is a Service that exists, so connections to Service {root} \
                 pass through unsplit; create them"
            ),
        ),
        Reason::NoLeafPort => (
            reason::NO_LEAF_PORT,
            format!(
                "{ports} of Service {root} is a port of no backend and passes through unsplit; \
                 give the backends a port of the same number and protocol to have it split"
            ),
        ),
        Reason::AllWeightsZero => (
            reason::ALL_WEIGHTS_ZERO,
            format!(
                "all weights are 0, so connections to Service {root} are refused; give a backend \
                 a weight above 0"
            ),
        ),
        Reason::NoReadyEndpoints => (
            reason::NO_READY_ENDPOINTS,
            format!(
                "no backend with a weight above 0 has a ready endpoint for {ports}, so connections \
                 {} until one has",
                match split.on_no_endpoints {
                    OnNoEndpoints::Refuse => "are refused",
                    OnNoEndpoints::PassThrough => "pass through unsplit",
                }
            ),
        ),
        Reason::None | Reason::ObjectRefused => return None,
    })
}

fn of_leaf(
    leaf: &Leaf,
    state: LeafState,
    ports: &str,
    index: &Index<'_>,
) -> Option<(&'static str, String)> {
    // Of one that can never be a Service, the translator has told.
    let name = leaf.service.as_ref()?;
    Some(match state {
        LeafState::ServiceMissing => (
            reason::LEAF_SERVICE_MISSING,
            if index.service(name).is_some() {
                format!(
                    "Service {name} is an ExternalName, which has no endpoints, so the other \
                     backends share its connections; name a Service with endpoints"
                )
            } else {
                format!(
                    "Service {name} does not exist, so the other backends share its connections; \
                     create it, or set its weight to 0"
                )
            },
        ),
        LeafState::PortMissing => (
            reason::LEAF_PORT_MISSING,
            format!(
                "Service {name} does not have {ports}, so the other backends share its connections \
                 there; give it a port of the same number and protocol"
            ),
        ),
        LeafState::NoReadyEndpoints => (
            reason::LEAF_NOT_READY,
            format!(
                "Service {name} has no ready endpoint for {ports}, so the other backends share its \
                 connections until it has"
            ),
        ),
        LeafState::Ready | LeafState::Terminating | LeafState::WeightZero => return None,
    })
}
