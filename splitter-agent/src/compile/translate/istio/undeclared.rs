//! Lists of rules side by side: what becomes of ports that do not declare their protocol.

use std::collections::BTreeSet;

use super::leaves;
use super::rules::Listed;
use crate::objects::AppProtocol;
use crate::route::{ClientSelector, Leaf, Ports};

/// A list of rules, and the leaves of its parts.
pub(super) struct Compiled<'a> {
    pub(super) listed: Listed<'a>,
    pub(super) leaves: Vec<Vec<Leaf>>,
}

impl Compiled<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.listed.parts.is_empty()
    }

    /// Its leaves, part by part, in a form in which equal splits are equal.
    fn normal(&self) -> Vec<Normal> {
        self.leaves.iter().map(|it| leaves::normal(it)).collect()
    }

    /// What becomes of connections to a port; `None` for those that no rule names.
    fn at<'b>(
        &'b self,
        port: Option<u16>,
        normal: &'b [Normal],
    ) -> Vec<(&'b ClientSelector, &'b Normal)> {
        let parts = self.listed.parts.iter().zip(normal);
        let of_port = parts.filter(|(part, _)| {
            part.conditions.port.is_none() || port.is_some() && part.conditions.port == port
        });
        let mut at: Vec<(&ClientSelector, &Normal)> = Vec::new();
        for (part, leaves) in of_port {
            let clients = &part.conditions.clients;
            if !at.iter().any(|(before, _)| before.covers(clients)) {
                at.push((clients, leaves));
            }
        }
        at
    }

    /// The ports that its rules name.
    fn numbers(&self) -> impl Iterator<Item = u16> {
        let parts = self.listed.parts.iter();
        parts.filter_map(|part| part.conditions.port)
    }
}

/// Leaves in a form in which equal splits are equal.
type Normal = Vec<(leaves::Target, u128)>;

/// What is to be done with ports that do not declare what is spoken there: Istio finds out, and has a
/// list of rules for HTTP and another for the rest.
pub(super) enum Undeclared {
    /// They are split as both lists say, or the only one with rules for them.
    Clear,
    /// Of these, it is not clear.
    Ambiguous(BTreeSet<u16>),
    /// Of none but these is it clear.
    ClearOnly(BTreeSet<u16>),
}

impl Undeclared {
    pub(super) fn of(http: &Compiled<'_>, tcp: &Compiled<'_>) -> Self {
        let (normal_http, normal_tcp) = (http.normal(), tcp.normal());
        let is_ambiguous = |port: Option<u16>| {
            let (http, tcp) = (http.at(port, &normal_http), tcp.at(port, &normal_tcp));
            !http.is_empty() && !tcp.is_empty() && http != tcp
        };
        if http.is_empty() || tcp.is_empty() {
            return Self::Clear;
        }
        let numbers: BTreeSet<u16> = http.numbers().chain(tcp.numbers()).collect();
        let (ambiguous, clear): (BTreeSet<u16>, BTreeSet<u16>) = numbers
            .into_iter()
            .partition(|number| is_ambiguous(Some(*number)));
        match (is_ambiguous(None), ambiguous.is_empty()) {
            (true, _) => Self::ClearOnly(clear),
            (false, false) => Self::Ambiguous(ambiguous),
            (false, true) => Self::Clear,
        }
    }

    /// Ports where a protocol is declared, and those that declare nothing and are to be split in the same
    /// way.
    pub(super) fn with(&self, declared: Ports) -> Vec<Ports> {
        const UNDECLARED: AppProtocol = AppProtocol::Undeclared;
        let undeclared = |ports: Ports| Ports {
            protocols: Some(BTreeSet::from([UNDECLARED])),
            ..ports
        };
        let named = declared.numbers.as_ref();
        let more = match self {
            Self::Clear => {
                let protocols = declared.protocols.into_iter().flatten();
                return vec![Ports {
                    protocols: Some(protocols.chain([UNDECLARED]).collect()),
                    ..declared
                }];
            }
            Self::Ambiguous(numbers) => {
                let is_left = named.is_none_or(|named| named.is_disjoint(numbers));
                is_left.then(|| {
                    undeclared(Ports {
                        other_than: numbers.clone(),
                        ..declared.clone()
                    })
                })
            }
            Self::ClearOnly(numbers) => {
                let mut clear = numbers.clone();
                clear.retain(|number| named.is_none_or(|named| named.contains(number)));
                (!clear.is_empty()).then(|| {
                    undeclared(Ports {
                        numbers: Some(clear),
                        ..declared.clone()
                    })
                })
            }
        };
        [Some(declared), more].into_iter().flatten().collect()
    }

    /// Those of which it is not clear.
    pub(super) fn ambiguous(self) -> Option<Ports> {
        let ports = match self {
            Self::Clear => return None,
            Self::Ambiguous(numbers) => Ports {
                numbers: Some(numbers),
                ..Ports::ALL
            },
            Self::ClearOnly(numbers) => Ports {
                other_than: numbers,
                ..Ports::ALL
            },
        };
        Some(Ports {
            protocols: Some(BTreeSet::from([AppProtocol::Undeclared])),
            ..ports
        })
    }
}
