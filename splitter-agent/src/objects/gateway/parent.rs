//! The parents of a route.

use serde_json::Value;

use super::GROUP;
use crate::objects::dns;
use crate::objects::field::{self, FieldError, Fields, shown};
use crate::objects::traffic_split::Refusal;
use crate::reason;

/// A parent that is a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its place in the list, from 0.
    pub index: usize,
    /// The Service; `None` if it cannot be read.
    pub service: Option<ParentService>,
    /// Its port; `None` for any.
    pub port: Option<u16>,
    /// The name of its port; `None` for any.
    pub section_name: Option<String>,
    /// Everything that is wrong with it.
    pub refusals: Vec<Refusal>,
}

/// The Service that is a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentService {
    /// Its namespace; `None` for the route's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Both, as a client of the route's namespace would call it.
    pub host: String,
}

/// The fields of a parentRef.
const FIELDS: [&str; 6] = ["group", "kind", "namespace", "name", "sectionName", "port"];

/// More parents than this are not read: a status has no room for them.
const MOST: usize = 32;

/// What a parentRef is.
enum Referent {
    Service,
    /// Something that is not a Service, and was most likely meant to be.
    Almost(FieldError),
    Other,
}

/// The parents that are Services, and what is wrong with those that look like one.
pub(super) fn read_all(spec: &Fields) -> (Box<[Parent]>, Box<[FieldError]>) {
    let mut parents = Vec::new();
    let mut mistaken = Vec::new();
    let values = spec.get("parentRefs").and_then(Value::as_array);
    for (index, value) in values.into_iter().flatten().take(MOST).enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        match referent(value) {
            Referent::Service => parents.push(Parent::read(index, value, &path)),
            Referent::Almost(error) => mistaken.push(error.below(path)),
            Referent::Other => {}
        }
    }
    (parents.into(), mistaken.into())
}

/// Whether a parentRef is a Service.
pub(super) fn is_service(parent: &Value) -> bool {
    matches!(referent(parent), Referent::Service)
}

fn referent(parent: &Value) -> Referent {
    let Some(fields) = parent.as_object() else {
        return Referent::Other;
    };
    if field::present(fields, "kind").and_then(Value::as_str) != Some("Service") {
        return Referent::Other;
    }
    match field::present(fields, "group") {
        // The API has the empty group; its own guide for meshes, and many after it, write `core`.
        Some(Value::String(group)) if group.is_empty() || group == "core" => Referent::Service,
        Some(Value::String(group)) if group == GROUP || group == "v1" || group == "core/v1" => {
            Referent::Almost(
                FieldError::new(format!(
                    "is {}, which has no Services, so the route is not for this one; write group: \
                     \"\"",
                    shown(&Value::from(group.as_str()))
                ))
                .below("group"),
            )
        }
        None => Referent::Almost(
            FieldError::new(format!(
                "is missing, which stands for {GROUP}, and that has no Services, so the route is \
                 not for this one; write group: \"\""
            ))
            .below("group"),
        ),
        Some(_) => Referent::Other,
    }
}

impl Parent {
    fn read(index: usize, value: &Value, path: &str) -> Self {
        let no_fields = Fields::new();
        let fields = value.as_object().unwrap_or(&no_fields);
        let mut refusals = Vec::new();
        let mut refuse = |reason, error: FieldError| {
            refusals.push(Refusal::new(reason, error.below(path)));
        };
        let mut read_name = |name: &str| match field::text(fields, name) {
            Ok(Some(text)) if dns::is_label(text) => Some(Ok(text.to_owned())),
            Ok(None | Some("")) => None,
            Ok(Some(text)) => {
                let text = shown(&Value::from(text));
                let error = FieldError::new(format!(
                    "{text} cannot be the name of a Service or namespace; write one that is"
                ));
                refuse(reason::INVALID_ROOT, error.below(name));
                Some(Err(()))
            }
            Err(error) => {
                refuse(reason::INVALID_ROOT, error);
                Some(Err(()))
            }
        };
        let name = read_name("name");
        let namespace = read_name("namespace").transpose();
        if name.is_none() {
            let error = FieldError::new("is missing; write the name of a Service");
            refuse(reason::INVALID_ROOT, error.below("name"));
        }
        let service = match (name, namespace) {
            (Some(Ok(name)), Ok(namespace)) => Some(ParentService {
                host: match &namespace {
                    Some(namespace) => format!("{name}.{namespace}"),
                    None => name.clone(),
                },
                namespace,
                name,
            }),
            _ => None,
        };
        let section_name = match field::text(fields, "sectionName") {
            Ok(name) => name.filter(|name| !name.is_empty()).map(str::to_owned),
            Err(error) => {
                refuse(reason::INVALID_ROOT, error);
                None
            }
        };
        let port = field::present(fields, "port").and_then(|value| {
            let port = field::port(value);
            if port.is_none() {
                let error =
                    FieldError::new(format!("is {}; write a port from 1 to 65535", shown(value)));
                refuse(reason::INVALID_ROOT, error.below("port"));
            }
            port
        });
        for error in super::rules::unknown(fields, &FIELDS) {
            refuse(reason::UNKNOWN_RESTRICTION, error);
        }
        Self {
            index,
            service,
            port,
            section_name,
            refusals,
        }
    }
}
