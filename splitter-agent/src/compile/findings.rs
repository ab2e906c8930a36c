//! What people are told of the decisions about a root's frontends: each thing once, with
//! all the ports that it is true of.

use std::collections::{BTreeMap, BTreeSet};

use splitter_common::layout::{LeafState, Protocol, Reason};

use super::diagnostics::{Diagnostics, Severity};
use super::store::Store;
use crate::objects::{AddressFamily, Service, quoted};
use crate::plan::{Frontend, protocol_name};
use crate::reason;
use crate::route::{Claim, Destinations, Leaf, OnNoEndpoints, Split, UnreadyShare};

/// One thing that is true of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    /// What it is.
    pub(super) subject: Subject,
    /// Why, where there is more to say.
    pub(super) why: String,
}

/// What is true of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Why it is not split.
    Frontend(Reason),
    /// Endpoints are behind more than one leaf.
    Overlap,
    /// The subset of a leaf, by its number, is not defined.
    NoSubset(usize),
    /// Why a leaf does not take its share.
    Leaf {
        /// Its number.
        leaf: usize,
        /// Its state.
        state: LeafState,
        /// What becomes of its share.
        share: Share,
    },
}

/// What becomes of the share of a leaf that does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    /// What becomes of every connection.
    LikeAll,
    /// The other leaves have it.
    GivenAway,
    /// It is refused.
    Refused,
}

/// Everything that is true of a root's frontends.
pub(super) struct Findings {
    found: BTreeMap<Finding, Ports>,
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
    pub(super) fn emit(
        self,
        store: &Store,
        claim: &Claim,
        split: &Split,
        diagnostics: &mut Diagnostics,
    ) {
        for (finding, ports) in &self.found {
            let why = finding.why.as_str();
            // What is wrong with a family is told of each, since it names the family.
            let by_family = match finding.subject {
                Subject::Frontend(Reason::NoLeafFamily)
                | Subject::Leaf {
                    state: LeafState::FamilyMissing,
                    ..
                } => split_by_family(ports),
                _ => vec![(None, ports.clone())],
            };
            for (family, ports) in by_family {
                let place = Place {
                    ports: self.ports(&ports, family.is_none()),
                    family,
                };
                let said = match finding.subject {
                    Subject::Frontend(reason) => {
                        of_frontend(store, reason, &place, claim, split, why)
                    }
                    Subject::Overlap => Some(Said {
                        field: split.leaves_field.clone(),
                        reason: reason::OVERLAPPING_BACKENDS,
                        message: format!(
                            "{why} ({}); let the {} of the backends select different pods",
                            place.ports.text,
                            match split.leaves.iter().any(|leaf| leaf.subset.is_some()) {
                                true => "labels of the subsets, or the Services,",
                                false => "Services",
                            }
                        ),
                    }),
                    Subject::NoSubset(leaf) => split.leaves.get(leaf).and_then(no_subset),
                    Subject::Leaf { leaf, state, share } => split
                        .leaves
                        .get(leaf)
                        .and_then(|leaf| of_leaf(store, (split, leaf), state, &place, share, why)),
                };
                if let Some(Said {
                    field,
                    reason,
                    message,
                }) = said
                {
                    diagnostics.emit(&claim.origin, Severity::Warning, reason, field, message);
                }
            }
        }
    }

    /// Ports for people, with the address family if that makes a difference.
    fn ports(&self, ports: &Ports, name_family: bool) -> PortList {
        let list: Vec<String> = ports
            .iter()
            .map(|((port, protocol), families)| {
                let port = format!("{port}/{}", protocol_name(*protocol));
                match families.first() {
                    Some(family) if name_family && families.len() < self.families.len() => {
                        format!("{port} ({})", family.name())
                    }
                    _ => port,
                }
            })
            .collect();
        PortList {
            many: list.len() > 1,
            text: format!(
                "{} {}",
                if list.len() == 1 { "port" } else { "ports" },
                list.join(", ")
            ),
        }
    }
}

/// Ports, each with the address families for which something is true.
type Ports = BTreeMap<(u16, Protocol), BTreeSet<AddressFamily>>;

/// Ports for people.
struct PortList {
    text: String,
    many: bool,
}

impl PortList {
    /// The words for one port or for many.
    fn either<'a>(&self, one: &'a str, many: &'a str) -> &'a str {
        if self.many { many } else { one }
    }
}

/// The frontends that something is said of.
struct Place {
    ports: PortList,
    /// The family, where that is what is lacking.
    family: Option<AddressFamily>,
}

/// What is said.
struct Said {
    field: String,
    reason: &'static str,
    message: String,
}

fn split_by_family(ports: &Ports) -> Vec<(Option<AddressFamily>, Ports)> {
    let mut by_family: BTreeMap<AddressFamily, Ports> = BTreeMap::new();
    for (port, families) in ports {
        for family in families {
            let of_family = by_family.entry(*family).or_default();
            of_family.insert(*port, BTreeSet::from([*family]));
        }
    }
    by_family
        .into_iter()
        .map(|(family, ports)| (Some(family), ports))
        .collect()
}

fn of_frontend(
    store: &Store,
    cause: Reason,
    place: &Place,
    claim: &Claim,
    split: &Split,
    why: &str,
) -> Option<Said> {
    let root = &claim.root;
    let Place { ports, family } = place;
    let list = &ports.text;
    let family_name = family.map_or("", AddressFamily::name);
    let (field, reason, message) = match cause {
        Reason::ProtocolNotSplit => (
            &claim.root_field,
            reason::PROTOCOL_NOT_SPLIT,
            format!(
                "{list} of Service {root} {} through unsplit, since only TCP and UDP are split; split a \
                 Service without {} to be rid of this warning",
                ports.either("passes", "pass"),
                ports.either("it", "them"),
            ),
        ),
        Reason::NoLeafService => (
            &split.leaves_field,
            reason::NO_LEAF_SERVICE,
            format!(
                "{}, so connections to Service {root} pass through unsplit; {}",
                no_leaf_service(store, split),
                "name Services that exist and have endpoints of their own"
            ),
        ),
        Reason::NoLeafPort => (
            &claim.root_field,
            reason::NO_LEAF_PORT,
            format!(
                "{list} of Service {root} {} through unsplit; give the backends a port of the same \
                 number and protocol to have it split",
                ports.either(
                    "is a port of no backend and passes",
                    "are ports of no backend and pass"
                ),
            ),
        ),
        Reason::NoLeafFamily => (
            &split.leaves_field,
            reason::NO_LEAF_FAMILY,
            format!(
                "no backend has {family_name} addresses for {list}, so {family_name} connections to Service \
                 {root} pass through unsplit there; make the backends dual-stack, or give them \
                 EndpointSlices of addressType {family_name}"
            ),
        ),
        // Of a list without any, the translator has told.
        Reason::AllWeightsZero if split.leaves.is_empty() => return None,
        Reason::AllWeightsZero => (
            &split.leaves_field,
            reason::ALL_WEIGHTS_ZERO,
            format!(
                "all weights are 0, so connections to Service {root} are refused; give a backend \
                 a weight above 0"
            ),
        ),
        Reason::NoReadyEndpoints => (
            &split.leaves_field,
            reason::NO_READY_ENDPOINTS,
            format!(
                "no backend with a weight above 0 has a ready endpoint for {list}, so connections \
                 {} until one has{}",
                match split.unready_share {
                    UnreadyShare::GivenAway(OnNoEndpoints::PassThrough) => "pass through unsplit",
                    UnreadyShare::GivenAway(OnNoEndpoints::Refuse) | UnreadyShare::Refused => {
                        "are refused"
                    }
                },
                bracketed(why),
            ),
        ),
        Reason::NotKnownYet => (
            &split.leaves_field,
            reason::NOT_KNOWN_YET,
            format!(
                "{why} at present; until they are, what is programmed for {list} of Service {root} \
                 stays, and what is not split yet passes through"
            ),
        ),
        Reason::None | Reason::ObjectRefused | Reason::OtherClients => return None,
    };
    Some(Said {
        field: field.to_owned(),
        reason,
        message,
    })
}

/// Why no backend is a Service with endpoints. Where they just do not exist, no more need
/// be said.
fn no_leaf_service(store: &Store, split: &Split) -> String {
    let mut names = split.leaves.iter().filter_map(|leaf| leaf.service.as_ref());
    let other = names.find_map(|name| {
        if store.service(name).is_some() {
            Some(format!("Service {name} is an ExternalName"))
        } else if store.is_refused_service(name) {
            Some(format!("Service {name} was refused, see above"))
        } else {
            None
        }
    });
    match other {
        Some(other) => format!("no backend is a Service with endpoints of its own ({other})"),
        None => "none of the backends is a Service that exists".to_owned(),
    }
}

fn of_leaf(
    store: &Store,
    (split, leaf): (&Split, &Leaf),
    state: LeafState,
    place: &Place,
    share: Share,
    why: &str,
) -> Option<Said> {
    // Of one that can never be a Service, the translator has told.
    let name = leaf.service.as_ref()?;
    let Place { ports, family } = place;
    let list = &ports.text;
    let family_name = family.map_or("", AddressFamily::name);
    let kind_of_share = share;
    let others_share = share == Share::GivenAway;
    let share = match share {
        Share::LikeAll => "",
        Share::GivenAway => ", so the other backends share its connections",
        Share::Refused => ", so its share of the connections is refused",
    };
    let (reason, message) = match state {
        LeafState::ServiceMissing => (
            reason::LEAF_SERVICE_MISSING,
            if store.service(name).is_some() {
                format!(
                    "Service {name} is an ExternalName, which has no endpoints{share}; name a \
                     Service with endpoints"
                )
            } else if store.is_refused_service(name) {
                format!("Service {name} was refused, see above{share}; correct it")
            } else {
                format!("Service {name} does not exist{share}; create it, or set its weight to 0")
            },
        ),
        LeafState::PortMissing => (
            reason::LEAF_PORT_MISSING,
            format!(
                "Service {name} does not have {}{share}{}; {}",
                leaf.port
                    .map_or_else(|| list.clone(), |port| format!("port {port}/TCP")),
                if others_share { " there" } else { "" },
                match (leaf.port, split.destinations) {
                    (None, Destinations::Services | Destinations::GrantedServices) =>
                        "give it a port of the same number and protocol",
                    (None, Destinations::Hosts) =>
                        "write destination.port.number with a port that it has",
                    (Some(_), _) => "name a port that it has",
                }
            ),
        ),
        LeafState::FamilyMissing => {
            let other = family.map(AddressFamily::other).filter(|other| {
                store
                    .service(name)
                    .is_some_and(|service| store.has_family(service, *other))
            });
            let lacks = match other {
                Some(other) => format!("is {} only", other.name()),
                None => format!("has no {family_name} addresses"),
            };
            let remedy = match kind_of_share {
                Share::GivenAway => format!(
                    "make it dual-stack, or the others get all {family_name} connections to {list}"
                ),
                Share::Refused => format!(
                    "make it dual-stack, or its share of the {family_name} connections to {list} is \
                     refused"
                ),
                Share::LikeAll => "make it dual-stack".to_owned(),
            };
            (
                reason::LEAF_FAMILY_MISSING,
                format!("Service {name} {lacks}; {remedy}"),
            )
        }
        LeafState::NoReadyEndpoints => (
            reason::LEAF_NOT_READY,
            format!(
                "Service {name} has no ready endpoint{} for {list}{share} until it has{}",
                match &leaf.subset {
                    Some(subset) => format!(" in subset {}", quoted(subset)),
                    None => String::new(),
                },
                bracketed(why)
            ),
        ),
        LeafState::Ready
        | LeafState::Terminating
        | LeafState::WeightZero
        | LeafState::NotKnownYet => return None,
    };
    Some(Said {
        field: leaf.field.clone(),
        reason,
        message,
    })
}

fn no_subset(leaf: &Leaf) -> Option<Said> {
    let service = leaf.service.as_ref()?;
    let subset = quoted(leaf.subset.as_deref()?);
    Some(Said {
        field: format!("{}.destination.subset", leaf.field),
        reason: reason::SUBSET_NOT_FOUND,
        message: format!(
            "no DestinationRule for Service {service} has a subset {subset}, so its share of the \
             connections is refused; write one in namespace {}",
            service.namespace
        ),
    })
}

/// An explanation after a sentence.
fn bracketed(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(" ({why})")
    }
}
