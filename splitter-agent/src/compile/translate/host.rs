//! What a root or a backend is called, and which Service that is.

use crate::objects::dns;

/// A Service, by the name that clients or authors use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Name of the Service.
    pub(super) service: String,
    /// Its namespace, if the name says so.
    pub(super) namespace: Option<String>,
    /// The port after the name, if there is one.
    pub(super) port: Option<u16>,
}

/// Why a name is not that of a Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    /// Not a DNS name.
    #[error("is not a DNS name")]
    InvalidName,
    /// What follows the colon is not a port.
    #[error("has something after the colon that is not a port from 1 to 65535")]
    InvalidPort,
    /// A DNS name, but not of this cluster's Services.
    #[error("is not the name of a Service of this cluster")]
    Foreign,
    /// The name of a Service of another cluster, or of this one, whose domain is not known.
    #[error(
        "is not in the domain of this cluster as the agent knows it; if it is, give the agent \
         --cluster-domain {0}"
    )]
    OtherDomain(String),
}

/// What every cluster answers to unless it is told otherwise, so that manifests are
/// written with it.
const USUAL_DOMAIN: &str = "cluster.local";

/// Of a DNS name (RFC 1035).
const LONGEST_NAME: usize = 253;

impl Host {
    /// Reads `svc`, `svc.ns`, `svc.ns.svc` and `svc.ns.svc.<cluster domain>` (also only
    /// the first labels of the domain: Open Service Mesh documents `svc.ns.svc.cluster`),
    /// each with an optional final dot and `:port`, in any case.
    pub(super) fn parse(text: &str, cluster_domain: &str) -> Result<Self, HostError> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(parse_port(port).ok_or(HostError::InvalidPort)?)),
            None => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        if !labels.iter().all(|label| dns::is_label(label)) {
            return Err(HostError::InvalidName);
        }
        let (service, namespace) = match labels.as_slice() {
            [service] => (service, None),
            [service, namespace] => (service, Some(namespace)),
            [service, namespace, "svc", domain @ ..]
                if begins(cluster_domain, domain) || begins(USUAL_DOMAIN, domain) =>
            {
                (service, Some(namespace))
            }
            [_, _, "svc", domain @ ..] if name.len() <= LONGEST_NAME => {
                return Err(HostError::OtherDomain(domain.join(".")));
            }
            _ => return Err(HostError::Foreign),
        };
        Ok(Self {
            service: (*service).to_owned(),
            namespace: namespace.map(|namespace| (*namespace).to_owned()),
            port,
        })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// Whether a domain begins with these labels, which are in lower case.
fn begins(domain: &str, labels: &[&str]) -> bool {
    let mut of_domain = domain.trim_matches('.').split('.');
    labels.iter().all(|label| {
        of_domain
            .next()
            .is_some_and(|candidate| candidate.eq_ignore_ascii_case(label))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<(String, Option<String>), HostError> {
        Host::parse(text, "k8s.example.org.").map(|host| (host.service, host.namespace))
    }

    #[test]
    fn every_form_of_one_name() {
        assert_eq!(parse("web"), Ok(("web".into(), None)));
        for form in [
            "web.shop",
            "web.shop.",
            "WEB.Shop",
            "web.shop:80",
            "web.shop.svc",
            "web.shop.svc.cluster",
            "web.shop.svc.cluster.local",
            "web.shop.svc.cluster.local.",
            "web.shop.svc.cluster.local:8080",
            "web.shop.svc.cluster.local.:8080",
            "web.shop.SVC.K8s.Example.Org",
        ] {
            assert_eq!(
                parse(form),
                Ok(("web".into(), Some("shop".into()))),
                "{form}"
            );
        }
    }

    #[test]
    fn names_of_other_things() {
        for (form, error) in [
            ("", HostError::InvalidName),
            (".", HostError::InvalidName),
            ("web..shop", HostError::InvalidName),
            (" web", HostError::InvalidName),
            ("we_b", HostError::InvalidName),
            ("http://web", HostError::InvalidPort),
            ("web:", HostError::InvalidPort),
            ("web:0", HostError::InvalidPort),
            ("web:+80", HostError::InvalidPort),
            ("web:65536", HostError::InvalidPort),
            ("www.example.org", HostError::Foreign),
            ("pod.web.shop.svc.cluster.local", HostError::Foreign),
            (
                "web.shop.svc.cluster.local.extra",
                HostError::OtherDomain("cluster.local.extra".into()),
            ),
            (
                "web.shop.svc.local:80",
                HostError::OtherDomain("local".into()),
            ),
            (
                format!("web.shop.svc{}", ".x".repeat(200)).as_str(),
                HostError::Foreign,
            ),
        ] {
            assert_eq!(parse(form), Err(error), "{form}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>(), domain in any::<String>()) {
            let _ = Host::parse(&text, &domain);
        }
    }
}
