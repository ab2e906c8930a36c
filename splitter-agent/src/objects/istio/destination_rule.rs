//! DestinationRules: what the subsets of a host are, and how connections to it are made.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{GROUP, VERSIONS, labels, texts, unknown};
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use crate::objects::{Metadata, Object, ObjectName, Timestamp};

/// The kind of DestinationRules.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "DestinationRule",
        plural: "destinationrules",
        group: GROUP,
    },
    versions: VERSIONS,
    purpose: Purpose::Dependency,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::None,
    precedence: 0,
    may_be_superseded: false,
    owns_group: false,
    definition: None,
    read: |metadata, object| {
        DestinationRule::read(&metadata, object).map(|rule| Object::DestinationRule(Box::new(rule)))
    },
};

/// What the agent keeps of a DestinationRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    /// Namespace and name.
    pub name: ObjectName,
    /// `apiVersion` as it was read.
    pub api_version: Box<str>,
    /// `metadata.uid`; empty where there is none.
    pub uid: Box<str>,
    /// When it was created; `None` where a manifest does not say so.
    pub created: Option<Timestamp>,
    /// The host as it is written.
    pub host: Box<str>,
    /// The namespaces of the clients that it is for, as they are written; empty for all.
    pub export_to: Box<[String]>,
    /// Whether it is only for clients with some labels.
    pub is_for_some_clients: bool,
    /// The subsets of the host, in their order.
    pub subsets: Box<[Subset]>,
    /// The first subset of each name.
    by_name: HashMap<Box<str>, u32>,
    /// Whether it has a policy for the whole host.
    pub has_policy: bool,
    /// How connections to the host are made.
    pub policy: Policy,
    /// What becomes of everything that its policies say.
    pub notes: Box<[PolicyNote]>,
}

/// A subset of the endpoints of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Its field, for example `spec.subsets[0]`.
    pub field: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The labels of its pods; none for all.
    pub labels: BTreeMap<String, String>,
    /// How connections to it are made, where that differs from the host.
    pub policy: Policy,
}

/// The parts of a policy that decide whether a connection can be made as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    whole: PolicyParts,
    /// Those of some ports, which stand in the place of the first two parts of the whole.
    ports: Box<[(u16, PolicyPart, PolicyPart)]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PolicyParts {
    tls: PolicyPart,
    load_balancer: PolicyPart,
    tunnel: PolicyPart,
    proxy_protocol: PolicyPart,
}

/// A part of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum PolicyPart {
    /// It is not there.
    #[default]
    Absent,
    /// It can be done.
    Possible,
    /// It cannot.
    Impossible(Box<Impossible>),
}

/// What cannot be done to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// The field of the DestinationRule.
    pub field: String,
    /// What it asks for, as the end of a sentence that begins with the field.
    pub what: String,
}

/// What becomes of a field of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNote {
    /// The field.
    pub field: String,
    /// What becomes of it.
    pub fate: Fate,
    /// What that means, and what to do about it.
    pub message: String,
}

/// What becomes of something that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is done.
    Honoured,
    /// It is done almost as it is written.
    Approximated,
    /// It is not done.
    Ignored,
    /// It cannot be read.
    Unusable,
    /// It is no field that splitter knows.
    Unknown,
}

impl PolicyPart {
    /// This part, if it is there, or else another.
    fn or<'a>(&'a self, other: &'a Self) -> &'a Self {
        match self {
            Self::Absent => other,
            Self::Possible | Self::Impossible(_) => self,
        }
    }

    fn impossible(field: String, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Impossible(Box::new(Impossible { field, what }))
    }
}

impl Policy {
    /// What cannot be done to connections to a port of a host: this is the policy of the host, and
    /// `subset` that of the subset, which comes before it part by part (`MergeTrafficPolicy` in
    /// Istio's `destination_rule.go`).
    #[must_use]
    pub fn impossible<'a>(&'a self, subset: Option<&'a Self>, port: u16) -> Option<&'a Impossible> {
        let (mut tls, mut load_balancer) = (&self.whole.tls, &self.whole.load_balancer);
        let (mut tunnel, mut proxy_protocol) = (&self.whole.tunnel, &self.whole.proxy_protocol);
        if let Some((own_tls, own_balancer)) = self.of_port(port) {
            (tls, load_balancer) = (own_tls, own_balancer);
        }
        if let Some(subset) = subset {
            tls = subset.whole.tls.or(tls);
            load_balancer = subset.whole.load_balancer.or(load_balancer);
            tunnel = subset.whole.tunnel.or(tunnel);
            proxy_protocol = subset.whole.proxy_protocol.or(proxy_protocol);
            if let Some((own_tls, own_balancer)) = subset.of_port(port) {
                (tls, load_balancer) = (own_tls, own_balancer);
            }
        }
        [tls, load_balancer, tunnel, proxy_protocol]
            .into_iter()
            .find_map(|part| match part {
                PolicyPart::Impossible(impossible) => Some(&**impossible),
                PolicyPart::Absent | PolicyPart::Possible => None,
            })
    }

    fn of_port(&self, port: u16) -> Option<(&PolicyPart, &PolicyPart)> {
        let mut ports = self.ports.iter();
        let (_, tls, load_balancer) = ports.find(|(number, ..)| *number == port)?;
        Some((tls, load_balancer))
    }
}

impl DestinationRule {
    fn read(metadata: &Metadata<'_>, object: &Fields) -> Result<Self, FieldError> {
        let none = Fields::new();
        let spec = field::object(object, "spec")?.unwrap_or(&none);
        let in_spec = |error: FieldError| error.below("spec");
        let host = field::text(spec, "host").map_err(in_spec)?;
        let host = host.filter(|host| !host.is_empty()).ok_or_else(|| {
            in_spec(FieldError::new("is missing; write the host of a Service").below("host"))
        })?;
        let mut notes = Vec::new();
        note_unknown(spec, "spec", SPEC_FIELDS, &mut notes);
        let mut subsets: Vec<Subset> = Vec::new();
        let mut by_name = HashMap::new();
        let listed = field::list(spec, "subsets").map_err(in_spec)?;
        for (index, value) in listed.iter().enumerate() {
            let field = format!("spec.subsets[{index}]");
            match Subset::read(&field, value, &mut notes) {
                Ok(subset) => {
                    let number = subsets.len() as u32;
                    by_name.entry(subset.name.clone()).or_insert(number);
                    subsets.push(subset);
                }
                Err(error) => {
                    let FieldError { field, message } = error.below(&field);
                    notes.push(PolicyNote {
                        field,
                        fate: Fate::Unusable,
                        message: format!("{message} (the subset is not used)"),
                    });
                }
            }
        }
        let created = metadata.fields.get("creationTimestamp");
        Ok(Self {
            name: metadata.name.clone(),
            api_version: metadata.api_version.into(),
            uid: metadata.uid().into(),
            created: created.and_then(Value::as_str).and_then(Timestamp::parse),
            host: host.into(),
            export_to: texts(spec, "exportTo").map_err(in_spec)?.into(),
            is_for_some_clients: field::present(spec, "workloadSelector").is_some_and(selects),
            has_policy: field::present(spec, "trafficPolicy").is_some(),
            policy: policy(spec, "spec", &mut notes),
            subsets: subsets.into(),
            by_name,
            notes: notes.into(),
        })
    }

    /// A subset by its name.
    #[must_use]
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        let number = *self.by_name.get(name)?;
        self.subsets.get(number as usize)
    }
}

impl Subset {
    fn read(field: &str, value: &Value, notes: &mut Vec<PolicyNote>) -> Result<Self, FieldError> {
        let fields = field::as_object(value)?;
        note_unknown(fields, field, SUBSET_FIELDS, notes);
        let name = field::text(fields, "name")?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| FieldError::new("is missing; write a name").below("name"))?;
        Ok(Self {
            name: name.into(),
            labels: labels(fields, "labels")?,
            policy: policy(fields, field, notes),
            field: field.into(),
        })
    }
}

const SPEC_FIELDS: &[&str] = &[
    "host",
    "trafficPolicy",
    "subsets",
    "exportTo",
    "workloadSelector",
];

const SUBSET_FIELDS: &[&str] = &["name", "labels", "trafficPolicy"];

const POLICY_FIELDS: &[&str] = &[
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
    "portLevelSettings",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
];

const PORT_FIELDS: &[&str] = &[
    "port",
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
];

const TLS_FIELDS: &[&str] = &[
    "mode",
    "clientCertificate",
    "privateKey",
    "caCertificates",
    "credentialName",
    "subjectAltNames",
    "sni",
    "insecureSkipVerify",
    "caCrl",
];

const BALANCER_FIELDS: &[&str] = &[
    "simple",
    "consistentHash",
    "localityLbSetting",
    "zoneAwareLbSetting",
    "warmup",
    "warmupDurationSecs",
    "backendUtilization",
];

/// Notes the fields that nobody knows: what is written there does nothing.
fn note_unknown(fields: &Fields, path: &str, known: &[&str], notes: &mut Vec<PolicyNote>) {
    for name in unknown(fields, known) {
        notes.push(PolicyNote {
            field: format!("{path}.{name}"),
            fate: Fate::Unknown,
            message: format!(
                "is no field that splitter knows ({}), and does nothing; correct its name, or remove it",
                known.join(", ")
            ),
        });
    }
}

fn unusable(FieldError { field, message }: FieldError) -> PolicyNote {
    PolicyNote {
        field,
        fate: Fate::Unusable,
        message,
    }
}

/// Whether a `workloadSelector` may be for some clients only. One that cannot be read may.
fn selects(selector: &Value) -> bool {
    let Some(selector) = selector.as_object() else {
        return true;
    };
    let is_empty =
        |value: &Value| value.is_null() || value.as_object().is_some_and(Fields::is_empty);
    selector.values().any(|value| !is_empty(value))
}

/// What the `trafficPolicy` of a host or subset says.
fn policy(of: &Fields, field: &str, notes: &mut Vec<PolicyNote>) -> Policy {
    let Some(value) = field::present(of, "trafficPolicy") else {
        return Policy::default();
    };
    let field = format!("{field}.trafficPolicy");
    let Some(fields) = value.as_object() else {
        notes.push(PolicyNote {
            field,
            fate: Fate::Unusable,
            message: format!("is {}; write an object", shown(value)),
        });
        return Policy::default();
    };
    note_unknown(fields, &field, POLICY_FIELDS, notes);
    let (mut tls, mut load_balancer) = parts(fields, &field, notes);
    let impossible = |name: &str, what: &str| match field::present(fields, name) {
        None => PolicyPart::Absent,
        Some(_) => PolicyPart::impossible(format!("{field}.{name}"), what),
    };
    let tunnel = impossible("tunnel", "sends something before what the client sends");
    let proxy_protocol = impossible(
        "proxyProtocol",
        "sends something before what the client sends",
    );
    if field::present(fields, "retryBudget").is_some() {
        notes.push(PolicyNote {
            field: format!("{field}.retryBudget"),
            fate: Fate::Ignored,
            message: "limits how often requests are sent again, and splitter sends none; remove it"
                .to_owned(),
        });
    }
    let levels = field::list(fields, "portLevelSettings").unwrap_or_else(|error| {
        notes.push(unusable(error.below(&field)));
        &[]
    });
    let mut ports = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{index}]");
        let of_port = match field::as_object(level) {
            Ok(of_port) => of_port,
            Err(error) => {
                notes.push(unusable(error.below(&field)));
                continue;
            }
        };
        note_unknown(of_port, &field, PORT_FIELDS, notes);
        let (own_tls, own_balancer) = parts(of_port, &field, notes);
        let number = level.pointer("/port/number").and_then(field::port);
        let Some(number) = number else {
            let error = FieldError::new("is not the number of a port (1 to 65535); write it");
            notes.push(unusable(error.below("port.number").below(&field)));
            // Whichever port it is for: what cannot be done there is not done anywhere.
            if matches!(own_tls, PolicyPart::Impossible(_)) {
                tls = own_tls;
            }
            if matches!(own_balancer, PolicyPart::Impossible(_)) {
                load_balancer = own_balancer;
            }
            continue;
        };
        ports.push((number, own_tls, own_balancer));
    }
    Policy {
        whole: PolicyParts {
            tls,
            load_balancer,
            tunnel,
            proxy_protocol,
        },
        ports: ports.into(),
    }
}

/// The parts that a policy has for all ports or for one: whether TLS and the load balancer are
/// possible. Notes what becomes of the others.
fn parts(policy: &Fields, field: &str, notes: &mut Vec<PolicyNote>) -> (PolicyPart, PolicyPart) {
    let tls = tls(policy, field, notes);
    let load_balancer = load_balancer(policy, field, notes);
    for (name, fate, message) in [
        (
            "connectionPool",
            Fate::Ignored,
            "limits connections or changes how they are kept, and splitter only chooses where they \
             go; remove it",
        ),
        (
            "outlierDetection",
            Fate::Approximated,
            "takes out endpoints that fail, and splitter goes by their readiness alone; write a \
             readiness probe",
        ),
    ] {
        if field::present(policy, name).is_some() {
            notes.push(PolicyNote {
                field: format!("{field}.{name}"),
                fate,
                message: message.to_owned(),
            });
        }
    }
    (tls, load_balancer)
}

fn tls(policy: &Fields, field: &str, notes: &mut Vec<PolicyNote>) -> PolicyPart {
    let Some(tls) = field::present(policy, "tls") else {
        return PolicyPart::Absent;
    };
    if let Some(fields) = tls.as_object() {
        note_unknown(fields, &format!("{field}.tls"), TLS_FIELDS, notes);
    }
    match tls.get("mode") {
        None | Some(Value::Null) if tls.is_object() => PolicyPart::Possible,
        Some(Value::String(mode)) if mode == "DISABLE" => PolicyPart::Possible,
        mode => PolicyPart::impossible(
            format!("{field}.tls.mode"),
            format!(
                "is {}, and splitter cannot make TLS out of what a client sends",
                shown(mode.unwrap_or(tls))
            ),
        ),
    }
}

fn load_balancer(policy: &Fields, field: &str, notes: &mut Vec<PolicyNote>) -> PolicyPart {
    let Some(value) = field::present(policy, "loadBalancer") else {
        return PolicyPart::Absent;
    };
    let field = format!("{field}.loadBalancer");
    let Some(balancer) = value.as_object() else {
        notes.push(PolicyNote {
            field,
            fate: Fate::Unusable,
            message: format!("is {}; write an object", shown(value)),
        });
        return PolicyPart::Absent;
    };
    note_unknown(balancer, &field, BALANCER_FIELDS, notes);
    let mut note = |name: &str, fate, message: &str| {
        notes.push(PolicyNote {
            field: format!("{field}.{name}"),
            fate,
            message: message.to_owned(),
        });
    };
    let mut part = PolicyPart::Possible;
    let simple = field::present(balancer, "simple");
    match simple.map(|simple| simple.as_str().unwrap_or_default()) {
        None | Some("UNSPECIFIED") => {}
        Some("RANDOM" | "ROUND_ROBIN") => note(
            "simple",
            Fate::Honoured,
            "connections are spread evenly over the endpoints",
        ),
        Some("PASSTHROUGH") => {
            part = PolicyPart::impossible(
                format!("{field}.simple"),
                "is PASSTHROUGH, which sends connections to the address that was dialled, whatever the \
                 destination",
            );
        }
        Some("LEAST_REQUEST" | "LEAST_CONN") => note(
            "simple",
            Fate::Approximated,
            "goes by the load of each endpoint, which splitter does not know; connections are spread \
             evenly over the endpoints",
        ),
        Some(_) => note(
            "simple",
            Fate::Unusable,
            &format!(
                "is {}, which Istio does not know; write ROUND_ROBIN, RANDOM or LEAST_REQUEST",
                simple.map(shown).unwrap_or_default()
            ),
        ),
    }
    for (name, message) in [
        (
            "consistentHash",
            "keeps a client at one endpoint, and splitter spreads connections evenly; remove it",
        ),
        (
            "localityLbSetting",
            "prefers endpoints by their locality, and splitter goes by the topology hints of \
             EndpointSlices; set trafficDistribution on the Service",
        ),
        (
            "zoneAwareLbSetting",
            "prefers endpoints by their zone, and splitter goes by the topology hints of EndpointSlices; \
             set trafficDistribution on the Service",
        ),
        (
            "warmup",
            "gives new endpoints less at first, and splitter gives all the same; remove it",
        ),
        (
            "warmupDurationSecs",
            "gives new endpoints less at first, and splitter gives all the same; remove it",
        ),
        (
            "backendUtilization",
            "goes by what endpoints report, which splitter does not read; remove it",
        ),
    ] {
        if field::present(balancer, name).is_some() {
            note(name, Fate::Ignored, message);
        }
    }
    part
}
