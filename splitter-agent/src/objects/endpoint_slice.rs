//! EndpointSlices: the addresses behind a Service.

use std::net::IpAddr;

use serde_json::Value;
use splitter_common::layout::Protocol;

use super::ObjectName;
use super::decode::Metadata;
use super::field::{self, FieldError, Fields, shown};
use super::service::protocol;

/// The label that names the Service of an EndpointSlice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the agent keeps of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service that it belongs to, in its own namespace.
    pub service: Option<String>,
    /// Family of its addresses; `None` if they are names, which nobody can be sent to.
    pub address_family: Option<AddressFamily>,
    /// The ports of every endpoint; those that cannot be dialled are left out.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlicePort {
    /// Name of the Service port that it stands for; empty if that has none.
    pub name: String,
    /// Number at the endpoints, never 0.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// An endpoint of an EndpointSlice, with the defaults of Kubernetes filled in
/// (`discovery.k8s.io/v1`, EndpointConditions).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceEndpoint {
    /// Its addresses of the slice's family; those that cannot be dialled are left out.
    pub addresses: Vec<IpAddr>,
    /// Whether it takes new connections; true if unknown.
    pub ready: bool,
    /// Whether it would be ready but for its termination; `ready` if unknown.
    pub serving: bool,
    /// Whether it is about to go; false if unknown.
    pub terminating: bool,
}

impl AddressFamily {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The name that Kubernetes gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

impl EndpointSlice {
    pub(super) fn read(metadata: &Metadata<'_>, object: &Fields) -> Result<Self, FieldError> {
        let address_family = address_family(object)?;
        Ok(Self {
            service: metadata.label(SERVICE_NAME)?,
            address_family,
            ports: field::each(object, "ports", SlicePort::read)?
                .into_iter()
                .flatten()
                .collect(),
            endpoints: field::each(object, "endpoints", |value| {
                SliceEndpoint::read(value, address_family)
            })?,
            name: metadata.name.clone(),
        })
    }
}

impl SlicePort {
    /// `None` if the port cannot be dialled: without a number it means all ports, which
    /// no connection can be sent to.
    fn read(value: &Value) -> Result<Option<Self>, FieldError> {
        let fields = field::as_object(value)?;
        let name = field::text(fields, "name")?.unwrap_or_default().to_owned();
        let protocol = protocol(fields)?;
        let port = field::present(fields, "port").and_then(field::port);
        Ok(port.map(|port| Self {
            name,
            port,
            protocol,
        }))
    }
}

impl SliceEndpoint {
    fn read(value: &Value, family: Option<AddressFamily>) -> Result<Self, FieldError> {
        let fields = field::as_object(value)?;
        let addresses = field::list(fields, "addresses")?
            .iter()
            .filter_map(|address| address.as_str()?.parse().ok())
            .filter(|address| Some(AddressFamily::of(address)) == family && is_dialled(address))
            .collect();
        let none = Fields::new();
        let conditions = field::object(fields, "conditions")?.unwrap_or(&none);
        let condition =
            |name| field::boolean(conditions, name).map_err(|error| error.below("conditions"));
        let ready = condition("ready")?.unwrap_or(true);
        Ok(Self {
            addresses,
            ready,
            serving: condition("serving")?.unwrap_or(ready),
            terminating: condition("terminating")?.unwrap_or(false),
        })
    }
}

/// Whether a connection can be sent to the address. Kubernetes itself allows none of
/// those that are left out here.
fn is_dialled(address: &IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        // A link-local address says nothing without an interface.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some() || v6.is_unicast_link_local(),
    };
    !special && !address.is_unspecified() && !address.is_multicast()
}

fn address_family(object: &Fields) -> Result<Option<AddressFamily>, FieldError> {
    match field::text(object, "addressType")? {
        Some("IPv4") => Ok(Some(AddressFamily::Ipv4)),
        Some("IPv6") => Ok(Some(AddressFamily::Ipv6)),
        Some("FQDN") => Ok(None),
        other => Err(FieldError::new(format!(
            "is {}; write IPv4, IPv6 or FQDN",
            shown(&Value::from(other))
        ))
        .below("addressType")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::{DecodeError, Object, decode};

    fn slice(mut value: Value) -> Result<EndpointSlice, DecodeError> {
        value["apiVersion"] = json!("discovery.k8s.io/v1");
        value["kind"] = json!("EndpointSlice");
        value["metadata"] = json!({"name": "web-x", "labels": {SERVICE_NAME: "web"}});
        decode(value).map(|object| match object {
            Some(Object::EndpointSlice(slice)) => slice,
            other => panic!("{other:?}"),
        })
    }

    fn endpoint(value: &Value) -> SliceEndpoint {
        slice(json!({"addressType": "IPv4", "endpoints": [value]}))
            .unwrap()
            .endpoints
            .remove(0)
    }

    #[test]
    fn null_lists_are_empty() {
        let slice = slice(json!({"addressType": "IPv4", "endpoints": null, "ports": null}));
        let slice = slice.unwrap();
        assert_eq!(slice.service.as_deref(), Some("web"));
        assert_eq!((slice.endpoints, slice.ports), (vec![], vec![]));
    }

    #[test]
    fn unknown_conditions_are_as_kubernetes_defines_them() {
        let conditions = |value: Value| {
            let endpoint = endpoint(&json!({"addresses": [], "conditions": value}));
            (endpoint.ready, endpoint.serving, endpoint.terminating)
        };
        assert_eq!(conditions(json!(null)), (true, true, false));
        assert_eq!(conditions(json!({"ready": null})), (true, true, false));
        assert_eq!(conditions(json!({"ready": false})), (false, false, false));
        assert_eq!(
            conditions(json!({"ready": false, "serving": true, "terminating": true})),
            (false, true, true)
        );
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out() {
        let v4 = endpoint(&json!({"addresses": [
            "10.0.0.1", "127.0.0.2", "0.0.0.0", "224.0.0.1", "255.255.255.255", "fd00::1",
            "::ffff:10.0.0.1", "10.0.0.1:80", "", null, 7,
        ]}));
        let expected: [IpAddr; 2] = [[10, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        assert_eq!(v4.addresses, expected);
        let v6 = slice(json!({"addressType": "IPv6", "endpoints": [
            {"addresses": ["fd00::1", "::", "ff02::1", "fe80::1", "::ffff:10.0.0.1", "10.0.0.1"]},
        ]}));
        let expected: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(v6.unwrap().endpoints[0].addresses, [expected]);
        let fqdn = slice(json!({"addressType": "FQDN", "endpoints": [
            {"addresses": ["example.org", "10.0.0.1"]},
        ]}));
        assert_eq!(fqdn.unwrap().endpoints[0].addresses, [] as [IpAddr; 0]);
    }

    #[test]
    fn ports_without_a_number_are_left_out() {
        let ports = slice(json!({"addressType": "IPv4", "ports": [
            {"name": "http", "port": 8080}, {"name": null, "port": 81, "protocol": "UDP"},
            {"name": "all", "port": null}, {"port": 0}, {"port": 65536}, {"port": "http"},
        ]}))
        .unwrap()
        .ports;
        let port = |name: &str, port, protocol| SlicePort {
            name: name.to_owned(),
            port,
            protocol,
        };
        assert_eq!(
            ports,
            [
                port("http", 8080, Protocol::Tcp),
                port("", 81, Protocol::Udp)
            ]
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (value, field) in [
            (json!({}), "addressType"),
            (json!({"addressType": "ipv4"}), "addressType"),
            (
                json!({"addressType": "IPv4", "endpoints": [7]}),
                "endpoints[0]",
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"conditions": {"ready": 1}}]}),
                "endpoints[0].conditions.ready",
            ),
            (
                json!({"addressType": "IPv4", "ports": [{"protocol": "X"}]}),
                "ports[0].protocol",
            ),
        ] {
            assert_eq!(slice(value.clone()).unwrap_err().field, field, "{value}");
        }
    }
}
