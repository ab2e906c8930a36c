//! EndpointSlices: the addresses behind a Service.

use std::net::IpAddr;

use serde_json::Value;
use splitter_common::layout::Protocol;

use super::field::{self, FieldError, Fields, shown};
use super::ignored::{Flaw, Flaws, Ignored};
use super::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use super::placement::{self, Placement, Placements};
use super::service::protocol;
use super::{Metadata, Object, ObjectName, pod_key};

/// The kind of EndpointSlices.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "EndpointSlice",
        plural: "endpointslices",
        group: "discovery.k8s.io",
    },
    versions: &["v1"],
    purpose: Purpose::Dependency,
    availability: Availability::BuiltIn,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::None,
    precedence: 0,
    may_be_superseded: false,
    owns_group: false,
    definition: None,
    read: |metadata, object| EndpointSlice::read(&metadata, object).map(Object::EndpointSlice),
};

/// The label that names the Service of an EndpointSlice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label that names the controller of an EndpointSlice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What the agent keeps of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty where there is none.
    pub uid: Box<str>,
    /// The Service that it belongs to, in its own namespace; `None` without the label
    /// [`SERVICE_NAME`].
    pub service: Option<String>,
    /// Whether a controller looks after it, by the label
    /// `endpointslice.kubernetes.io/managed-by` or an owner. One that belongs to no Service is
    /// then meant so: other controllers keep their own endpoints in slices too.
    pub is_managed: bool,
    /// Family of its addresses; `None` if they are names, which nobody can be sent to.
    pub address_family: Option<AddressFamily>,
    /// The ports of every endpoint; those that cannot be dialled are left out.
    pub ports: Box<[SlicePort]>,
    /// The endpoints, one for each address that can be dialled.
    pub endpoints: Box<[SliceEndpoint]>,
    /// Where they are, and whose connections they are meant for.
    pub placements: Placements,
    /// How many endpoints there are with no address that can be dialled.
    pub without_address: usize,
    /// What was left out, one entry for each sort of it.
    pub ignored: Box<[Ignored]>,
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

/// An address of an endpoint of an EndpointSlice, with the defaults of Kubernetes filled
/// in (`discovery.k8s.io/v1`, EndpointConditions). There are as many of these as pods in a
/// cluster, so that it is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceEndpoint {
    /// The address, of the slice's family.
    pub address: IpAddr,
    /// Whether it takes new connections; true if unknown.
    pub ready: bool,
    /// Whether it would be ready but for its termination; `ready` if unknown.
    pub serving: bool,
    /// Whether it is about to go; false if unknown.
    pub terminating: bool,
    /// Where it is, to be looked up in [`EndpointSlice::placements`].
    pub placement: Placement,
    /// What stands for its Pod: a hash of the uid, or of the name where there is no uid; 0 if it
    /// names none.
    pub pod: u64,
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

    /// The other family.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Ipv4 => Self::Ipv6,
            Self::Ipv6 => Self::Ipv4,
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
    fn read(metadata: &Metadata<'_>, object: &Fields) -> Result<Self, FieldError> {
        let address_family = address_family(object)?;
        let mut flaws = Flaws::default();
        let mut ports = Vec::new();
        for (index, value) in field::list(object, "ports")?.iter().enumerate() {
            let port = SlicePort::read(value, index, &mut flaws)
                .map_err(|error| error.at(index).below("ports"))?;
            ports.extend(port);
        }
        let listed = field::list(object, "endpoints")?;
        let mut endpoints = Vec::with_capacity(listed.len());
        let mut without_address = 0;
        let mut placements = placement::Builder::default();
        for (index, value) in listed.iter().enumerate() {
            let before = endpoints.len();
            let mut reader = Reader {
                family: address_family,
                flaws: &mut flaws,
                placements: &mut placements,
                endpoints: &mut endpoints,
            };
            reader
                .read(value, index)
                .map_err(|error| error.at(index).below("endpoints"))?;
            without_address += usize::from(endpoints.len() == before);
        }
        Ok(Self {
            service: metadata
                .label(SERVICE_NAME)?
                .filter(|service| !service.is_empty()),
            is_managed: is_managed(metadata),
            address_family,
            ports: ports.into(),
            endpoints: endpoints.into(),
            placements: placements.finish(),
            without_address,
            ignored: flaws.ignored(address_family).into(),
            name: metadata.name.clone(),
            uid: metadata.uid().into(),
        })
    }
}

/// Whatever else stands where the label or the owners should be is none.
fn is_managed(metadata: &Metadata<'_>) -> bool {
    let label = metadata.label(MANAGED_BY).ok().flatten();
    let owners = metadata.fields.get("ownerReferences");
    let owners = owners.and_then(Value::as_array);
    label.is_some_and(|controller| !controller.is_empty())
        || owners.is_some_and(|owners| !owners.is_empty())
}

impl SlicePort {
    /// `None` if the port cannot be dialled: without a number it means all ports, which
    /// no connection can be sent to.
    fn read(value: &Value, index: usize, flaws: &mut Flaws) -> Result<Option<Self>, FieldError> {
        let fields = field::as_object(value)?;
        let name = field::text(fields, "name")?.unwrap_or_default().to_owned();
        let protocol = protocol(fields)?;
        let number = field::present(fields, "port").unwrap_or(&Value::Null);
        let port = field::port(number);
        if port.is_none() {
            flaws.note(Flaw::Port, number, || format!("ports[{index}].port"));
        }
        Ok(port.map(|port| Self {
            name,
            port,
            protocol,
        }))
    }
}

/// What the endpoints of a slice are read into.
struct Reader<'a> {
    family: Option<AddressFamily>,
    flaws: &'a mut Flaws,
    placements: &'a mut placement::Builder,
    endpoints: &'a mut Vec<SliceEndpoint>,
}

impl Reader<'_> {
    /// Adds one for each address of an endpoint; those that cannot be dialled are left out.
    fn read(&mut self, value: &Value, index: usize) -> Result<(), FieldError> {
        let fields = field::as_object(value)?;
        let none = Fields::new();
        let conditions = field::object(fields, "conditions")?.unwrap_or(&none);
        let condition =
            |name| field::boolean(conditions, name).map_err(|error| error.below("conditions"));
        let ready = condition("ready")?.unwrap_or(true);
        let serving = condition("serving")?.unwrap_or(ready);
        let terminating = condition("terminating")?.unwrap_or(false);
        let placement = self.placements.read(fields)?;
        let pod = pod(fields);
        for (place, value) in field::list(fields, "addresses")?.iter().enumerate() {
            match address(value, self.family) {
                Ok(address) => self.endpoints.push(SliceEndpoint {
                    address,
                    ready,
                    serving,
                    terminating,
                    placement,
                    pod,
                }),
                Err(flaw) => self.flaws.note(flaw, value, || {
                    format!("endpoints[{index}].addresses[{place}]")
                }),
            }
        }
        Ok(())
    }
}

/// The Pod of an endpoint. Whatever else stands there is none.
fn pod(endpoint: &Fields) -> u64 {
    let target = endpoint.get("targetRef").and_then(Value::as_object);
    let text = |name: &str| {
        let text = target?.get(name)?.as_str()?;
        (!text.is_empty()).then_some(text)
    };
    match text("kind") {
        Some("Pod") => text("uid").or_else(|| text("name")).map_or(0, pod_key),
        _ => 0,
    }
}

/// An address of the slice's family that a connection can be sent to.
fn address(value: &Value, family: Option<AddressFamily>) -> Result<IpAddr, Flaw> {
    let address = value.as_str().and_then(|text| text.parse().ok());
    let address = address.ok_or(Flaw::NotAnAddress)?;
    if Some(AddressFamily::of(&address)) != family {
        Err(Flaw::OtherFamily)
    } else if !is_dialled(&address) {
        Err(Flaw::NotDialled)
    } else {
        Ok(address)
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

    fn addresses(slice: &EndpointSlice) -> Vec<IpAddr> {
        let endpoints = slice.endpoints.iter();
        endpoints.map(|endpoint| endpoint.address).collect()
    }

    #[test]
    fn null_lists_are_empty() {
        let slice = slice(json!({"addressType": "IPv4", "endpoints": null, "ports": null}));
        let slice = slice.unwrap();
        assert_eq!(slice.service.as_deref(), Some("web"));
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
        assert_eq!(slice.without_address, 0);
    }

    #[test]
    fn unknown_conditions_are_as_kubernetes_defines_them() {
        let conditions = |value: Value| {
            let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": value});
            let slice = slice(json!({"addressType": "IPv4", "endpoints": [endpoint]}));
            let endpoint = slice.unwrap().endpoints[0];
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
        let v4 = slice(json!({"addressType": "IPv4", "endpoints": [{"addresses": [
            "10.0.0.1", "127.0.0.2", "0.0.0.0", "224.0.0.1", "255.255.255.255", "fd00::1",
            "::ffff:10.0.0.1", "10.0.0.1:80", "", null, 7,
        ]}]}));
        let expected: [IpAddr; 2] = [[10, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        assert_eq!(addresses(&v4.unwrap()), expected);
        let v6 = slice(json!({"addressType": "IPv6", "endpoints": [
            {"addresses": ["fd00::1", "::", "ff02::1", "fe80::1", "::ffff:10.0.0.1", "10.0.0.1"]},
        ]}));
        let expected: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(addresses(&v6.unwrap()), [expected]);
        let fqdn = slice(json!({"addressType": "FQDN", "endpoints": [
            {"addresses": ["example.org", "10.0.0.1"]},
        ]}));
        let fqdn = fqdn.unwrap();
        assert_eq!((addresses(&fqdn), fqdn.without_address), (vec![], 1));
    }

    #[test]
    fn every_address_of_an_endpoint_has_its_conditions_and_is_small() {
        let slice = slice(json!({"addressType": "IPv4", "endpoints": [
            {"addresses": ["10.0.0.1", "10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"]}, {"addresses": []}, {},
        ]}));
        let slice = slice.unwrap();
        let ready: Vec<_> = slice
            .endpoints
            .iter()
            .map(|endpoint| endpoint.ready)
            .collect();
        assert_eq!(ready, [false, false, true]);
        assert_eq!(slice.without_address, 2);
        assert!(size_of::<SliceEndpoint>() <= 32);
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
            *ports,
            [
                port("http", 8080, Protocol::Tcp),
                port("", 81, Protocol::Udp)
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_told_once_for_each_sort() {
        let addresses: Vec<String> = (0..1000).map(|number| format!("bad-{number}")).collect();
        let slice = slice(
            json!({"addressType": "IPv4", "ports": [{"port": "8080"}], "endpoints": [
                {"addresses": ["10.0.0.1"]}, {"addresses": addresses},
                {"addresses": ["fd00::1", "0.0.0.0"]},
            ]}),
        );
        let told: Vec<_> = slice
            .unwrap()
            .ignored
            .into_iter()
            .map(|ignored| format!("{}: {}", ignored.field, ignored.message))
            .collect();
        assert_eq!(
            told,
            [
                "ports[0].port: is \"8080\", which is not a port number, so it is ignored; write a \
                 number from 1 to 65535",
                "endpoints[1].addresses[0]: is \"bad-0\", which is not an IP address (and 999 more \
                 like it), so it is ignored; write an IPv4 address",
                "endpoints[2].addresses[0]: is \"fd00::1\", which is not an IPv4 address, as \
                 addressType says, so it is ignored; put it into an EndpointSlice of its own \
                 addressType",
                "endpoints[2].addresses[1]: is \"0.0.0.0\", which connections cannot be sent to, so \
                 it is ignored; write the address of a pod",
            ]
        );
    }

    #[test]
    fn a_slice_of_names_is_told_once() {
        let slice = slice(json!({"addressType": "FQDN", "endpoints": [
            {"addresses": ["a.example.org"]}, {"addresses": ["b.example.org"]},
        ]}));
        let ignored = slice.unwrap().ignored;
        assert_eq!(ignored.len(), 1);
        assert_eq!(ignored[0].field, "addressType");
    }

    #[test]
    fn an_empty_label_is_none() {
        let value = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-x", "labels": {SERVICE_NAME: ""}},
        });
        match decode(value) {
            Ok(Some(Object::EndpointSlice(slice))) => assert_eq!(slice.service, None),
            other => panic!("{other:?}"),
        }
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
            assert_eq!(&*slice(value.clone()).unwrap_err().field, field, "{value}");
        }
    }
}
