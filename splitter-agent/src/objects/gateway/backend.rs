//! The backends of a rule.

use serde_json::Value;

use super::filter;
use super::rules::{Findings, RouteKind, unknown};
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::reason;

/// A backend of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteBackend {
    /// The field that it is, for example `spec.rules[0].backendRefs[1]`.
    pub field: String,
    /// What it refers to.
    pub target: Target,
    /// Its weight.
    pub weight: u32,
}

/// What a backend refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A port of a Service.
    Service {
        /// Its namespace; `None` for the route's own.
        namespace: Option<String>,
        /// Its name, as it is written.
        name: String,
        /// Its port.
        port: u16,
    },
    /// An object of another kind, which has no endpoints that could be dialled.
    Other {
        /// Its kind and group, for people.
        kind: String,
        /// Its name, as it is written.
        name: String,
    },
}

impl Target {
    /// The name of the object, as it is written.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Service { name, .. } | Self::Other { name, .. } => name,
        }
    }
}

/// The largest weight that the API allows.
const MAX_WEIGHT: u32 = 1_000_000;

const FIELDS: [&str; 6] = ["group", "kind", "namespace", "name", "port", "weight"];
const FIELDS_WITH_FILTERS: [&str; 7] = [
    "group",
    "kind",
    "namespace",
    "name",
    "port",
    "weight",
    "filters",
];

/// The backends of a rule, of which this is the path. Those that cannot be read are left out, and
/// told of.
pub(super) fn read_all(
    rule: &Fields,
    path: &str,
    kind: RouteKind,
    findings: &mut Findings,
) -> Vec<RouteBackend> {
    let values = match field::list(rule, "backendRefs") {
        Ok(values) => values,
        Err(error) => {
            findings.refuse(reason::INVALID_BACKEND, error.below(path));
            return Vec::new();
        }
    };
    let mut backends = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let path = format!("{path}.backendRefs[{index}]");
        match field::as_object(value) {
            Ok(fields) => backends.extend(RouteBackend::read(fields, path, kind, findings)),
            Err(error) => findings.refuse(reason::INVALID_BACKEND, error.below(path)),
        }
    }
    backends
}

impl RouteBackend {
    fn read(
        fields: &Fields,
        path: String,
        kind: RouteKind,
        findings: &mut Findings,
    ) -> Option<Self> {
        let weight = match weight(fields) {
            Ok(weight) => weight,
            Err(error) => {
                findings.refuse(reason::INVALID_WEIGHT, error.below(&path));
                1
            }
        };
        let known: &[&str] = if kind.has_filters() {
            filter::judge(fields, &path, findings);
            &FIELDS_WITH_FILTERS
        } else {
            &FIELDS
        };
        for error in unknown(fields, known) {
            findings.refuse(reason::UNKNOWN_RESTRICTION, error.below(&path));
        }
        match Target::read(fields) {
            Ok(target) => Some(Self {
                field: path,
                target,
                weight,
            }),
            Err(error) => {
                findings.refuse(reason::INVALID_BACKEND, error.below(&path));
                None
            }
        }
    }
}

impl Target {
    fn read(fields: &Fields) -> Result<Self, FieldError> {
        let name = field::text(fields, "name")?.filter(|name| !name.is_empty());
        let name = name
            .ok_or_else(|| {
                FieldError::new("is missing; write the name of a Service").below("name")
            })?
            .to_owned();
        let group = field::text(fields, "group")?.unwrap_or_default();
        let kind = field::text(fields, "kind")?.unwrap_or("Service");
        if kind != "Service" || !matches!(group, "" | "core") {
            let kind = match group {
                "" => kind.to_owned(),
                group => format!("{kind} of group {group}"),
            };
            return Ok(Self::Other {
                kind: shown(&Value::from(kind)),
                name,
            });
        }
        let namespace = field::text(fields, "namespace")?.filter(|text| !text.is_empty());
        let namespace = namespace.map(str::to_owned);
        let port = match field::present(fields, "port") {
            None => Err(FieldError::new(
                "is missing; write the port of the Service, which can be another than the root's",
            )),
            Some(value) => field::port(value).ok_or_else(|| {
                FieldError::new(format!("is {}; write a port from 1 to 65535", shown(value)))
            }),
        };
        let port = port.map_err(|error| error.below("port"))?;
        Ok(Self::Service {
            namespace,
            name,
            port,
        })
    }
}

/// The weight: 1 where there is none.
fn weight(fields: &Fields) -> Result<u32, FieldError> {
    let Some(value) = field::present(fields, "weight") else {
        return Ok(1);
    };
    let weight = field::whole(value).and_then(|weight| u32::try_from(weight).ok());
    weight
        .filter(|weight| *weight <= MAX_WEIGHT)
        .ok_or_else(|| {
            FieldError::new(format!(
                "is {}; write a whole number from 0 to {MAX_WEIGHT}",
                shown(value)
            ))
            .below("weight")
        })
}
