//! Services: the addresses and ports that clients dial.

use std::net::IpAddr;

use serde_json::Value;
use splitter_common::layout::Protocol;

use super::field::{self, FieldError, Fields, shown};
use super::kind::{Availability, Entry, NameRule, Purpose, Resource, StatusForm};
use super::{Metadata, Object, ObjectName};

/// The kind of Services.
pub(crate) static ENTRY: Entry = Entry {
    resource: Resource {
        kind: "Service",
        plural: "services",
        group: "",
    },
    versions: &["v1"],
    purpose: Purpose::Dependency,
    availability: Availability::BuiltIn,
    is_namespaced: true,
    name_rule: NameRule::Label,
    status: StatusForm::None,
    precedence: 0,
    may_be_superseded: false,
    owns_group: false,
    definition: None,
    read: |metadata, object| Service::read(metadata, object).map(Object::Service),
};

/// What the agent keeps of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// What stands behind its name.
    pub kind: ServiceKind,
    /// Its cluster IPs, without duplicates; empty unless it is [`ServiceKind::ClusterIp`],
    /// and empty then, too, as long as none is allocated.
    pub cluster_ips: Box<[IpAddr]>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Whether it asks that a client stay with one endpoint.
    pub session_affinity_client_ip: bool,
    /// Whether its clients are to be sent to endpoints of their own node only
    /// (`internalTrafficPolicy: Local`).
    pub is_node_local: bool,
    /// Whether it chooses pods; the endpoints of one that does not are written by others.
    pub has_selector: bool,
}

/// What stands behind the name of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// Virtual addresses (types ClusterIP, NodePort and LoadBalancer).
    ClusterIp,
    /// The addresses of the endpoints themselves (`clusterIP: None`).
    Headless,
    /// Another name.
    ExternalName,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name; empty if it has none. EndpointSlices refer to the port by it.
    pub name: String,
    /// Number, never 0.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// What is spoken there, as the Service declares it.
    pub app_protocol: AppProtocol,
}

impl Service {
    /// The port of this number and protocol.
    #[must_use]
    pub fn port(&self, port: u16, protocol: Protocol) -> Option<&ServicePort> {
        self.ports
            .iter()
            .find(|candidate| candidate.port == port && candidate.protocol == protocol)
    }

    fn read(metadata: Metadata<'_>, object: &Fields) -> Result<Self, FieldError> {
        let none = Fields::new();
        let spec = field::object(object, "spec")?.unwrap_or(&none);
        Self::read_spec(metadata.name, spec).map_err(|error| error.below("spec"))
    }

    fn read_spec(name: ObjectName, spec: &Fields) -> Result<Self, FieldError> {
        let (kind, cluster_ips) = match field::text(spec, "type")? {
            Some("ExternalName") => (ServiceKind::ExternalName, Vec::new()),
            _ => cluster_ips(spec)?,
        };
        Ok(Self {
            name,
            kind,
            cluster_ips: cluster_ips.into(),
            ports: field::each(spec, "ports", ServicePort::read)?.into(),
            session_affinity_client_ip: field::text(spec, "sessionAffinity")? == Some("ClientIP"),
            is_node_local: field::text(spec, "internalTrafficPolicy")? == Some("Local"),
            has_selector: field::object(spec, "selector")?
                .is_some_and(|selector| !selector.is_empty()),
        })
    }
}

impl ServicePort {
    fn read(value: &Value) -> Result<Self, FieldError> {
        let fields = field::as_object(value)?;
        let number = field::present(fields, "port").unwrap_or(&Value::Null);
        let port = field::port(number).ok_or_else(|| {
            FieldError::new(format!(
                "is {}; write a number from 1 to 65535",
                shown(number)
            ))
            .below("port")
        })?;
        let name = field::text(fields, "name")?.unwrap_or_default();
        let protocol = protocol(fields)?;
        // Whatever else stands there declares nothing.
        let declared = fields.get("appProtocol").and_then(Value::as_str);
        Ok(Self {
            app_protocol: AppProtocol::of(protocol, declared, name, port),
            name: name.to_owned(),
            port,
            protocol,
        })
    }
}

/// What is spoken at a port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// HTTP in any version, gRPC included.
    Http,
    /// TLS, HTTPS included.
    Tls,
    /// Anything else over TCP.
    Tcp,
    /// Datagrams.
    Udp,
    /// The Service does not say.
    Undeclared,
}

impl AppProtocol {
    /// As Istio reads it (`ConvertProtocol` in its `pkg/config/kube/conversion.go`): from
    /// `appProtocol`, or from the name of the port up to its first hyphen, or from a few numbers.
    fn of(protocol: Protocol, declared: Option<&str>, name: &str, port: u16) -> Self {
        // SMTP, DNS, MySQL and MongoDB: their servers speak first.
        const WELL_KNOWN: [u16; 4] = [25, 53, 3306, 27017];
        if protocol == Protocol::Udp {
            return Self::Udp;
        }
        match declared {
            Some("kubernetes.io/h2c" | "kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Tls,
            _ => {}
        }
        let name = declared.unwrap_or(name);
        let prefix = name.split('-').next().unwrap_or_default();
        match prefix.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" | "http2" | "grpc" => Self::Http,
            "https" | "tls" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Self::Tcp,
            "udp" => Self::Udp,
            _ if WELL_KNOWN.contains(&port) => Self::Tcp,
            _ => Self::Undeclared,
        }
    }
}

/// The protocol of a port; TCP if it has none.
pub(super) fn protocol(fields: &Fields) -> Result<Protocol, FieldError> {
    match field::text(fields, "protocol")? {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(FieldError::new(format!(
            "is {}; write TCP, UDP or SCTP",
            shown(&Value::from(other))
        ))
        .below("protocol")),
    }
}

/// `clusterIPs`, or, where there is none, `clusterIP`.
fn cluster_ips(spec: &Fields) -> Result<(ServiceKind, Vec<IpAddr>), FieldError> {
    let listed = field::each(spec, "clusterIPs", ClusterIp::read)?;
    let all = if listed.is_empty() {
        let single = field::present(spec, "clusterIP").unwrap_or(&Value::Null);
        vec![ClusterIp::read(single).map_err(|error| error.below("clusterIP"))?]
    } else {
        listed
    };
    if all.contains(&ClusterIp::Headless) {
        return Ok((ServiceKind::Headless, Vec::new()));
    }
    let mut addresses = Vec::new();
    for cluster_ip in all {
        if let ClusterIp::Address(address) = cluster_ip
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    Ok((ServiceKind::ClusterIp, addresses))
}

/// What a cluster IP may say.
#[derive(PartialEq, Eq)]
enum ClusterIp {
    NotAllocated,
    Headless,
    Address(IpAddr),
}

impl ClusterIp {
    fn read(value: &Value) -> Result<Self, FieldError> {
        match value {
            Value::Null => Ok(Self::NotAllocated),
            Value::String(text) => match text.as_str() {
                "" => Ok(Self::NotAllocated),
                "None" => Ok(Self::Headless),
                text => dialled_address(text)
                    .map(Self::Address)
                    .ok_or_else(|| not_an_address(value)),
            },
            _ => Err(not_an_address(value)),
        }
    }
}

/// An address that a client can dial, and mean one Service by it.
fn dialled_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}

fn not_an_address(value: &Value) -> FieldError {
    FieldError::new(format!(
        "is {}; write an address that clients can dial, such as 10.96.0.7, or None",
        shown(value)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::{DecodeError, Object, decode};

    fn service(spec: &Value) -> Result<Service, DecodeError> {
        let value = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec,
        });
        decode(value).map(|object| match object {
            Some(Object::Service(service)) => service,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn all_cluster_ips_are_read() {
        let dual = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"]});
        let expected: [IpAddr; 2] = ["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(*service(&dual).unwrap().cluster_ips, expected);
        for single in [
            json!({"clusterIP": "10.96.0.7"}),
            json!({"clusterIP": "10.96.0.7", "clusterIPs": null}),
            json!({"clusterIPs": ["10.96.0.7", "10.96.0.7", null, "::ffff:10.96.0.7"]}),
        ] {
            assert_eq!(*service(&single).unwrap().cluster_ips, expected[..1]);
        }
    }

    #[test]
    fn kinds() {
        let kind = |spec: Value| service(&spec).unwrap().kind;
        assert_eq!(kind(json!({"clusterIP": "None"})), ServiceKind::Headless);
        assert_eq!(kind(json!({"clusterIPs": ["None"]})), ServiceKind::Headless);
        assert_eq!(
            kind(json!({"type": "ExternalName"})),
            ServiceKind::ExternalName
        );
        assert_eq!(
            kind(json!({"type": "LoadBalancer"})),
            ServiceKind::ClusterIp
        );
        assert_eq!(kind(json!(null)), ServiceKind::ClusterIp);
    }

    #[test]
    fn ports_default_to_tcp_without_a_name() {
        let ports = service(&json!({"ports": [
            {"port": 80}, {"port": 53, "protocol": "UDP", "name": "dns", "targetPort": "x"},
        ]}))
        .unwrap()
        .ports;
        let port = |name: &str, port, protocol| ServicePort {
            name: name.to_owned(),
            port,
            protocol,
            app_protocol: match protocol {
                Protocol::Udp => AppProtocol::Udp,
                _ => AppProtocol::Undeclared,
            },
        };
        assert_eq!(
            *ports,
            [port("", 80, Protocol::Tcp), port("dns", 53, Protocol::Udp)]
        );
        assert_eq!(*service(&json!({"ports": null})).unwrap().ports, []);
    }

    #[test]
    fn what_is_spoken_at_a_port_is_read_as_istio_reads_it() {
        use AppProtocol::{Http, Tcp, Tls, Udp, Undeclared};
        for (port, expected) in [
            (json!({"port": 80, "name": "http"}), Http),
            (json!({"port": 80, "name": "HTTP-web"}), Http),
            (json!({"port": 80, "name": "http2-web"}), Http),
            (json!({"port": 80, "name": "grpc-web"}), Http),
            (json!({"port": 80, "name": "grpc"}), Http),
            (json!({"port": 443, "name": "https"}), Tls),
            (json!({"port": 443, "name": "tls-x"}), Tls),
            (json!({"port": 80, "name": "tcp-http"}), Tcp),
            (json!({"port": 6379, "name": "redis"}), Tcp),
            (json!({"port": 3306, "name": "mysql-0"}), Tcp),
            (json!({"port": 3306}), Tcp),
            (json!({"port": 3306, "name": "http"}), Http),
            (json!({"port": 53, "name": "dns"}), Tcp),
            (json!({"port": 53, "name": "tcp", "protocol": "UDP"}), Udp),
            (json!({"port": 80, "name": "web"}), Undeclared),
            (json!({"port": 80, "name": "httpx"}), Undeclared),
            (json!({"port": 443}), Undeclared),
            (
                json!({"port": 80, "name": "web", "appProtocol": "http"}),
                Http,
            ),
            (
                json!({"port": 80, "name": "http", "appProtocol": "tcp"}),
                Tcp,
            ),
            (
                json!({"port": 80, "name": "http", "appProtocol": "example.com/x"}),
                Undeclared,
            ),
            (
                json!({"port": 80, "appProtocol": "kubernetes.io/h2c"}),
                Http,
            ),
            (json!({"port": 80, "appProtocol": "kubernetes.io/ws"}), Http),
            (json!({"port": 80, "appProtocol": "kubernetes.io/wss"}), Tls),
            (
                json!({"port": 80, "name": "http", "appProtocol": null}),
                Http,
            ),
            (json!({"port": 80, "name": "http", "appProtocol": 7}), Http),
        ] {
            let read = service(&json!({"ports": [port]})).unwrap();
            assert_eq!(read.ports[0].app_protocol, expected, "{port}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (spec, field) in [
            (
                json!({"ports": [{"port": 80}, {"port": 0}]}),
                "spec.ports[1].port",
            ),
            (json!({"ports": [{}]}), "spec.ports[0].port"),
            (
                json!({"ports": [{"port": 80, "protocol": "tcp"}]}),
                "spec.ports[0].protocol",
            ),
            (json!({"ports": {}}), "spec.ports"),
            (json!({"clusterIP": "none"}), "spec.clusterIP"),
            (json!({"clusterIP": 7}), "spec.clusterIP"),
            (
                json!({"clusterIPs": ["10.96.0.7", "0.0.0.0"]}),
                "spec.clusterIPs[1]",
            ),
            (json!([]), "spec"),
        ] {
            assert_eq!(&*service(&spec).unwrap_err().field, field, "{spec}");
        }
    }
}
