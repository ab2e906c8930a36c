//! VirtualServices: which hosts get which shares of the connections to a host.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{GROUP, VERSIONS, labels, texts, unknown};
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use crate::objects::traffic_split::Refusal;
use crate::objects::{Metadata, UNSUPPORTED, annotation};
use crate::reason;

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
    /// Value of the annotation [`UNSUPPORTED`], as it is written.
    pub unsupported: Option<String>,
    /// Its rules, list by list, each in their order.
    pub rules: Rules,
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
    /// The rules that stand in its place, if there are such.
    pub delegate: Option<String>,
    /// What it asks for beside that.
    pub demands: Vec<Demand>,
}

/// A condition of a rule: all of it must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
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
    /// The field of those names.
    pub sni_field: String,
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

impl VirtualService {
    fn read(metadata: &Metadata<'_>, object: &Fields) -> Self {
        let mut read = Self {
            unsupported: metadata.annotation(UNSUPPORTED),
            mistaken: annotation::mistaken(metadata.fields, &[UNSUPPORTED]),
            ..Self::default()
        };
        let spec = match field::present(object, "spec").map(field::as_object) {
            None => {
                let error = FieldError::new("is missing; write hosts and their rules");
                read.refuse(reason::INVALID_SPEC, error.below("spec"));
                return read;
            }
            Some(Err(error)) => {
                read.refuse(reason::INVALID_SPEC, error.below("spec"));
                return read;
            }
            Some(Ok(spec)) => spec,
        };
        for (name, reason) in [
            ("hosts", reason::INVALID_ROOT),
            ("gateways", reason::INVALID_SPEC),
            ("exportTo", reason::INVALID_SPEC),
        ] {
            match texts(spec, name) {
                Ok(texts) => match name {
                    "hosts" => read.hosts = texts,
                    "gateways" => read.gateways = texts,
                    _ => read.export_to = texts,
                },
                Err(error) => read.refuse(reason, error.below("spec")),
            }
        }
        const KNOWN: &[&str] = &["hosts", "gateways", "exportTo", "http", "tls", "tcp"];
        read.unknown(spec, KNOWN, "spec");
        let mut rules = Rules::default();
        for list in [List::Http, List::Tls, List::Tcp] {
            let values = match field::list(spec, list.name()) {
                Ok(values) => values,
                Err(error) => {
                    read.refuse(reason::INVALID_SPEC, error.below("spec"));
                    continue;
                }
            };
            let values = values.iter().enumerate();
            let of_list: Vec<Rule> = values
                .filter_map(|(index, value)| {
                    let field = format!("spec.{list}[{index}]");
                    read.rule(list, field, value)
                })
                .collect();
            match list {
                List::Http => rules.http = of_list,
                List::Tls => rules.tls = of_list,
                List::Tcp => rules.tcp = of_list,
            }
        }
        read.rules = rules;
        read
    }

    fn refuse(&mut self, reason: &'static str, error: FieldError) {
        let FieldError { field, message } = error;
        self.refusals.push(Refusal {
            field,
            reason,
            message,
        });
    }

    fn unknown(&mut self, fields: &Fields, known: &[&str], of: &str) {
        const MOST: usize = 100;
        let more = unknown(fields, known).map(|name| format!("{of}.{name}"));
        let room = MOST.saturating_sub(self.unknown.len());
        self.unknown.extend(more.take(room));
    }

    /// A value as an object; says so if it is none.
    fn object<'a>(&mut self, field: &str, value: &'a Value) -> Option<&'a Fields> {
        match field::as_object(value) {
            Ok(fields) => Some(fields),
            Err(error) => {
                self.refuse(reason::INVALID_SPEC, error.below(field));
                None
            }
        }
    }

    /// The value that was read, or what stands for it after saying why it was not.
    fn or_default<T: Default>(&mut self, field: &str, read: Result<T, FieldError>) -> T {
        read.unwrap_or_else(|error| {
            self.refuse(reason::INVALID_SPEC, error.below(field));
            T::default()
        })
    }

    fn rule(&mut self, list: List, field: String, value: &Value) -> Option<Rule> {
        let fields = self.object(&field, value)?;
        let known: &[&str] = match list {
            List::Http => &[
                "name",
                "match",
                "route",
                "redirect",
                "directResponse",
                "delegate",
                "rewrite",
                "timeout",
                "retries",
                "fault",
                "mirror",
                "mirrors",
                "mirrorPercent",
                "mirror_percent",
                "mirrorPercentage",
                "corsPolicy",
                "headers",
            ],
            List::Tls | List::Tcp => &["match", "route"],
        };
        self.unknown(fields, known, &field);
        let blocks = self.blocks(list, &field, fields);
        let route = self.route(list, &field, fields);
        let demands = match list {
            List::Http => demands(fields, &field),
            List::Tls | List::Tcp => Vec::new(),
        };
        let delegate = (list == List::Http)
            .then(|| field::present(fields, "delegate"))
            .flatten()
            .map(shown);
        let goes_elsewhere = ["redirect", "directResponse"]
            .iter()
            .any(|name| list == List::Http && field::present(fields, name).is_some());
        if route.is_empty()
            && delegate.is_none()
            && !goes_elsewhere
            && field::list(fields, "route").is_ok_and(<[Value]>::is_empty)
        {
            let error = FieldError::new("is empty; write at least one destination");
            self.refuse(reason::INVALID_BACKEND, error.below("route").below(&field));
        }
        Some(Rule {
            field,
            blocks,
            route,
            delegate,
            demands,
        })
    }

    fn blocks(&mut self, list: List, rule: &str, fields: &Fields) -> Vec<Block> {
        let values = match field::list(fields, "match") {
            Ok(values) => values,
            Err(error) => {
                self.refuse(reason::INVALID_SPEC, error.below(rule));
                return Vec::new();
            }
        };
        let mut blocks = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let field = format!("{rule}.match[{index}]");
            if let Some(fields) = self.object(&field, value) {
                let block = self.block(list, &field, fields);
                blocks.push(block);
            }
        }
        blocks
    }

    fn block(&mut self, list: List, field: &str, fields: &Fields) -> Block {
        let mut block = Block {
            source_labels: self.or_default(field, labels(fields, "sourceLabels")),
            gateways: self.or_default(field, texts(fields, "gateways")),
            sni_field: format!("{field}.sniHosts"),
            ..Block::default()
        };
        let namespace = field::text(fields, "sourceNamespace");
        let namespace = self.or_default(field, namespace);
        block.source_namespace = namespace
            .filter(|namespace| !namespace.is_empty())
            .map(str::to_owned);
        match field::present(fields, "port") {
            None => {}
            // As Istio reads it: absent.
            Some(port) if field::whole(port) == Some(0) => {}
            Some(port) => match field::port(port) {
                Some(port) => block.port = Some(port),
                None => self.refuse(
                    reason::INVALID_SPEC,
                    FieldError::new(format!(
                        "is {}; write a number from 1 to 65535",
                        shown(port)
                    ))
                    .below("port")
                    .below(field),
                ),
            },
        }
        if list == List::Tls {
            block.sni_hosts = self.or_default(field, texts(fields, "sniHosts"));
        }
        let restrictions = fields.iter().filter_map(|(name, value)| {
            let what = restriction(list, name, value)?;
            Some(Demand {
                field: format!("{field}.{}", field::inert(name)),
                changes: Changes::Where,
                what,
            })
        });
        block.requests = restrictions.collect();
        block
    }

    fn route(&mut self, list: List, rule: &str, fields: &Fields) -> Vec<Destination> {
        let values = match field::list(fields, "route") {
            Ok(values) => values,
            Err(error) => {
                self.refuse(reason::INVALID_BACKEND, error.below(rule));
                return Vec::new();
            }
        };
        let is_one_of_many = values.len() > 1;
        let mut route = Vec::with_capacity(values.len());
        let mut total: u64 = 0;
        let mut is_whole = true;
        for (index, value) in values.iter().enumerate() {
            let field = format!("{rule}.route[{index}]");
            match self.destination(list, field, value) {
                Some(destination) => {
                    total += u64::from(destination.weight);
                    route.push(destination);
                }
                None => is_whole = false,
            }
        }
        if is_one_of_many && is_whole && total == 0 {
            let error = FieldError::new(
                "has destinations whose weights add up to 0; give one of them a weight above 0",
            );
            self.refuse(reason::INVALID_WEIGHT, error.below("route").below(rule));
        }
        route
    }

    /// A destination; `None` if it cannot be read, after saying why.
    fn destination(&mut self, list: List, field: String, value: &Value) -> Option<Destination> {
        let fields = self.object(&field, value)?;
        let known: &[&str] = match list {
            List::Http => &["destination", "weight", "headers"],
            List::Tls | List::Tcp => &["destination", "weight"],
        };
        self.unknown(fields, known, &field);
        let target = match field::present(fields, "destination") {
            Some(target) => self.object(&format!("{field}.destination"), target)?,
            None => {
                let error = FieldError::new("is missing; write a destination with a host");
                self.refuse(
                    reason::INVALID_BACKEND,
                    error.below("destination").below(field),
                );
                return None;
            }
        };
        let own = format!("{field}.destination");
        self.unknown(target, &["host", "subset", "port"], &own);
        let host = match field::text(target, "host") {
            Ok(Some(host)) if !host.is_empty() => host.to_owned(),
            Ok(_) => {
                let error = FieldError::new("is missing; write the host of a Service");
                self.refuse(reason::INVALID_BACKEND, error.below("host").below(own));
                return None;
            }
            Err(error) => {
                self.refuse(reason::INVALID_BACKEND, error.below(own));
                return None;
            }
        };
        let subset = field::text(target, "subset");
        let subset = self.or_default(&own, subset);
        let port = self.destination_port(&own, target);
        let weight = field::present(fields, "weight").unwrap_or(&Value::Null);
        let weight = match weight {
            Value::Null => 0,
            value => match field::whole(value).and_then(|weight| i32::try_from(weight).ok()) {
                Some(weight) if weight >= 0 => weight.unsigned_abs(),
                _ => {
                    let error = FieldError::new(format!(
                        "is {}; write a whole number from 0 to {}",
                        shown(value),
                        i32::MAX
                    ));
                    self.refuse(reason::INVALID_WEIGHT, error.below("weight").below(&field));
                    return None;
                }
            },
        };
        Some(Destination {
            host,
            subset: subset
                .filter(|subset| !subset.is_empty())
                .map(str::to_owned),
            port,
            weight,
            field,
        })
    }

    fn destination_port(&mut self, own: &str, target: &Fields) -> Option<u16> {
        let port = field::object(target, "port");
        let port = self.or_default(own, port)?;
        let number = field::present(port, "number")?;
        let read = field::port(number);
        if read.is_none() {
            let error = FieldError::new(format!(
                "is {}; write a number from 1 to 65535",
                shown(number)
            ));
            let error = error.below("number").below("port").below(own);
            self.refuse(reason::INVALID_BACKEND, error);
        }
        read
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

/// What a field of a condition asks for that a connection does not show; `None` if it asks for
/// nothing of the sort.
fn restriction(list: List, name: &str, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let of_request = |what: &str| Some(format!("chooses by {what} of a request"));
    let is_filled = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    match (list, name) {
        (_, "port" | "sourceLabels" | "sourceNamespace" | "gateways")
        | (List::Http, "name" | "statPrefix" | "ignoreUriCase")
        | (List::Tls, "sniHosts") => None,
        (List::Http, "uri") if is_any_path(value) => None,
        (List::Http, _) if !is_filled => None,
        (List::Http, "uri") => of_request("the path"),
        (List::Http, "scheme") => of_request("the scheme"),
        (List::Http, "method") => of_request("the method"),
        (List::Http, "authority") => of_request("the Host header"),
        (List::Http, "headers" | "withoutHeaders") => {
            let mut names = value.as_object().into_iter().flat_map(Fields::keys);
            let first = names.next().map(|name| field::inert(name));
            let named = first.map_or_else(String::new, |name| format!(" ({name})"));
            Some(format!("chooses by the headers of a request{named}"))
        }
        (List::Http, "queryParams") => of_request("the query"),
        (List::Tls | List::Tcp, "destinationSubnets" | "sourceSubnet") if !is_filled => None,
        (List::Tls | List::Tcp, "destinationSubnets") => {
            Some("chooses by the address that was dialled, which is always that of the host".into())
        }
        (List::Tls | List::Tcp, "sourceSubnet") => {
            Some("chooses by the client's address, which Istio ignores".into())
        }
        _ => Some("is not a field of a match, and may restrict it".to_owned()),
    }
}

/// Whether a match on the path is met by every path.
fn is_any_path(uri: &Value) -> bool {
    let Some(uri) = uri.as_object() else {
        return false;
    };
    let mut given = uri.iter().filter(|(_, value)| !value.is_null());
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some((how, value)), None) => {
            how == "prefix" && value == "/" || how == "regex" && value == ".*"
        }
        _ => false,
    }
}

/// What an HTTP rule asks for beside its destinations. What asks for nothing is left out.
fn demands(rule: &Fields, field: &str) -> Vec<Demand> {
    let mut demands = Vec::new();
    let mut demand = |name: &str, changes, what: String| {
        demands.push(Demand {
            field: format!("{field}.{name}"),
            changes,
            what,
        });
    };
    for (name, what) in [
        ("redirect", "answers requests with a redirect"),
        ("directResponse", "answers requests itself"),
        ("rewrite", "rewrites requests"),
    ] {
        if field::present(rule, name).is_some() {
            demand(name, Changes::Where, what.to_owned());
        }
    }
    if let Some(fault) = field::present(rule, "fault") {
        for name in ["delay", "abort"] {
            if let Some(of_kind) = fault.get(name).filter(|it| !it.is_null())
                && is_fault(of_kind)
            {
                let name = format!("fault.{name}");
                demand(&name, Changes::Where, "injects faults into requests".into());
            }
        }
        if !fault.is_object() {
            demand(
                "fault",
                Changes::Where,
                "injects faults into requests".into(),
            );
        }
    }
    if let Some(timeout) = field::present(rule, "timeout")
        && !is_no_time(timeout)
    {
        let what = format!("is {}, and limits the time of a request", shown(timeout));
        demand("timeout", Changes::How, what);
    }
    if let Some(retries) = field::present(rule, "retries") {
        let attempts = retries.get("attempts").unwrap_or(&Value::Null);
        let is_off = retries.is_object() && field::whole(attempts) == Some(0);
        if !is_off {
            demand("retries", Changes::How, "sends requests again".into());
        }
    }
    for (name, what) in mirrors(rule) {
        demand(&name, Changes::How, what);
    }
    if field::present(rule, "corsPolicy").is_some() {
        let what = "answers requests of other origins";
        demand("corsPolicy", Changes::How, what.into());
    }
    const EDITS: &str = "changes headers of requests or answers";
    if field::present(rule, "headers").is_some_and(says_something) {
        demand("headers", Changes::How, EDITS.into());
    }
    let route = rule.get("route").and_then(Value::as_array);
    for (index, destination) in route.into_iter().flatten().enumerate() {
        if destination.get("headers").is_some_and(says_something) {
            let name = format!("route[{index}].headers");
            demand(&name, Changes::How, EDITS.into());
        }
    }
    demands
}

/// Whether there is anything in it but empty objects and lists.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(fields) => fields.values().any(says_something),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// A fault without a percentage is none (`HTTPFaultInjection` in Istio's API).
fn is_fault(fault: &Value) -> bool {
    let percentage = fault.get("percentage").filter(|it| !it.is_null());
    let percent = fault.get("percent").filter(|it| !it.is_null());
    !fault.is_object() || percentage.is_some_and(is_some_percentage) || percent.is_some_and(is_some)
}

/// Whether `{value: 10}` is above 0; what cannot be read counts as such.
fn is_some_percentage(percentage: &Value) -> bool {
    match percentage.get("value") {
        None | Some(Value::Null) => !percentage.is_object(),
        Some(value) => is_some(value),
    }
}

fn is_some(value: &Value) -> bool {
    value.as_f64() != Some(0.0)
}

/// Requests that are sent to somebody else as well.
fn mirrors(rule: &Fields) -> Vec<(String, String)> {
    const WHAT: &str = "sends copies of requests to another host";
    let mut found = Vec::new();
    if field::present(rule, "mirror").is_some() {
        let percentage = field::present(rule, "mirrorPercentage");
        let percent = ["mirrorPercent", "mirror_percent"];
        let percent = percent.iter().find_map(|name| field::present(rule, name));
        let is_on = match (percentage, percent) {
            (Some(percentage), _) => is_some_percentage(percentage),
            (None, Some(percent)) => is_some(percent),
            (None, None) => true,
        };
        if is_on {
            found.push(("mirror".to_owned(), WHAT.to_owned()));
        }
    }
    match field::present(rule, "mirrors") {
        None => {}
        Some(Value::Array(mirrors)) => {
            for (index, mirror) in mirrors.iter().enumerate() {
                let percentage = mirror.get("percentage").filter(|it| !it.is_null());
                if percentage.is_none_or(is_some_percentage) {
                    found.push((format!("mirrors[{index}]"), WHAT.to_owned()));
                }
            }
        }
        Some(_) => found.push(("mirrors".to_owned(), WHAT.to_owned())),
    }
    found
}

/// Whether a duration is 0, in whatever unit.
fn is_no_time(duration: &Value) -> bool {
    duration.as_str().is_some_and(|text| {
        text.contains('0')
            && !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    })
}
