//! A kind that splitter does not come with: all that it takes to add one.
//!
//! ```yaml
//! apiVersion: example.dev/v1
//! kind: CanaryRoute
//! spec:
//!   canaries:
//!   - {root: web, port: 80, stable: web-1, canary: web-2, canaryPort: 8080, percent: 10}
//!   - root: web
//!     clients: {namespaces: [team-a], labels: {app: shop}, consumer: false}
//!     {stable: web-1, canary: web-2, percent: 50, unready: refused}
//! ```

use serde_json::Value;
use splitter_agent::compile::{Diagnostics, Severity};
use splitter_agent::objects::{
    Availability, Entry, FieldError, Fields, Kind, Metadata, NameRule, Object, ObjectName, Purpose,
    Resource, StatusForm, Weight,
};
use splitter_agent::reason;
use splitter_agent::route::{
    self, Claim, ClientSelector, Clients, Context, Destinations, Leaf, OnNoEndpoints, Ports,
    RouteObject, Split, Translate, UnreadyShare,
};

pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "CanaryRoute",
        plural: "canaryroutes",
        group: "example.dev",
    },
    versions: &["v2", "v1"],
    purpose: Purpose::Route,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::Own,
    precedence: 30,
    may_be_superseded: false,
    owns_group: true,
    definition: None,
    read,
};

/// The same, of a kind that takes precedence, and whose objects supersede each other.
pub(crate) static PRIORITY_ENTRY: Entry = Entry {
    resource: Resource {
        kind: "PriorityRoute",
        plural: "priorityroutes",
        group: "priority.example.dev",
    },
    versions: &["v1"],
    purpose: Purpose::Route,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::None,
    precedence: 5,
    may_be_superseded: true,
    owns_group: true,
    definition: None,
    read,
};

pub(crate) const PRIORITY_ROUTE: Kind = Kind::new(&PRIORITY_ENTRY);

pub(crate) const CANARY_ROUTE: Kind = Kind::new(&ENTRY);

/// What is read of a CanaryRoute.
#[derive(Debug, PartialEq)]
struct CanaryRoute(Vec<Canary>);

#[derive(Debug, PartialEq)]
struct Canary {
    root: String,
    port: Option<u16>,
    stable: String,
    canary: String,
    canary_port: Option<u16>,
    percent: u32,
    clients: Clients,
    unready_share: UnreadyShare,
}

fn read(metadata: Metadata<'_>, object: &Fields) -> Result<Object, FieldError> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let canaries = spec["canaries"].as_array();
    let canaries = canaries.ok_or_else(|| {
        FieldError::new("is not a list; write one")
            .below("canaries")
            .below("spec")
    })?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let canaries = canaries.iter().map(|canary| Canary {
        root: text(&canary["root"]),
        port: port(&canary["port"]),
        stable: text(&canary["stable"]),
        canary: text(&canary["canary"]),
        canary_port: port(&canary["canaryPort"]),
        percent: canary["percent"].as_u64().unwrap_or(0) as u32,
        clients: clients(&canary["clients"]),
        unready_share: match canary["unready"].as_str() {
            Some("refused") => UnreadyShare::Refused,
            _ => UnreadyShare::GivenAway(OnNoEndpoints::Refuse),
        },
    });
    let content = CanaryRoute(canaries.collect());
    Ok(metadata.into_route(content))
}

fn clients(value: &Value) -> Clients {
    if value.is_null() {
        return Clients::Everyone;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespaces = value["namespaces"].as_array();
    let labels = value["labels"].as_object().into_iter().flatten();
    Clients::Some(ClientSelector {
        namespaces: namespaces.map(|namespaces| namespaces.iter().map(text).collect()),
        labels: labels
            .map(|(label, value)| (label.clone(), text(value)))
            .collect(),
        is_consumer: value["consumer"].as_bool().unwrap_or_default(),
    })
}

impl Translate for CanaryRoute {
    fn translate(
        &self,
        object: &RouteObject,
        _: Context<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Claim> {
        let canaries = self.0.iter().enumerate();
        canaries
            .map(|(number, canary)| {
                let field = format!("spec.canaries[{number}]");
                let is_possible = canary.percent <= 100;
                if !is_possible {
                    diagnostics.emit(
                        &object.origin(),
                        Severity::Refused,
                        reason::INVALID_WEIGHT,
                        format!("{field}.percent"),
                        "is more than 100; write less",
                    );
                }
                let leaf = |service: &str, port, weight| Leaf {
                    name: service.to_owned(),
                    service: Some(ObjectName::new(&*object.name.namespace, service)),
                    port,
                    subset: None,
                    waits_for: None,
                    weight: Weight::whole(weight),
                    field: field.clone(),
                };
                let split = is_possible.then(|| Split {
                    leaves_field: field.clone(),
                    leaves: vec![
                        leaf(&canary.stable, None, 100 - canary.percent),
                        leaf(&canary.canary, canary.canary_port, canary.percent),
                    ],
                    unready_share: canary.unready_share,
                    destinations: Destinations::Services,
                });
                Claim {
                    origin: object.origin(),
                    precedence: object.kind.precedence,
                    created: object.created,
                    root: ObjectName::new(&*object.name.namespace, &*canary.root),
                    root_field: format!("{field}.root"),
                    ports: canary.port.map_or(Ports::ALL, Ports::one),
                    clients: canary.clients.clone(),
                    split,
                    waits_for: None,
                    ports_field: None,
                    ambiguous: None,
                }
            })
            .collect()
    }

    fn weights(&self) -> String {
        let canaries = self.0.iter();
        let weights = canaries.map(|it| format!("{}:{}", it.canary, it.percent));
        weights.collect::<Vec<_>>().join(",")
    }

    fn written_roots(&self) -> Vec<&str> {
        self.0.iter().map(|canary| canary.root.as_str()).collect()
    }

    fn is_equal(&self, other: &dyn Translate) -> bool {
        route::is_equal(self, other)
    }
}
