//! What of an EndpointSlice is left out, since no connection can be sent there, and how people are
//! told.

use std::collections::BTreeMap;

use serde_json::Value;

use super::endpoint_slice::AddressFamily;
use super::field::shown;

/// Content of one sort that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ignored {
    /// The first field that is the cause.
    pub field: String,
    /// What is the matter, how often, and what to do about it.
    pub message: String,
}

/// Why something is left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flaw {
    /// No port number.
    Port,
    /// No IP address.
    NotAnAddress,
    /// An address of the other family than the slice's.
    OtherFamily,
    /// An address that nothing can be connected to.
    NotDialled,
}

/// What is left out: of each sort the first, and how many there are, so that a thousand
/// addresses with one flaw make one line.
#[derive(Default)]
pub(super) struct Flaws {
    found: BTreeMap<Flaw, Found>,
}

struct Found {
    field: String,
    value: String,
    count: usize,
}

impl Flaws {
    pub(super) fn note(&mut self, flaw: Flaw, value: &Value, field: impl FnOnce() -> String) {
        self.found
            .entry(flaw)
            .or_insert_with(|| Found {
                field: field(),
                value: shown(value),
                count: 0,
            })
            .count += 1;
    }

    /// All of it for people. Addresses of a slice of names need not be told of one by one.
    pub(super) fn ignored(self, family: Option<AddressFamily>) -> Vec<Ignored> {
        let mut found = self.found;
        let mut ignored = Vec::new();
        if family.is_none() {
            found.retain(|flaw, _| *flaw == Flaw::Port);
            ignored.push(Ignored {
                field: "addressType".to_owned(),
                message: "is FQDN, and connections cannot be sent to names, so its endpoints are \
                          ignored; write IPv4 or IPv6, and addresses"
                    .to_owned(),
            });
        }
        let family = family.map_or("IP", AddressFamily::name);
        ignored.extend(
            found
                .into_iter()
                .map(|(flaw, found)| found.tell(flaw, family)),
        );
        ignored
    }
}

impl Found {
    fn tell(self, flaw: Flaw, family: &str) -> Ignored {
        let (what, remedy) = match flaw {
            Flaw::Port => (
                "is not a port number".to_owned(),
                "write a number from 1 to 65535".to_owned(),
            ),
            Flaw::NotAnAddress => (
                "is not an IP address".to_owned(),
                format!("write an {family} address"),
            ),
            Flaw::OtherFamily => (
                format!("is not an {family} address, as addressType says"),
                "put it into an EndpointSlice of its own addressType".to_owned(),
            ),
            Flaw::NotDialled => (
                "connections cannot be sent to".to_owned(),
                "write the address of a pod".to_owned(),
            ),
        };
        let more = match self.count {
            1 => String::new(),
            count => format!(" (and {} more like it)", count - 1),
        };
        Ignored {
            field: self.field,
            message: format!(
                "is {}, which {what}{more}, so it is ignored; {remedy}",
                self.value
            ),
        }
    }
}
