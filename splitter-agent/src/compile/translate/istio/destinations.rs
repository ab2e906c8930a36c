//! The destinations of a VirtualService, whatever else it asks for: so that one that is refused is
//! judged as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::{OfRoot, Translator};
use crate::compile::Diagnostics;
use crate::objects::AppProtocol;
use crate::objects::istio::virtual_service::List;
use crate::route::{ClientSelector, Clients, Destinations, Ports, Split, UnreadyShare};

impl Translator<'_> {
    /// A split of every rule with destinations, each for clients of its own, so that none is in the
    /// way of another.
    pub(super) fn of_destinations(&self, diagnostics: &mut Diagnostics) -> Vec<OfRoot> {
        let mut splits = Vec::new();
        for (list, protocol) in [
            (List::Http, AppProtocol::Http),
            (List::Tls, AppProtocol::Tls),
            (List::Tcp, AppProtocol::Tcp),
        ] {
            let mut protocols = BTreeSet::from([protocol]);
            if list != List::Tls {
                protocols.insert(AppProtocol::Undeclared);
            }
            for rule in self.service.rules.of(list) {
                if rule.route.is_empty() {
                    continue;
                }
                let Some(leaves) = self.leaves(rule, diagnostics) else {
                    continue;
                };
                // Without conditions it is for any port.
                let ports: Option<BTreeSet<u16>> = rule.blocks.iter().map(|it| it.port).collect();
                let split = Split {
                    leaves_field: format!("{}.route", rule.field),
                    leaves,
                    unready_share: UnreadyShare::Refused,
                    destinations: Destinations::Hosts,
                };
                let ports = Ports {
                    numbers: ports.filter(|ports| !ports.is_empty()),
                    protocols: Some(protocols.clone()),
                    ..Ports::ALL
                };
                let clients = ClientSelector {
                    labels: BTreeMap::from([("rule".to_owned(), rule.field.clone())]),
                    ..ClientSelector::default()
                };
                splits.push(OfRoot {
                    ports,
                    ports_field: None,
                    clients: Clients::Some(clients),
                    split: Some(split),
                });
            }
        }
        splits
    }
}
