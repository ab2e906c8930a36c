//! VirtualServices: which hosts get which shares of the connections to a host.

mod demands;
mod read;

use std::collections::BTreeMap;
use std::fmt;

use super::{GROUP, VERSIONS};
use crate::objects::ObjectName;
use crate::objects::field;
use crate::objects::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use crate::objects::traffic_split::Refusal;

/// The kind of VirtualServices.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "VirtualService",
        plural: "virtualservices",
        group: GROUP,
    },
    versions: VERSIONS,
    purpose: Purpose::Route,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::SharedConditions,
    precedence: 20,
    may_be_superseded: true,
    owns_group: false,
    definition: None,
    read: |metadata, object| {
        let content = VirtualService::read(&metadata, object);
        Ok(metadata.into_route(content))
    },
};

/// What the agent reads of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualService {
    /// The hosts, as they are written.
    pub hosts: Vec<String>,
    /// The gateways, as they are written; `mesh` stands for clients in the cluster.
    pub gateways: Vec<String>,
    /// The namespaces of the clients that it is for, as they are written; empty for all.
    pub export_to: Vec<String>,
    /// Value of the annotation `splitter.dev/unsupported`, as it is written.
    pub unsupported: Option<String>,
    /// Its rules, list by list, each in their order.
    pub rules: Rules,
    /// Whether it has no hosts, so that its rules are for other VirtualServices to use.
    pub is_delegate: bool,
    /// Rules of delegates that were left out, since they conflict with the rule that delegates: the
    /// fields of their conditions.
    pub conflicts: Vec<String>,
    /// Whether only its destinations are to be judged, of every rule, whatever else it asks for.
    pub is_for_its_destinations: bool,
    /// What cannot be read, in the order of the fields.
    pub refusals: Vec<Refusal>,
    /// Fields that no VirtualService has, and that restrict nothing.
    pub unknown: Vec<String>,
    /// Fields of `metadata` that look like an annotation of ours and are none.
    pub mistaken: Box<[String]>,
}

/// The rules of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For ports where HTTP is spoken.
    pub http: Vec<Rule>,
    /// For ports where TLS is spoken.
    pub tls: Vec<Rule>,
    /// For other ports.
    pub tcp: Vec<Rule>,
}

/// One of the lists of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// `http`
    Http,
    /// `tls`
    Tls,
    /// `tcp`
    Tcp,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its field, for example `spec.http[0]`.
    pub field: String,
    /// The conditions, of which one must be met; none if it is for everything.
    pub blocks: Vec<Block>,
    /// Where its connections go, as it is written.
    pub route: Vec<Destination>,
    /// Whose rules stand in its place, if it has a delegate.
    pub delegate: Option<Delegate>,
    /// What it asks for beside that.
    pub demands: Vec<Demand>,
    /// Those of its fields that the rules of a delegate inherit.
    pub inherited: Vec<&'static str>,
    /// Whether its VirtualService has what changes only how a request is handled ignored.
    pub ignores: bool,
}

/// A VirtualService whose rules stand in the place of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delegate {
    /// This one.
    Named(ObjectName),
    /// One whose rules cannot be used.
    Unusable {
        /// Why, in one word.
        reason: &'static str,
        /// Why, and what to do about it.
        message: String,
    },
    /// One of which it is not known whether it exists: what is to be said of it.
    NotKnownYet(String),
}

/// A condition of a rule: all of it must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Its field, for example `spec.http[0].match[1]`.
    pub field: String,
    /// The port that was dialled.
    pub port: Option<u16>,
    /// The namespace of the client.
    pub source_namespace: Option<String>,
    /// Labels of the client.
    pub source_labels: BTreeMap<String, String>,
    /// The gateways, as they are written; empty for those of the VirtualService.
    pub gateways: Vec<String>,
    /// Names that a client of TLS asks for.
    pub sni_hosts: Vec<String>,
    /// What it asks of the texts of a request, by field: `uri`, `headers[x-user]`.
    pub texts: BTreeMap<String, TextMatch>,
    /// Whether the case of the path does not matter.
    pub ignores_case: bool,
    /// What cannot be told of a connection.
    pub requests: Vec<Demand>,
}

/// Something that a connection cannot honour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The field.
    pub field: String,
    /// What it changes.
    pub changes: Changes,
    /// What it asks for, as the end of a sentence that begins with the field.
    pub what: String,
}

/// What a condition asks of a text (`StringMatch` in Istio's API).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// It matches this.
    Regex(String),
    /// That it is there.
    Present,
}

/// What a field changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Where a request goes, or whether it does.
    Where,
    /// How a request is handled.
    How,
}

/// A destination of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its field, for example `spec.http[0].route[1]`.
    pub field: String,
    /// The host as it is written.
    pub host: String,
    /// The namespace in which a short host is; `None` for that of the VirtualService.
    pub namespace: Option<String>,
    /// The subset of the host's endpoints.
    pub subset: Option<String>,
    /// The port of the host.
    pub port: Option<u16>,
    /// Its weight; 0 if there is none.
    pub weight: u32,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl List {
    /// Its field in `spec`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

impl Rules {
    /// The rules of a list.
    #[must_use]
    pub fn of(&self, list: List) -> &[Rule] {
        match list {
            List::Http => &self.http,
            List::Tls => &self.tls,
            List::Tcp => &self.tcp,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.http.iter().chain(&self.tls).chain(&self.tcp)
    }
}

/// The value of [`UNSUPPORTED`](crate::objects::UNSUPPORTED) that has what changes only how a request
/// is handled ignored.
pub(crate) const IGNORE: &str = "ignore";
/// The value that says what is done without the annotation.
pub(crate) const REFUSE: &str = "refuse";

impl VirtualService {
    /// Whether what changes only how a request is handled is to be ignored.
    #[must_use]
    pub fn ignores(&self) -> bool {
        self.unsupported.as_deref() == Some(IGNORE)
    }

    /// Its weights for a line, for example `v1:50,v3:50`; empty if they cannot be read.
    pub(crate) fn weights(&self) -> String {
        const MOST: usize = 4;
        if !self.refusals.is_empty() {
            return String::new();
        }
        let routes = self.rules.iter().map(|rule| &rule.route);
        let mut destinations = routes.flat_map(|route| {
            let alone = route.len() == 1;
            route.iter().map(move |destination| {
                let name = destination.subset.as_ref().unwrap_or(&destination.host);
                let weight = if alone { 100 } else { destination.weight };
                format!("{}:{weight}", field::inert(name))
            })
        });
        let mut weights: Vec<String> = destinations.by_ref().take(MOST).collect();
        let more = destinations.count();
        if more > 0 {
            weights.push(format!("{more} more"));
        }
        weights.join(",")
    }
}
