//! Reading VirtualServices.

use std::collections::BTreeMap;

use serde_json::Value;

use super::demands::{demands, restriction};
use super::{
    Block, Changes, Delegate, Demand, Destination, List, Rule, Rules, TextMatch, VirtualService,
};
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::istio::{labels, texts, unknown};
use crate::objects::traffic_split::Refusal;
use crate::objects::{Metadata, ObjectName, UNSUPPORTED, annotation, dns};
use crate::reason;

/// The fields of a rule that the rules of a delegate inherit (`mergeHTTPRoute` in Istio's
/// `virtualservice.go`).
const INHERITED: [&str; 9] = [
    "rewrite",
    "directResponse",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrors",
    "corsPolicy",
    "headers",
];

impl VirtualService {
    pub(super) fn read(metadata: &Metadata<'_>, object: &Fields) -> Self {
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
        read.judge_export_to();
        read.is_delegate = field::list(spec, "hosts").is_ok_and(<[Value]>::is_empty);
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
                    read.rule(list, field, value, &metadata.name.namespace)
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

    /// Refuses what is not the name of a namespace (`validateExportTo` in Istio's `validation.go`).
    fn judge_export_to(&mut self) {
        for index in 0..self.export_to.len() {
            let namespace = self.export_to.get(index).cloned().unwrap_or_default();
            if !matches!(&*namespace, "*" | ".") && !dns::is_label(&namespace) {
                let message = format!(
                    "is {}, which is not the name of a namespace; write one, or . or *",
                    shown(&namespace.into())
                );
                let error = FieldError::new(message).at(index);
                self.refuse(reason::INVALID_SPEC, error.below("exportTo").below("spec"));
            }
        }
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

    /// A rule of a VirtualService of this namespace.
    fn rule(&mut self, list: List, field: String, value: &Value, namespace: &str) -> Option<Rule> {
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
        let is_there = |name: &str| list == List::Http && field::present(fields, name).is_some();
        let delegate = if is_there("delegate") {
            self.delegate(&field, fields, namespace)
        } else {
            None
        };
        let goes_elsewhere = ["redirect", "directResponse", "delegate"];
        if route.is_empty()
            && !goes_elsewhere.into_iter().any(is_there)
            && field::list(fields, "route").is_ok_and(<[Value]>::is_empty)
        {
            let error = FieldError::new("is empty; write at least one destination");
            self.refuse(reason::INVALID_BACKEND, error.below("route").below(&field));
        }
        Some(Rule {
            field,
            blocks,
            route,
            delegate: delegate.map(Delegate::Named),
            demands,
            inherited: INHERITED
                .into_iter()
                .filter(|name| is_there(name))
                .collect(),
            ignores: self.ignores(),
        })
    }

    /// The VirtualService that a rule delegates to.
    fn delegate(&mut self, rule: &str, fields: &Fields, namespace: &str) -> Option<ObjectName> {
        let own = format!("{rule}.delegate");
        for other in ["route", "redirect"] {
            if field::present(fields, other).is_some() {
                let error = FieldError::new(format!(
                    "stands beside {other}, and a rule that delegates has neither route nor redirect; \
                     remove one of the two"
                ));
                self.refuse(reason::INVALID_SPEC, error.below(&own));
            }
        }
        let target = self.object(&own, field::present(fields, "delegate")?)?;
        self.unknown(target, &["name", "namespace"], &own);
        let name = field::text(target, "name");
        let name = self.or_default(&own, name).filter(|it| !it.is_empty());
        let Some(name) = name else {
            let error = FieldError::new("is missing; write the name of a VirtualService");
            self.refuse(reason::INVALID_SPEC, error.below("name").below(&own));
            return None;
        };
        let other = field::text(target, "namespace");
        let other = self.or_default(&own, other).filter(|it| !it.is_empty());
        Some(ObjectName::new(other.unwrap_or(namespace), name))
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
            field: field.to_owned(),
            ..Block::default()
        };
        let namespace = field::text(fields, "sourceNamespace");
        let namespace = self.or_default(field, namespace);
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        if let Some(namespace) = namespace.filter(|namespace| !dns::is_label(namespace)) {
            let message = format!(
                "is {}, which is not the name of a namespace; write one",
                shown(&namespace.into())
            );
            let error = FieldError::new(message).below("sourceNamespace");
            self.refuse(reason::INVALID_SPEC, error.below(field));
        }
        block.source_namespace = namespace.map(str::to_owned);
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
        if list == List::Http {
            block.texts = text_matches(fields);
            block.ignores_case =
                field::present(fields, "ignoreUriCase") == Some(&Value::Bool(true));
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
            namespace: None,
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
        let field = format!("{own}.port");
        self.unknown(port, &["number"], &field);
        let Some(number) = field::present(port, "number") else {
            let error = FieldError::new("is missing; write the number of a port");
            self.refuse(reason::INVALID_BACKEND, error.below("number").below(field));
            return None;
        };
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
}

/// What a condition asks of the texts of a request.
fn text_matches(block: &Fields) -> BTreeMap<String, TextMatch> {
    let single = ["uri", "scheme", "method", "authority"].into_iter();
    let single = single.filter_map(|name| {
        let value = field::present(block, name)?;
        Some((name.to_owned(), TextMatch::read(value)))
    });
    let many = ["headers", "withoutHeaders", "queryParams"].into_iter();
    let many = many.flat_map(|name| {
        let values = block.get(name).and_then(Value::as_object);
        let values = values.into_iter().flatten();
        let values = values.filter(|(_, value)| !value.is_null());
        values.map(move |(key, value)| (format!("{name}[{key}]"), TextMatch::read(value)))
    });
    single.chain(many).collect()
}

impl TextMatch {
    fn read(value: &Value) -> Self {
        let text = |how: &str| {
            let text = value.get(how).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        text("exact")
            .map(Self::Exact)
            .or_else(|| text("prefix").map(Self::Prefix))
            .or_else(|| text("regex").map(Self::Regex))
            .unwrap_or(Self::Present)
    }
}
