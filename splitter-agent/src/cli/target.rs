//! What `explain` is asked about: an address and port, or a Service by name.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::plan::{Frontend, FrontendPlan};

/// An address and port, or a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `10.96.0.10:14001` or `[fd00::1]:14001`.
    Address(SocketAddr),
    /// `10.96.0.10`: every port.
    Ip(IpAddr),
    /// `service.namespace`, optionally with more of the DNS name and a port.
    Service {
        namespace: String,
        name: String,
        port: Option<u16>,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let ip = address.ip().to_canonical();
            return Ok(Self::Address(SocketAddr::new(ip, address.port())));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(address.to_canonical()));
        }
        let (host, port) = match text.rsplit_once(':') {
            None => (text, None),
            Some((host, port)) => (
                host,
                Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                    format!("`{port}` is not a port; give a number from 1 to 65535")
                })?),
            ),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let mut labels = host.split('.');
        let name = labels.next().unwrap_or_default();
        let namespace = labels.next().unwrap_or("default");
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || character == '-')
        };
        if !is_label(name) || !is_label(namespace) || labels.next().is_some_and(|l| l != "svc") {
            return Err(
                "give ADDRESS:PORT, or SERVICE.NAMESPACE with an optional :PORT".to_owned(),
            );
        }
        Ok(Self::Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        })
    }
}

impl Target {
    /// Whether a frontend is meant.
    pub(super) fn matches(&self, frontend: &Frontend, split: &FrontendPlan) -> bool {
        match self {
            Self::Address(address) => frontend.address == *address,
            Self::Ip(address) => frontend.address.ip() == *address,
            Self::Service {
                namespace,
                name,
                port,
            } => {
                split.root.namespace == *namespace
                    && split.root.name == *name
                    && port.is_none_or(|port| frontend.address.port() == port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, port: Option<u16>) -> Result<Target, String> {
        Ok(Target::Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        })
    }

    #[test]
    fn services_are_named_as_clients_name_them() {
        assert_eq!("web".parse(), service("default", "web", None));
        assert_eq!("web.shop".parse(), service("shop", "web", None));
        assert_eq!("Web.shop.svc:80".parse(), service("shop", "web", Some(80)));
        assert_eq!(
            "web.shop.svc.cluster.local.".parse(),
            service("shop", "web", None)
        );
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(
            "[::ffff:10.96.0.10]:80".parse(),
            Ok(Target::Address("10.96.0.10:80".parse().unwrap()))
        );
        assert_eq!(
            "fd00::1".parse(),
            Ok(Target::Ip("fd00::1".parse().unwrap()))
        );
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for text in [
            "",
            ":80",
            "web.shop:0",
            "web.shop:99999",
            "web.shop.example.com",
            "a b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
